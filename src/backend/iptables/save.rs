//! Reads what `iptables-save` and its siblings print. Pure, and total: any text is read, lines that make no sense
//! are passed over, because they are other people's.

use std::collections::HashMap;

use crate::plan::{OWNER_TAG, Table};

use super::lines::lines;
use super::syntax::quoted;

/// What one save program printed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Saved {
    /// In the order printed.
    pub tables: Vec<SavedTable>,
}

/// One table of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedTable {
    /// `nat`, `filter`, …
    pub name: String,
    /// In the order printed; a chain that has rules but no declaration comes behind.
    pub chains: Vec<SavedChain>,
}

/// One chain of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedChain {
    /// Its name.
    pub name: String,
    /// Whether a hook calls it, that is, whether it has a policy.
    pub builtin: bool,
    /// In the kernel's order.
    pub rules: Vec<SavedRule>,
}

/// One rule of it, as text: most rules are other people's and are never looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedRule {
    /// Everything behind the chain's name, as printed: what `-D` and `-A` take back.
    pub args: String,
    /// How many packets it met, where the program was asked for that. In nat tables that is the first packet of
    /// each connection.
    pub packets: Option<u64>,
}

impl Saved {
    /// Reads the whole output.
    pub fn parse(text: &str) -> Self {
        let mut saved = Self::default();
        // Chains of the current table by name; there can be tens of thousands.
        let mut index: HashMap<&str, usize> = HashMap::new();
        for line in lines(text) {
            let line = line.trim_end_matches('\r');
            if let Some(name) = line.strip_prefix('*') {
                saved.tables.push(SavedTable { name: name.trim().to_owned(), chains: Vec::new() });
                index.clear();
                continue;
            }
            let Some(table) = saved.tables.last_mut() else { continue };
            if let Some(declaration) = line.strip_prefix(':') {
                let mut fields = declaration.split_ascii_whitespace();
                let Some(name) = fields.next() else { continue };
                let builtin = fields.next().is_some_and(|policy| policy != "-");
                index.insert(name, table.chains.len());
                table.chains.push(SavedChain { name: name.to_owned(), builtin, rules: Vec::new() });
            } else if let Some((packets, name, args)) = rule_line(line) {
                let at = *index.entry(name).or_insert_with(|| {
                    table.chains.push(SavedChain {
                        name: name.to_owned(),
                        builtin: false,
                        rules: Vec::new(),
                    });
                    table.chains.len() - 1
                });
                table.chains[at].rules.push(SavedRule { packets, ..SavedRule::new(args) });
            }
        }
        saved
    }

    /// The table of that name.
    pub fn table(&self, name: &str) -> Option<&SavedTable> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// Whether anybody put a rule or a chain anywhere.
    pub fn has_content(&self) -> bool {
        self.tables
            .iter()
            .flat_map(|table| &table.chains)
            .any(|chain| !chain.builtin || !chain.rules.is_empty())
    }
}

impl SavedTable {
    /// The chain of that name.
    pub fn chain(&self, name: &str) -> Option<&SavedChain> {
        self.chains.iter().find(|chain| chain.name == name)
    }
}

impl SavedRule {
    /// A rule from its text, as behind `-A CHAIN`.
    pub fn new(args: &str) -> Self {
        Self { args: args.to_owned(), packets: None }
    }

    /// The text as the words that a shell would make of it.
    pub fn words(&self) -> Vec<String> {
        words(&self.args)
    }

    /// The argument of its `--comment`.
    pub fn comment(&self) -> Option<String> {
        if !self.args.contains("--comment") {
            return None;
        }
        let mut words = self.words().into_iter().skip_while(|word| word != "--comment");
        words.nth(1)
    }

    /// Whether a restore program that is given this text reads the same rule. Not if there is a line break or another
    /// control character in it, bytes that are no UTF-8, or a comment that is too long.
    pub fn can_be_said(&self) -> bool {
        let unsaid = self.args.chars().any(is_unsaid);
        // Most rules are shorter than the longest comment.
        !unsaid && (self.args.len() <= MAX_COMMENT || self.comment().is_none_or(|it| it.len() <= MAX_COMMENT))
    }

    /// Its text for a restore program: as it is, if that can be said. Else with `?` for each character that cannot, and
    /// with as much of the comment as there may be.
    pub fn said(&self) -> String {
        if self.can_be_said() {
            return self.args.clone();
        }
        let clean = self.args.chars().map(|c| if is_unsaid(c) { '?' } else { c }).collect::<String>();
        let mut is_comment = false;
        let words = words(&clean).into_iter().map(|mut word| {
            if is_comment {
                let end = (0..=MAX_COMMENT).rev().find(|end| word.is_char_boundary(*end));
                word.truncate(end.unwrap_or_default());
            }
            is_comment = word == "--comment";
            if is_plain(&word) { word } else { quoted(&word) }
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// Whether it jumps or goes to this chain.
    pub fn leads_to(&self, chain: &str) -> bool {
        self.args.contains(chain)
            && self.words().windows(2).any(|pair| matches!(pair[0].as_str(), "-j" | "-g") && pair[1] == chain)
    }

    /// Whether it carries the owner tag.
    pub fn is_tagged(&self) -> bool {
        self.args.contains(OWNER_TAG) && self.comment().is_some_and(|comment| is_owner_tag(&comment))
    }
}

/// Whether a comment is the owner tag: all of it, or followed by a slash and a reason.
pub fn is_owner_tag(comment: &str) -> bool {
    comment.strip_prefix(OWNER_TAG).is_some_and(|rest| matches!(rest.chars().next(), None | Some('/')))
}

/// The longest comment in bytes (`XT_MAX_COMMENT_LEN` less the terminating zero).
const MAX_COMMENT: usize = 255;

/// Whether a script cannot have it: it would end the line, or it stands for bytes that are not known.
fn is_unsaid(c: char) -> bool {
    c.is_control() || c == char::REPLACEMENT_CHARACTER
}

/// Whether a word is read as one without quotes.
fn is_plain(word: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "_-./:,!=+%@*".contains(c);
    !word.is_empty() && word.chars().all(plain)
}

/// In place of what a rule asks for beside what is written of it.
pub const UNREAD: &str = "…";

/// Those of our tables that the program says it cannot print, because somebody put rules into them that only `nft`
/// can read. What is missing then might be ours.
pub fn incompatible(text: &str) -> Vec<Table> {
    let names = lines(text).filter_map(|line| {
        let (name, rest) = line.trim_start_matches("# ").strip_prefix("Table `")?.split_once('\'')?;
        rest.starts_with(" is incompatible").then_some(name)
    });
    names.filter_map(|name| Table::ALL.into_iter().find(|table| table.name() == name)).collect()
}

/// Packets, chain and arguments of a line `[12:720] -A CHAIN …`, with or without the counters.
fn rule_line(line: &str) -> Option<(Option<u64>, &str, &str)> {
    let (packets, line) = match line.strip_prefix('[') {
        Some(rest) => {
            let (counters, line) = rest.split_once("] ")?;
            (counters.split(':').next().and_then(|packets| packets.parse().ok()), line)
        }
        None => (None, line),
    };
    let rest = line.strip_prefix("-A ")?;
    let (chain, args) = rest.split_once(' ').unwrap_or((rest, ""));
    (!chain.is_empty()).then_some((packets, chain, args))
}

/// Splits at spaces, but not within double quotes; a backslash takes the next character as it is, within quotes
/// (`xtables_save_string` in libxtables writes it so).
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(chars.next()),
            ' ' | '\t' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_tables_chains_and_rules() {
        let saved = Saved::parse(
            "# Generated by iptables-nft-save v1.8.9\n*nat\n:OUTPUT ACCEPT [5:300]\n:MINE - [0:0]\n\
             [1:60] -A OUTPUT -p tcp -j MINE\n-A MINE -m comment --comment \"a \\\"b\\\" \\'c\\'\" -j RETURN\nCOMMIT\n",
        );
        let nat = saved.table("nat").expect("table");
        assert!(nat.chain("OUTPUT").expect("chain").builtin);
        let mine = nat.chain("MINE").expect("chain");
        assert!(!mine.builtin);
        assert_eq!(mine.rules[0].comment().as_deref(), Some("a \"b\" 'c'"));
        let jump = &nat.chain("OUTPUT").expect("chain").rules[0];
        assert_eq!((jump.args.as_str(), jump.packets), ("-p tcp -j MINE", Some(1)));
        assert_eq!(mine.rules[0].packets, None);
    }

    #[test]
    fn the_tag_counts_only_as_a_whole() {
        let tagged =
            |comment: &str| SavedRule::new(&format!("-m comment --comment {comment} -j X")).is_tagged();
        assert!(tagged("kuma/mesh/transparent/proxy"));
        assert!(tagged("\"kuma/mesh/transparent/proxy/some reason\""));
        assert!(!tagged("kuma/mesh/transparent/proxy-not"));
        assert!(!tagged("\"see kuma/mesh/transparent/proxy/x\""));
        assert!(
            !SavedRule::new("-m comment --comment other --log-prefix kuma/mesh/transparent/proxy")
                .is_tagged()
        );
    }

    #[test]
    fn a_table_that_cannot_be_printed_is_told() {
        assert_eq!(incompatible("# Table `nat' is incompatible, use 'nft' tool.\n"), [Table::Nat]);
        assert_eq!(incompatible("# Table `filter' is incompatible, use 'nft' tool.\n"), []);
        assert_eq!(
            incompatible("# Table `nat' contains incompatible base-chains, use 'nft' tool to list them.\n"),
            []
        );
    }

    proptest::proptest! {
        #[test]
        fn reads_anything(text in "(?s).{0,400}") {
            let _ = Saved::parse(&text);
        }
    }
}
