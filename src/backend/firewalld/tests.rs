use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::host::{HostFacts, Ipv6Support, Resolver};

/// Ours among others, in a file that an administrator wrote by hand.
const FOREIGN: &str = "\
<?xml version='1.0'?>
<!-- Kept by hand. Ask before you change it! -->
<direct>

  <chain table=\"filter\" ipv=\"ipv4\" chain=\"office\"/>   <!-- the printer -->
  <rule ipv=\"ipv4\" table=\"filter\" chain=\"INPUT\" priority=\"0\">-s 10.0.0.0/8 -j office</rule>
\t<rule ipv='ipv4' table='nat' chain='OUTPUT' priority='0'
\t      >-m comment --comment 'not kuma/mesh/transparent/proxy' -d 192.0.2.1 -j ACCEPT</rule>
  <rule ipv=\"eb\" table=\"nat\" chain=\"PREROUTING\" priority=\"1\"><![CDATA[-j LOG --log-prefix \"<x>\"]]></rule>
  <passthrough ipv=\"ipv6\">-t nat -A OUTPUT -d fd00::1 -j ACCEPT</passthrough>
  <chain ipv=\"ipv4\" table=\"filter\" chain=\"KUMA_MESH_INBOUND\"></chain>
</direct>
<!-- end -->
";

fn facts() -> HostFacts {
    HostFacts {
        sidecar_uid: 5678,
        loopback: "lo".into(),
        ipv6: Ipv6Support::Available,
        resolvers: ["10.0.0.53", "fd00::53"]
            .map(|addr| Resolver { addr: addr.parse().unwrap(), zone: None })
            .into(),
        docker_dns: false,
        translated: crate::host::Translated::default(),
    }
}

fn plan_of(change: impl Fn(&mut Config)) -> Plan {
    let mut config = Config::default();
    change(&mut config);
    crate::plan::build(&config, &facts())
}

fn plain() -> Plan {
    plan_of(|_| {})
}

/// With rules at the head of shared chains, in raw and in mangle.
fn with_dns() -> Plan {
    plan_of(|config| {
        config.redirect.dns.enabled = true;
        config.redirect.inbound.exclude_ports = vec!["22".parse().unwrap()];
        config.redirect.vnet.networks = vec!["docker0:172.17.0.0/16".parse().unwrap()];
        config.drop_invalid_packets = true;
    })
}

fn merged(existing: Option<&str>, plan: &Plan) -> String {
    merge(existing, plan, true).unwrap().text
}

fn removed(text: &str) -> Option<String> {
    remove(text, false).unwrap()
}

fn golden(name: &str, actual: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/firewalld").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap();
    assert!(wanted == actual, "differs from {}; it is now:\n{actual}", path.display());
}

#[test]
fn a_new_file() {
    let text = merged(None, &with_dns());
    golden("new.xml", &text);
    assert_eq!(removed(&text).unwrap(), SKELETON);
}

#[test]
fn a_file_of_somebody_else() {
    let text = merged(Some(FOREIGN), &plain());
    golden("foreign.xml", &text);
    assert_eq!(removed(&text).unwrap(), FOREIGN);
}

#[test]
fn rules_of_a_chain_are_in_the_order_of_their_priorities() {
    let text = merged(None, &with_dns());
    let document = Document::parse(&text).unwrap();
    let (entries, _) = entries::of(&with_dns(), true);
    assert_eq!(document.items.len(), entries.len());
    assert!(document.items.iter().zip(&entries).all(|(item, entry)| item.is(entry)));
    // What iptables would have after all -I and -A: heads in order, then tails in order.
    for family in &with_dns().families {
        for (table, (chain, placed)) in
            family.tables.iter().flat_map(|t| t.chains.iter().map(move |c| (t, c)))
        {
            let mut wanted = placed.clone();
            wanted.sort_by_key(|placed| placed.placement);
            let wanted = wanted.iter().map(|placed| placed.rule.why.clone()).collect::<Vec<_>>();
            let ipv = if family.family == crate::plan::Family::V4 { "ipv4" } else { "ipv6" };
            let mut there = entries
                .iter()
                .filter(|entry| {
                    (entry.ipv, entry.table, entry.chain) == (ipv, table.table.name(), chain.name())
                })
                .filter_map(|entry| entry.rule.as_ref())
                .collect::<Vec<_>>();
            there.sort_by_key(|rule| rule.priority);
            assert!(there.is_sorted_by(|one, next| one.priority < next.priority), "equal ones have no order");
            assert_eq!(there.len(), wanted.len());
            for (rule, why) in there.iter().zip(wanted) {
                assert!(
                    rule.args.contains(&crate::backend::iptables::syntax::comment(&why)),
                    "{} {why}",
                    rule.args
                );
            }
        }
    }
}

#[test]
fn the_same_again_changes_nothing() {
    for comments in [true, false] {
        let once = merge(Some(FOREIGN), &with_dns(), comments).unwrap();
        let twice = merge(Some(&once.text), &with_dns(), comments).unwrap();
        assert_eq!(once.text, twice.text);
        assert_eq!(twice.replaced, [""; 0]);
    }
}

/// As `firewall-cmd --permanent --direct --add-rule` leaves it: read and written anew, with the quotes of Python's
/// `shlex.quote`.
fn rewritten(text: &str) -> String {
    let quote = |word: String| {
        let safe = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
        if word.chars().all(safe) { word } else { format!("'{}'", word.replace('\'', "'\"'\"'")) }
    };
    let line = |line: &str| match line.strip_suffix("</rule>").and_then(|line| line.split_once('>')) {
        Some((tag, args)) => {
            let words = args::split(args).unwrap().into_iter().map(quote).collect::<Vec<_>>();
            format!("{tag}>{}</rule>", words.join(" "))
        }
        None => line.to_owned(),
    };
    let elements = text.lines().filter(|line| line.starts_with("  <")).map(line).collect::<Vec<_>>();
    let header = "<?xml version=\"1.0\" encoding=\"utf-8\"?>";
    format!("{header}\n<direct>\n{}\n</direct>\n", elements.join("\n"))
}

#[test]
fn a_file_that_firewalld_wrote_anew_is_known_again() {
    let text = rewritten(&merged(None, &with_dns()));
    let again = merged(Some(&text), &with_dns());
    assert_eq!(again, text);
    assert!(!removed(&text).unwrap().contains("kuma"));
}

#[test]
fn another_plan_takes_the_place_of_the_first_one() {
    let late = "  <passthrough ipv=\"ipv4\">-t mangle -N late</passthrough>\n</direct>\n<!--";
    let text = merged(Some(FOREIGN), &with_dns()).replace("</direct>\n<!--", late);
    let foreign = FOREIGN.replace("</direct>\n<!--", late);
    let changed = merged(Some(&text), &plain());
    assert!(changed.find("KUMA_MESH_OUTBOUND").unwrap() < changed.find("late").unwrap());
    assert!(!changed.contains("docker0"));
    assert_eq!(removed(&changed).unwrap(), foreign);
}

#[test]
fn without_comments_the_priority_tells() {
    let text = merge(Some(FOREIGN), &with_dns(), false).unwrap().text;
    assert!(!text.replace(FOREIGN, "").contains("proxy/"));
    assert_eq!(removed(&text).unwrap(), FOREIGN);
    // Both kinds of install know each other.
    assert_eq!(merged(Some(&text), &plain()), merged(Some(FOREIGN), &plain()));
    // Somebody's own comment is stronger than the number.
    let theirs = "<direct><rule ipv=\"ipv4\" table=\"nat\" chain=\"OUTPUT\" priority=\"56780000\">-m comment --comment \
                  mine -j ACCEPT</rule></direct>";
    assert_eq!(removed(theirs), None);
}

#[test]
fn what_others_have_in_our_chains_is_told_and_replaced() {
    let theirs = "<rule ipv=\"ipv4\" table=\"nat\" chain=\"KUMA_MESH_OUTBOUND\" priority=\"0\">-d 192.0.2.1 -j RETURN</rule>";
    let text = merged(None, &plain()).replace("</direct>", &format!("{theirs}</direct>"));
    let again = merge(Some(&text), &plain(), true).unwrap();
    assert_eq!(again.replaced, [theirs]);
    assert!(!again.text.contains("192.0.2.1"));
}

#[test]
fn rules_of_others_that_lead_to_us_are_kept_and_stop_a_removal() {
    let jump = "<rule ipv=\"ipv4\" table=\"nat\" chain=\"OUTPUT\" priority=\"0\">-p tcp -j KUMA_MESH_OUTBOUND</rule>";
    let pass = "<passthrough ipv=\"ipv6\">-t nat -A OUTPUT -g KUMA_MESH_OUTBOUND</passthrough>";
    let foreign = FOREIGN.replace("  <passthrough", &format!("  {jump}\n  {pass}\n  <passthrough"));
    let text = merged(Some(&foreign), &plain());
    assert!(text.contains(jump) && text.contains(pass));
    assert_eq!(remove(&text, false), Err(Error::StillUsed(vec![jump.into(), pass.into()])));
    assert_eq!(remove(&text, true).unwrap().unwrap(), FOREIGN);
    // Before we were there they were somebody's own mistake.
    assert_eq!(removed(&foreign), None);
}

#[test]
fn dockers_chain_is_not_asked_of_firewalld() {
    let mut plan = plain();
    let rule =
        crate::plan::Rule { matches: vec![], target: crate::plan::Target::DockerOutput, why: "x".into() };
    let placed = crate::plan::PlacedRule { placement: crate::plan::Placement::Head, rule };
    plan.families[0].tables[0].chains[0].1.insert(0, placed);
    let with = merge(None, &plan, true).unwrap();
    assert_eq!(with.text, merged(None, &plain()));
    assert_eq!(with.notes.len(), 1);
}

#[test]
fn odd_roots() {
    let ours = merged(None, &plain());
    let ours = ours.split("<direct>").nth(1).unwrap();
    for (text, before) in [
        ("<direct/>", "<direct>"),
        ("<?xml version=\"1.0\"?>\n<direct />", "<?xml version=\"1.0\"?>\n<direct>"),
        ("<direct></direct>", "<direct>"),
        ("\u{feff}<direct>\n</direct>", "\u{feff}<direct>"),
        ("<direct a=\"1\"\n/>", "<direct a=\"1\">"),
    ] {
        let text = merged(Some(text), &plain());
        assert!(text.starts_with(before), "{text}");
        let blankless = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(blankless(&text[before.len()..]), blankless(ours), "{text}");
        let gone = removed(&text).unwrap();
        assert_eq!(blankless(&gone), blankless(&format!("{before}</direct>")));
    }
    for empty in ["", " \n"] {
        assert_eq!(merged(Some(empty), &plain()), merged(None, &plain()));
        assert_eq!(removed(empty), None);
    }
}

#[test]
fn windows_line_ends_stay() {
    let foreign = FOREIGN.replace('\n', "\r\n");
    let text = merged(Some(&foreign), &plain());
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
    assert_eq!(removed(&text).unwrap(), foreign);
}

#[test]
fn elements_on_one_line() {
    let text = merged(None, &plain()).replace("\n  ", "");
    let gone = removed(&text).unwrap();
    assert_eq!(gone, SKELETON);
    let mixed = text.replace("<direct>", "<direct><chain ipv=\"ipv4\" table=\"nat\" chain=\"x\"/>");
    assert_eq!(
        removed(&mixed).unwrap(),
        SKELETON.replace("<direct>", "<direct><chain ipv=\"ipv4\" table=\"nat\" chain=\"x\"/>")
    );
}

#[test]
fn files_that_firewalld_could_not_read() {
    for (text, line, word) in [
        ("<direct>\n\n</driect>", 3, "direct"),
        ("<direct>\n<rule", 2, ""),
        ("<direct>\n<rule></rule>\n", 3, "ends within"),
        ("<zone/>", 1, "<zone>"),
        ("<direct/>\n<direct/>", 2, "<direct>"),
        ("<?xml version=\"1.0\"?>\n", 2, "no <direct>"),
        ("<direct>\n<rule a=1/></direct>", 2, ""),
        ("<direct><rule ipv=\"a\" ipv=\"b\"/></direct>", 1, ""),
        ("</direct>", 1, ""),
    ] {
        let error = merge(Some(text), &plain(), true).unwrap_err();
        assert_eq!(remove(text, false), Ok(None), "{text}");
        let named = format!("{text}<!-- KUMA_MESH_INBOUND -->");
        assert!(matches!(remove(&named, true), Err(Error::Malformed { .. })), "{text}");
        let Error::Malformed { line: at, reason } = error else { panic!("{error:?}") };
        assert_eq!(at, line, "{text}: {reason}");
        assert!(reason.contains(word), "{text}: {reason}");
    }
}

#[test]
fn what_is_written_otherwise_is_ours_all_the_same() {
    let ours = "<rule chain='OUTPUT' priority='3' table='nat' ipv='ipv4'>-m comment --comment \
                &quot;kuma/mesh/transparent/proxy/&#97;&lt;&quot; -j <![CDATA[RETURN]]></rule>";
    assert_eq!(removed(&format!("<direct>{ours}</direct>")).unwrap(), "<direct></direct>");
    let unknown = "<!DOCTYPE direct [<!ENTITY tag \"kuma/mesh/transparent/proxy\">]>\n<direct><rule ipv=\"ipv4\" \
                   table=\"nat\" chain=\"OUTPUT\" priority=\"0\">-m comment --comment &tag;</rule></direct>";
    assert_eq!(removed(unknown), None);
    let nested = "<direct><rule ipv=\"ipv4\" table=\"nat\" chain=\"OUTPUT\" priority=\"0\">--comment <b/>\
                  kuma/mesh/transparent/proxy</rule></direct>";
    assert_eq!(removed(nested), None);
}

/// A piece of a foreign file between elements.
fn blank() -> impl Strategy<Value = String> {
    "[ \t]{0,3}(\n|\r\n)?[ \t]{0,4}(<!-- [a-z<>\" ]{0,12} -->|<[?]pi [a-z]{0,5}[?]>)?(\n  |\r\n|\t)?"
}

fn element() -> impl Strategy<Value = String> {
    let attributes = || {
        let ipv = prop_oneof!["ipv4", "ipv6", "eb"];
        let table = prop_oneof!["nat", "raw", "filter"];
        let chain = prop_oneof!["OUTPUT", "PREROUTING", "KUMA_MESH_INBOUND_X", "[a-zA-Z_]{1,9}"];
        (ipv, table, chain, any::<bool>()).prop_map(|(ipv, table, chain, double)| {
            let text = format!("ipv='{ipv}' chain='{chain}'  table='{table}'");
            if double { text.replace('\'', "\"") } else { text }
        })
    };
    let args = prop_oneof![
        "-p tcp --dport [0-9]{1,5} -j (ACCEPT|[a-z]{1,9})",
        "-m comment --comment ('[^'<&\\pC]{0,20}'|kuma/mesh/transparent/proxy[a-z]{1,3}|&quot;x y&quot;) -j DROP",
        "<!\\[CDATA\\[[^\\]\\pC]{0,20}\\]\\]>",
        "[^<&>\\pC]{0,20}",
        "\n   -j ACCEPT\n  ",
    ];
    prop_oneof![
        attributes().prop_map(|attributes| format!("<chain {attributes}/>")),
        attributes().prop_map(|attributes| format!("<chain\n{attributes} ></chain >")),
        (attributes(), -9..99i32, args.clone())
            .prop_map(|(attributes, n, args)| format!("<rule priority='{n}' {attributes}>{args}</rule>")),
        args.prop_map(|args| format!("<passthrough ipv=\"ipv4\">{args}</passthrough>")),
    ]
}

fn foreign() -> impl Strategy<Value = String> {
    let head =
        prop_oneof!["", "\u{feff}", "<[?]xml version='1.0' encoding=\"utf-8\"[?]>\n?", "\n<!-- é -->\n"];
    let content = prop::collection::vec((blank(), element()), 0..8);
    (head, content, blank(), "</direct ?>(\n|\r\n| <!-- -->)?").prop_map(|(head, content, last, tail)| {
        let content =
            content.into_iter().fold(String::new(), |text, (blank, element)| text + &blank + &element);
        format!("{head}<direct>{content}{last}{tail}")
    })
}

proptest! {
    #[test]
    fn foreign_files_come_back_byte_for_byte(text in foreign(), comments: bool, dns: bool) {
        prop_assert_eq!(removed(&text), None);
        let (first, second) = if dns { (with_dns(), plain()) } else { (plain(), with_dns()) };
        let once = merge(Some(&text), &first, comments).unwrap();
        prop_assert_eq!(&once.replaced, &Vec::<String>::new());
        prop_assert_eq!(removed(&once.text).unwrap(), text.as_str());
        prop_assert_eq!(&merge(Some(&once.text), &first, comments).unwrap().text, &once.text);
        let changed = merge(Some(&once.text), &second, !comments).unwrap().text;
        prop_assert_eq!(&changed, &merge(Some(&text), &second, !comments).unwrap().text);
        prop_assert_eq!(removed(&changed).unwrap(), text);
    }

    #[test]
    fn no_text_breaks_it(text in "(<direct>|</direct>|<rule|</rule>|<chain ipv='ipv4' table='nat' chain='KUMA_MESH_INBOUND'/>|[<>&;='\"/ \n]|\\PC){0,20}") {
        let _ = merge(Some(&text), &plain(), true);
        let _ = remove(&text, true);
    }
}

mod way_back {
    use super::super::back::{Back, way};
    use super::*;

    fn installed(before: Option<&str>) -> String {
        merged(before, &with_dns())
    }

    #[test]
    fn what_nobody_else_changed_comes_back_whole() {
        let older = installed(Some(FOREIGN)).replace("15001", "15009");
        for before in
            [None, Some(""), Some("<direct/>"), Some("<direct>\r\n</direct>"), Some(FOREIGN), Some(&older)]
        {
            let now = installed(before);
            assert_eq!(way(Some(&now), before), Ok(Back::Whole), "{before:?}");
            assert_eq!(way(before, before), Ok(Back::Nothing));
            // An uninstall that fails later.
            let removed = remove(&now, false).unwrap().unwrap();
            assert_eq!(way(Some(&removed), Some(&now)), Ok(Back::Whole), "{before:?}");
        }
    }

    #[test]
    fn what_others_changed_meanwhile_stays() {
        const ADDED: &str =
            "<rule ipv=\"ipv4\" table=\"filter\" chain=\"INPUT\" priority=\"7\">-j DROP</rule>";
        let add = |text: &str| text.replacen("</direct>", &format!("  {ADDED}\n</direct>"), 1);
        // A run that never wrote it.
        assert_eq!(way(Some(&add(FOREIGN)), Some(FOREIGN)), Ok(Back::Nothing));
        assert_eq!(way(None, Some(FOREIGN)), Ok(Back::Nothing));
        assert_eq!(way(Some("<direct> no XML"), Some(FOREIGN)), Ok(Back::Nothing));
        // One that did.
        let now = add(&installed(Some(FOREIGN)));
        let Ok(Back::Part(text)) = way(Some(&now), Some(FOREIGN)) else { panic!("a part") };
        assert_eq!(text, add(FOREIGN));
        // Over an older installation, and an uninstall of it.
        let older = installed(Some(FOREIGN)).replace("15001", "15009");
        for now in [add(&installed(Some(FOREIGN))), add(FOREIGN)] {
            let Ok(Back::Part(text)) = way(Some(&now), Some(&older)) else { panic!("a part") };
            assert!(text.contains(ADDED) && text.contains("15009") && !text.contains("15001"), "{text}");
            assert_eq!(way(Some(&text), Some(&older)), Ok(Back::Nothing));
            assert_eq!(remove(&text, false).unwrap().unwrap(), add(FOREIGN));
        }
        // Rules of ours in something that nobody understands.
        let broken = now.replace("</direct>", "");
        assert!(way(Some(&broken), Some(FOREIGN)).is_err());
    }

    #[test]
    fn what_force_took_away_comes_back() {
        let jump = FOREIGN.replacen(
            "<chain ",
            "<rule ipv=\"ipv4\" table=\"nat\" chain=\"OUTPUT\" priority=\"0\">-j KUMA_MESH_OUTBOUND</rule><chain ",
            1,
        );
        let before = installed(Some(&jump));
        let now = remove(&before, true).unwrap().unwrap();
        assert_eq!(way(Some(&now), Some(&before)), Ok(Back::Whole));
    }
}
