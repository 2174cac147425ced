//! A model of `iptables-restore --noflush` and `iptables-save`: enough of it to state laws about scripts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The tables of one family, as text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kernel {
    tables: BTreeMap<String, Vec<Chain>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Chain {
    name: String,
    builtin: bool,
    rules: Vec<String>,
}

fn builtins(table: &str) -> &'static [&'static str] {
    match table {
        "nat" => &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
        "raw" => &["PREROUTING", "OUTPUT"],
        "mangle" => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
        _ => &["INPUT", "FORWARD", "OUTPUT"],
    }
}

impl Kernel {
    /// What the save program prints.
    pub fn save(&self) -> String {
        let mut out = String::new();
        for (table, chains) in &self.tables {
            let _ = writeln!(out, "*{table}");
            for chain in chains {
                let _ =
                    writeln!(out, ":{} {} [7:420]", chain.name, if chain.builtin { "ACCEPT" } else { "-" });
            }
            for chain in chains {
                for rule in &chain.rules {
                    let _ = writeln!(out, "-A {} {rule}", chain.name);
                }
            }
            out.push_str("COMMIT\n");
        }
        out
    }

    /// The same without what uninstalling is allowed to leave: tables without a rule or a chain of anybody.
    pub fn content(&self) -> Self {
        let mut content = self.clone();
        content
            .tables
            .retain(|_, chains| chains.iter().any(|chain| !chain.builtin || !chain.rules.is_empty()));
        content
    }

    /// What the restore program does with a file: every block as a whole or not at all.
    pub fn restore(&mut self, script: &str) -> Result<(), String> {
        let mut block: Option<(String, Vec<Chain>)> = None;
        for line in script.lines() {
            if let Some(table) = line.strip_prefix('*') {
                let chains = self.tables.get(table).cloned().unwrap_or_else(|| {
                    let builtin = |name: &&str| Chain { name: (*name).into(), builtin: true, rules: vec![] };
                    builtins(table).iter().map(builtin).collect()
                });
                block = Some((table.to_owned(), chains));
            } else if line == "COMMIT" {
                let (table, chains) = block.take().ok_or("COMMIT without a table")?;
                check_targets(&chains)?;
                self.tables.insert(table, chains);
            } else {
                let (_, chains) = block.as_mut().ok_or_else(|| format!("outside a table: {line}"))?;
                command(chains, line).map_err(|why| format!("{why}: {line}"))?;
            }
        }
        if block.is_some() { Err("no COMMIT".to_owned()) } else { Ok(()) }
    }
}

fn command(chains: &mut Vec<Chain>, line: &str) -> Result<(), String> {
    if let Some(declared) = line.strip_prefix(':') {
        let name = declared.split(' ').next().unwrap_or_default();
        match chains.iter_mut().find(|chain| chain.name == name) {
            Some(chain) => chain.rules.clear(),
            None => chains.push(Chain { name: name.to_owned(), builtin: false, rules: vec![] }),
        }
        return Ok(());
    }
    let mut words = line.splitn(3, ' ');
    let (Some(verb), Some(name)) = (words.next(), words.next()) else { return Err("not a command".into()) };
    let args = words.next().unwrap_or_default();
    let at = chains.iter().position(|chain| chain.name == name).ok_or("no such chain")?;
    let rules = &mut chains[at].rules;
    match verb {
        "-A" => rules.push(printed(args)),
        "-I" => {
            let (position, args) = args.split_once(' ').ok_or("no position")?;
            let position: usize = position.parse().map_err(|_| "not a position")?;
            if position == 0 || position > rules.len() + 1 {
                return Err("index of insertion too big".into());
            }
            rules.insert(position - 1, printed(args));
        }
        "-D" => {
            let numbered = args.parse::<usize>().ok().filter(|number| (1..=rules.len()).contains(number));
            if let Some(number) = numbered {
                rules.remove(number - 1);
                return Ok(());
            }
            let found = rules.iter().position(|rule| *rule == printed(args)).ok_or("bad rule")?;
            rules.remove(found);
        }
        "-F" => rules.clear(),
        "-X" if rules.is_empty() && !chains[at].builtin => {
            chains.remove(at);
        }
        _ => return Err("refused".into()),
    }
    Ok(())
}

/// As the save program prints it: an address has a prefix length, and every interface is no condition.
fn printed(args: &str) -> String {
    let mut words: Vec<String> = args.split(' ').map(str::to_owned).collect();
    for at in 1..words.len() {
        if matches!(words[at - 1].as_str(), "-s" | "-d") && !words[at].contains('/') {
            let whole = if words[at].contains(':') { "/128" } else { "/32" };
            words[at].push_str(whole);
        }
    }
    while let Some(at) =
        words.windows(2).position(|pair| matches!(pair, [o, n] if (o == "-i" || o == "-o") && n == "+"))
    {
        words.drain(at..at + 2);
    }
    let every =
        |option: &str, net: &str| (option == "-s" || option == "-d") && (net == "0.0.0.0/0" || net == "::/0");
    while let Some(at) = words.windows(2).position(|pair| matches!(pair, [o, n] if every(o, n))) {
        if at > 0 && words[at - 1] == "!" {
            break;
        }
        words.drain(at..at + 2);
    }
    words.join(" ")
}

/// A rule must not lead to a chain that is not there.
fn check_targets(chains: &[Chain]) -> Result<(), String> {
    for rule in chains.iter().flat_map(|chain| &chain.rules) {
        let target = rule.split(" -j ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        let builtin = ["RETURN", "REDIRECT", "CT", "DROP", "ACCEPT", "LOG", "DNAT", "MASQUERADE", ""];
        if !builtin.contains(&target) && !chains.iter().any(|chain| chain.name == target) {
            return Err(format!("no chain {target}"));
        }
    }
    Ok(())
}
