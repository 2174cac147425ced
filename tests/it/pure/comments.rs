//! No comment makes a script with another rule in it, on the way there and on the way back.

use proptest::prelude::*;
use tproxy::backend::iptables::owned::Ownership;
use tproxy::backend::iptables::save::Saved;
use tproxy::backend::iptables::transition::{changes, script};
use tproxy::backend::iptables::wanted::Wanted;
use tproxy::plan::OWNER_TAG;

/// As save programs print it.
fn printed(comment: &str) -> String {
    let escaped =
        comment.chars().flat_map(|c| matches!(c, '"' | '\\' | '\'').then_some('\\').into_iter().chain([c]));
    format!("\"{}\"", escaped.collect::<String>())
}

fn comments() -> impl Strategy<Value = String> {
    let any = proptest::collection::vec(any::<char>(), 0..60).prop_map(String::from_iter);
    let pieces = proptest::sample::select(vec![
        "\n",
        "\"",
        "\\",
        "'",
        "\nCOMMIT\n",
        "*nat\n",
        "-A OUTPUT -j DROP",
        "-F\n",
        " ",
        "\r\n",
        "\u{fffd}",
        "--comment \"",
        "-j X",
        "é",
    ]);
    let built = proptest::collection::vec(pieces, 0..14).prop_map(|pieces| pieces.concat());
    let long = "[a\u{fffd}]{230,240}".prop_map(|text| text);
    prop_oneof![any, built, long]
}

proptest! {
    #[test]
    fn no_comment_makes_another_rule(comment in comments(), own_chain: bool) {
        let comment = format!("{OWNER_TAG}/{comment}");
        let chain = if own_chain { "KUMA_MESH_INBOUND" } else { "OUTPUT" };
        let rule = format!("-A {chain} -m comment --comment {} -p tcp -j RETURN", printed(&comment));
        let text = format!("*nat\n:{chain} - [0:0]\n{rule}\nCOMMIT\n");
        let saved = Saved::parse(&text);
        let rules = &saved.table("nat").expect("a table").chain(chain).expect("a chain").rules;
        prop_assert_eq!(rules.len(), 1);
        let known = rules[0].comment();
        prop_assert_eq!(known.as_deref(), Some(comment.as_str()));

        let ownership = Ownership::of(&saved, &[]);
        let before = Wanted::before(&saved, &ownership);
        let empty = Saved::parse("*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n");
        let away = script(&changes(&saved, &ownership, &Wanted::nothing()));
        let back = script(&changes(&empty, &Ownership::of(&empty, &[]), &before));

        let away: Vec<_> = away.split('\n').collect();
        let count = if own_chain { 5 } else { 4 };
        prop_assert_eq!(away.len(), count, "{:?}", away);
        prop_assert!(away[1].starts_with(&format!("-{} {chain}", if own_chain { 'F' } else { 'D' })), "{:?}", away);
        let back: Vec<_> = back.split('\n').collect();
        prop_assert_eq!(back.len(), count, "{:?}", back);
        let added = back[count - 3].replacen("-I OUTPUT 1 ", "-A OUTPUT ", 1);
        let told = Saved::parse(&format!("*nat\n{added}\n"));
        let told = &told.tables[0].chains[0].rules;
        prop_assert_eq!(told.len(), 1);
        let but_comment = |words: Vec<String>| { let mut words = words; words.remove(3); words };
        prop_assert_eq!(but_comment(told[0].words()), but_comment(rules[0].words()));
        let said = told[0].comment().expect("a comment");
        prop_assert!(said.len() <= 255 && !said.chars().any(char::is_control), "{:?}", said);
        if rules[0].can_be_said() {
            prop_assert_eq!(said, comment);
        }
    }
}
