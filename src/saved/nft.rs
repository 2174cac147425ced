//! Rules of an installation in a text in the language of nft, and what else it includes. Pure.
//!
//! Only so much of the language is read as it takes to tell blocks, statements, comments and strings apart.

use crate::backend::nftables::model::TABLE;
use crate::plan::{OWNER_TAG, OwnChain, Table};

/// What is in a text.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Scan {
    /// The first and the last line, counted from 1, that is an installation's.
    pub lines: Option<(usize, usize)>,
    /// What it includes, as it stands there.
    pub includes: Vec<String>,
}

/// Reads a text.
pub fn scan(text: &str) -> Scan {
    let mut reader = Reader { line: 1, ..Reader::default() };
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '#' => while chars.next_if(|c| *c != '\n').is_some() {},
            '"' => {
                let mut word = String::new();
                while let Some(c) = chars.next_if(|c| *c != '"') {
                    reader.line += usize::from(c == '\n');
                    word.push(c);
                }
                chars.next();
                reader.end_word();
                reader.push(word);
            }
            // The line goes on.
            '\\' if chars.peek() == Some(&'\n') => {
                chars.next();
                reader.end_word();
                reader.line += 1;
            }
            '\n' => {
                reader.separate();
                reader.line += 1;
            }
            ';' => reader.separate(),
            '{' => reader.open(),
            '}' => reader.close(),
            c if c.is_whitespace() => reader.end_word(),
            c => reader.word.push(c),
        }
    }
    reader.separate();
    reader.scan
}

/// What a brace opened.
#[derive(Debug, PartialEq, Eq)]
enum Block {
    /// A table, by family and name.
    Table(String, String),
    /// A chain, by its name.
    Chain(String),
    /// A table or chain that is an installation's.
    Ours,
    /// Something else with statements in it.
    Other,
    /// A list within a statement.
    List,
}

#[derive(Default)]
struct Reader {
    line: usize,
    /// Where the statement begins.
    begin: usize,
    word: String,
    words: Vec<String>,
    blocks: Vec<Block>,
    scan: Scan,
}

impl Reader {
    fn push(&mut self, word: String) {
        if self.words.is_empty() {
            self.begin = self.line;
        }
        self.words.push(word);
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() {
            let word = std::mem::take(&mut self.word);
            self.push(word);
        }
    }

    /// A statement ends, unless it is within a list.
    fn separate(&mut self) {
        self.end_word();
        if self.blocks.last() != Some(&Block::List) {
            self.statement();
            self.words.clear();
        }
    }

    fn open(&mut self) {
        self.end_word();
        let block = self.block();
        if block == Block::Ours {
            self.mark(self.begin);
        }
        if block != Block::List {
            self.words.clear();
        }
        self.blocks.push(block);
    }

    fn close(&mut self) {
        self.end_word();
        if self.blocks.last() == Some(&Block::List) {
            self.blocks.pop();
            return;
        }
        self.separate();
        if self.blocks.pop() == Some(Block::Ours) {
            self.mark(self.line);
        }
    }

    /// Line by line, the first and the last so far.
    fn mark(&mut self, line: usize) {
        let first = self.scan.lines.map_or(line, |(first, _)| first);
        self.scan.lines = Some((first, line));
    }

    /// What the words before a brace say.
    fn block(&self) -> Block {
        match command(&self.words).as_slice() {
            ["table", family, name] => table(family, name),
            ["table", name] => table("ip", name),
            ["chain", name] => match self.blocks.last() {
                Some(Block::Table(family, table)) if is_own_chain(family, table, name) => Block::Ours,
                _ => Block::Chain((*name).to_owned()),
            },
            ["chain", family, table, name] if is_own_chain(family, table, name) => Block::Ours,
            ["chain", ..] => Block::Chain(String::new()),
            [
                "set" | "map" | "flowtable" | "counter" | "quota" | "limit" | "synproxy" | "secmark" | "ct",
                ..,
            ] if !self.blocks.iter().any(|block| matches!(block, Block::Chain(_))) => Block::Other,
            _ => Block::List,
        }
    }

    fn statement(&mut self) {
        let words = command(&self.words);
        let ours = match words.as_slice() {
            ["include", path] => {
                self.scan.includes.push((*path).to_owned());
                false
            }
            ["table", family, name] => table(family, name) == Block::Ours,
            ["rule" | "chain" | "set" | "map" | "element", family, table, rest @ ..] => {
                let own_chain = rest.first().is_some_and(|name| is_own_chain(family, table, name));
                (*family, *table) == ("inet", TABLE) || own_chain || is_rule_of_ours(family, table, rest)
            }
            words => match self.blocks.as_slice() {
                [Block::Table(family, table), Block::Chain(_)] => is_rule_of_ours(family, table, words),
                _ => false,
            },
        };
        if ours {
            self.mark(self.begin);
            self.mark(self.line);
        }
    }
}

/// Without the verb that adds something, and nothing where something is taken away.
fn command(words: &[String]) -> Vec<&str> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.first() {
        Some(&("add" | "create" | "insert" | "replace")) => words[1..].to_vec(),
        Some(&("delete" | "destroy" | "flush" | "list" | "reset" | "define" | "undefine")) => Vec::new(),
        _ => words,
    }
}

fn table(family: &str, name: &str) -> Block {
    if (family, name) == ("inet", TABLE) {
        Block::Ours
    } else {
        Block::Table(family.to_owned(), name.to_owned())
    }
}

/// One of those that iptables' nft variant makes of ours.
fn is_own_chain(family: &str, table: &str, name: &str) -> bool {
    matches!(family, "ip" | "ip6") && table == Table::Nat.name() && OwnChain::named(name).is_some()
}

fn is_rule_of_ours(family: &str, table: &str, words: &[&str]) -> bool {
    matches!(family, "ip" | "ip6")
        && words.windows(2).any(|pair| match pair {
            ["comment", text] => {
                text.strip_prefix(OWNER_TAG).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            ["jump" | "goto", chain] => is_own_chain(family, table, chain),
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_of_ours_from_its_first_line_to_its_brace() {
        let text = "flush ruleset\n\ntable inet filter {\n\tchain input { type filter hook input priority 0; }\n}\n\
                    table inet kuma_mesh {\n\tset a {\n\t\ttype ipv4_addr\n\t\telements = { 1.2.3.4,\n 5.6.7.8 }\n\t}\n\
                    \tchain inbound {\n\t\ttcp dport { 1, 2 } return comment \"}\"\n\t}\n}\ntable ip x { }\n";
        assert_eq!(scan(text).lines, Some((6, 15)));
    }

    #[test]
    fn chains_and_rules_of_iptables() {
        let nat = |inside: &str| format!("table ip nat {{\nchain PREROUTING {{\n}}\n{inside}\n}}\n");
        assert_eq!(scan(&nat("chain KUMA_MESH_INBOUND {\nreturn\n}")).lines, Some((4, 6)));
        let rule = |rule: &str| format!("chain OUTPUT {{\ncounter accept\n{rule}\n}}");
        assert_eq!(scan(&nat(&rule("tcp dport 80 jump KUMA_MESH_OUTBOUND"))).lines, Some((6, 6)));
        let tagged = "counter return comment \"kuma/mesh/transparent/proxy/x\"";
        assert_eq!(scan(&nat(&rule(tagged))).lines, Some((6, 6)));
        for command in [
            "add table inet kuma_mesh",
            "add rule inet kuma_mesh inbound accept",
            "add rule ip nat OUTPUT jump KUMA_MESH_OUTBOUND",
            "table inet kuma_mesh;",
        ] {
            assert_eq!(scan(&format!("\n{command}\n")).lines, Some((2, 2)), "{command}");
        }
    }

    #[test]
    fn others_and_what_removes_ours_do_not_count() {
        for text in [
            "table ip kuma_mesh { chain inbound { accept; }; }",
            "delete table inet kuma_mesh\nflush table inet kuma_mesh\ndestroy table inet kuma_mesh",
            "# table inet kuma_mesh {\n# }",
            "table inet filter { chain KUMA_MESH_INBOUND { accept; }; }",
            "table ip nat { chain OUTPUT { accept comment \"about kuma/mesh/transparent/proxy\"; }; }",
            "table inet x { chain y { log prefix \"table inet kuma_mesh {\" accept\n }; }",
        ] {
            assert_eq!(scan(text).lines, None, "{text}");
        }
    }

    #[test]
    fn includes_are_named() {
        let text = "#include \"no\"\ninclude \"/etc/nft.d/*.nft\"\ninclude \"./b.nft\"; include \"c\"\n";
        assert_eq!(scan(text).includes, ["/etc/nft.d/*.nft", "./b.nft", "c"]);
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "(table |chain |inet |ip |nat |kuma_mesh |[{}\\\\\"#;\n]|\\PC){0,60}") {
            let lines = text.lines().count().max(1) + 1;
            if let Some((first, last)) = scan(&text).lines {
                prop_assert!(0 < first && first <= last && last <= lines);
            }
        }
    }
}
