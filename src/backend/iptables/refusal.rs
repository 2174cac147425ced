//! What went wrong when a restore program ended with an error. Pure.

use crate::plan::Table;

/// A restore that was refused, in the words of whoever refused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What the program said, on one line.
    pub words: String,
    /// The table whose block was refused, where the line tells it.
    pub table: Option<Table>,
    /// The line of the script that was refused, unless it is the whole block.
    pub rule: Option<String>,
}

impl Refusal {
    /// Reads what the program wrote to stderr about this script.
    pub fn read(stderr: &str, script: &str) -> Self {
        let lines: Vec<&str> = script.lines().collect();
        // A chain that does not exist is reported one line late by the nft variant; the table is right all the same.
        let number = line_number(stderr).filter(|number| (1..=lines.len()).contains(number));
        let table = number.and_then(|number| {
            let header = lines[..number].iter().rev().find_map(|line| line.strip_prefix('*'))?;
            Table::ALL.into_iter().find(|table| table.name() == header.trim())
        });
        let table = table.or_else(|| named_table(stderr));
        let rule = number.map(|number| lines[number - 1]).filter(|line| line.starts_with('-'));
        Self { words: words(stderr), table, rule: rule.map(str::to_owned) }
    }

    /// Whether the program or its words are about this match or target.
    pub fn mentions(&self, word: &str) -> bool {
        self.words.contains(word)
    }

    /// Whether it names this match or target: ``Couldn't load target `LOG'``, `libxt_LOG.so`, `Extension LOG`.
    pub fn names_extension(&self, name: &str) -> bool {
        [format!("`{name}'"), format!("'{name}'"), format!("_{name}.so"), format!("xtension {name} ")]
            .iter()
            .any(|named| self.mentions(named))
    }

    /// Whether the program said more than that it failed, and where: the legacy variant's do not before 1.8.10.
    pub fn says_why(&self) -> bool {
        let line_failed = || {
            let (before, number) = self.words.strip_suffix(" failed")?.rsplit_once(' ')?;
            (before.ends_with("line") && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(())
        };
        !self.words.is_empty() && line_failed().is_none()
    }

    /// Whether it was the xtables lock (exit status 4, with these words, in every version that locks).
    pub fn is_busy(&self) -> bool {
        self.words.contains("xtables lock")
    }

    /// Whether the kernel has no such family at all, or no nat table for it, so that nothing could ever have been
    /// redirected by it.
    pub fn is_missing_family(&self) -> bool {
        let family = ["Address family not supported", "Protocol not supported"];
        family.iter().any(|words| self.mentions(words))
            || (self.is_missing_table() && matches!(self.table, None | Some(Table::Nat)))
    }

    /// Whether the kernel has no such table, in the words of the legacy variant's programs (`iptc_strerror` in
    /// libiptc, and `iptables-restore.c`) or of the nft variant's ones, for which a chain's type is missing then.
    pub fn is_missing_table(&self) -> bool {
        let table = ["Table does not exist", "can't initialize", "unable to initialize table"];
        table.iter().any(|words| self.mentions(words))
            || (self.mentions("CHAIN_ADD failed") && self.mentions("No such file or directory"))
    }
}

/// The number in `line 3: …`, `line 3 failed`, `Error occurred at line: 3`.
fn line_number(stderr: &str) -> Option<usize> {
    stderr.match_indices("line").find_map(|(at, word)| {
        let rest = stderr[at + word.len()..].trim_start_matches([':', ' ']);
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        rest[..digits].parse().ok()
    })
}

/// The table in ``table `nat'``, `table 'nat'` or `table nat`.
fn named_table(stderr: &str) -> Option<Table> {
    stderr.match_indices("table ").find_map(|(at, word)| {
        let name = stderr[at + word.len()..].trim_start_matches(['`', '\'']);
        Table::ALL.into_iter().find(|table| {
            name.strip_prefix(table.name())
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
        })
    })
}

/// What the program said, without what it says always, on one line, control characters escaped.
fn words(stderr: &str) -> String {
    let always = |line: &str| {
        line.is_empty()
            || line.starts_with("Try `")
            || line.starts_with("# Warning: ip")
            || line.starts_with("Error occurred at line")
    };
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !always(line)).collect();
    crate::text::escape(&lines.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "*raw\n-A OUTPUT -p udp -j CT --zone 1\nCOMMIT\n*nat\n:KUMA_MESH_INBOUND - [0:0]\n\
                          -A OUTPUT -p tcp -j RETURN\nCOMMIT\n";

    #[test]
    fn reads_what_the_tools_say() {
        let nft = "iptables-nft-restore v1.8.9 (nf_tables): \nline 2: RULE_APPEND failed (Operation not supported): rule in chain OUTPUT\n";
        let refusal = Refusal::read(nft, SCRIPT);
        assert_eq!(refusal.table, Some(Table::Raw));
        assert_eq!(refusal.rule.as_deref(), Some("-A OUTPUT -p udp -j CT --zone 1"));
        assert_eq!(
            refusal.words,
            "iptables-nft-restore v1.8.9 (nf_tables): line 2: RULE_APPEND failed (Operation not supported): rule in chain OUTPUT"
        );

        let legacy = Refusal::read("iptables-restore: line 7 failed\n", SCRIPT);
        assert_eq!((legacy.table, legacy.rule), (Some(Table::Nat), None));

        let module = Refusal::read(
            "iptables-restore v1.8.9 (legacy): Couldn't load match `owner':No such file or directory\n\nError occurred at line: 6\nTry `iptables-restore -h' or 'iptables-restore --help' for more information.\n",
            SCRIPT,
        );
        assert_eq!(module.table, Some(Table::Nat));
        assert!(module.words.ends_with("No such file or directory"), "{}", module.words);

        assert!(
            Refusal::read(
                "Another app is currently holding the xtables lock. Stopped waiting after 1s.\n",
                SCRIPT
            )
            .is_busy()
        );
        assert_eq!(Refusal::read("", SCRIPT), Refusal { words: String::new(), table: None, rule: None });
        assert_eq!(Refusal::read("line 99 failed", SCRIPT).table, None);
    }

    #[test]
    fn a_table_is_known_by_its_name_where_no_line_is_told() {
        for (said, table) in [
            (
                "iptables-restore v1.8.7 (legacy): iptables-restore: unable to initialize table 'raw'",
                Some(Table::Raw),
            ),
            (
                "iptables v1.8.2 (legacy): can't initialize iptables table `mangle': Table does not exist",
                Some(Table::Mangle),
            ),
            ("ip6tables-restore: unable to initialize table nat", Some(Table::Nat)),
            ("iptables-restore: unable to initialize table natural", None),
            ("it is not my day", None),
        ] {
            assert_eq!(Refusal::read(said, SCRIPT).table, table, "{said}");
        }
    }

    #[test]
    fn a_program_that_gives_no_reason_is_told_from_one_that_does() {
        let says = |stderr| Refusal::read(stderr, SCRIPT).says_why();
        assert!(!says("") && !says("iptables-restore: line 7 failed\n"));
        assert!(says("iptables-legacy-restore: line 7 failed: No chain/target/match by that name.\n"));
        assert!(says("line 2: RULE_APPEND failed (Operation not supported): rule in chain OUTPUT"));
    }
}
