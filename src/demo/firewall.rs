//! The firewall of host A: what somebody else put there, and what it looks like at a moment.

use std::time::Duration;

use crate::backend::iptables::tools::{Tools, Variant};
use crate::config::Executables;
use crate::exit::{Exit, Failure};
use crate::plan::Family;
use crate::sys::netlink::dump;
use crate::sys::run::{self, Command};

/// How long a program may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// What somebody else could have there: a packet filter, and the address translation of virtual machines.
const STRANGERS_V4: &str = "\
*filter
:FORWARD ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -p udp -m udp --dport 23 -j REJECT
COMMIT
*nat
:VIRTUAL -
-A POSTROUTING -s 192.168.122.0/24 -j VIRTUAL
-A VIRTUAL ! -d 192.168.122.0/24 -j MASQUERADE
COMMIT
";
const STRANGERS_V6: &str = "\
*filter
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -p udp -m udp --dport 23 -j REJECT
COMMIT
";

/// Lets somebody else have rules on this host, as far as there are programs to make some. How many there are now.
pub fn strangers() -> usize {
    let Some(tools) = tools() else { return 0 };
    let mut rules = 0;
    for (family, text) in [(Family::V4, STRANGERS_V4), (Family::V6, STRANGERS_V6)] {
        let programs = Variant::BOTH.into_iter().find_map(|variant| tools.of(variant).programs(family));
        let Some(programs) = programs else { continue };
        let mut command = Command::new(&programs.restore, ["--noflush"], DEADLINE);
        command.stdin = text.as_bytes().to_vec();
        if run::run(&command).is_ok_and(|output| output.success()) {
            rules += text.lines().filter(|line| line.starts_with("-A")).count();
        }
    }
    rules
}

fn tools() -> Option<Tools> {
    Tools::find(&Executables::default(), std::env::var_os("PATH").as_ref()).ok()
}

/// What the firewall is at a moment: everything that the kernel lists of `nf_tables`, and what the save programs of
/// iptables print. Counters, and built-in tables that do nothing, are no part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    native: Vec<Vec<u8>>,
    saved: String,
}

impl Snapshot {
    /// Looks, and changes nothing by looking.
    ///
    /// # Errors
    /// The kernel does not list its rules.
    pub fn take() -> Result<Self, Failure> {
        let native = dump::objects().map_err(|error| {
            Failure::new(Exit::Host, format!("the kernel does not list the rules of nf_tables: {error}"))
        })?;
        let mut saved = String::new();
        let tools = tools().unwrap_or_default();
        for variant in Variant::BOTH {
            for family in Family::BOTH {
                let Some(programs) = tools.of(variant).programs(family) else { continue };
                let output = run::run(&Command::new(&programs.save, [""; 0], DEADLINE))
                    .map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
                saved.extend([family.to_string(), format!(" ({variant})\n")]);
                saved.push_str(&essence(&String::from_utf8_lossy(&output.stdout)));
            }
        }
        Ok(Self { native, saved })
    }

    /// How many bytes are compared; what was left out of them does not count.
    pub fn size(&self) -> usize {
        self.saved.len() + self.native.iter().map(Vec::len).sum::<usize>()
    }

    /// What an earlier one says differently: lines with `-` that were there, with `+` that are new.
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        let missing = |from: &str, of: &str, sign: char| -> Vec<String> {
            let there: Vec<_> = of.lines().collect();
            from.lines().filter(|line| !there.contains(line)).map(|line| format!("{sign} {line}")).collect()
        };
        let mut changes = missing(&before.saved, &self.saved, '-');
        changes.extend(missing(&self.saved, &before.saved, '+'));
        if changes.is_empty() && self != before {
            changes.push("the same rules, but in another order or put there anew".to_owned());
        }
        changes
    }
}

/// What a save program printed, without remarks, counters, and tables in which there is nothing.
fn essence(text: &str) -> String {
    let mut kept = String::new();
    let mut table = String::new();
    let mut does_something = false;
    for line in text.lines().map(str::trim_end).filter(|line| !line.starts_with('#')) {
        if line.starts_with('*') {
            table.clear();
            does_something = false;
        }
        let line = match line.strip_prefix(':') {
            Some(_) => line.split(" [").next().unwrap_or(line),
            None => line,
        };
        does_something |= line.starts_with('-') || line.starts_with(':') && !line.ends_with(" ACCEPT");
        table.push_str(line);
        table.push('\n');
        if line == "COMMIT" && does_something {
            kept.push_str(&table);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "\
# Generated by iptables-save v1.8.9 (nf_tables) on Sat Nov 21 12:00:00 2026
*raw
:PREROUTING ACCEPT [4:240]
COMMIT
*filter
:INPUT ACCEPT [4:240]
:OWN - [0:0]
-A INPUT -p tcp --dport 22 -j ACCEPT
COMMIT
";

    fn snapshot(text: &str) -> Snapshot {
        Snapshot { native: Vec::new(), saved: essence(text) }
    }

    #[test]
    fn counters_remarks_and_idle_tables_are_no_part_of_it() {
        let quiet = "*filter\n:INPUT ACCEPT\n:OWN -\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\n";
        assert_eq!(essence(SAVED), quiet);
        assert_eq!(essence(quiet), quiet);
        assert_eq!(essence("*nat\n:OUTPUT DROP [0:0]\nCOMMIT\n"), "*nat\n:OUTPUT DROP\nCOMMIT\n");
    }

    #[test]
    fn every_difference_is_seen() {
        let before = snapshot(SAVED);
        assert_eq!(before.changes_since(&before.clone()), [""; 0]);
        let after = snapshot(&SAVED.replace("22", "23"));
        let rule = "-A INPUT -p tcp --dport 2";
        assert_eq!(
            after.changes_since(&before),
            [format!("- {rule}2 -j ACCEPT"), format!("+ {rule}3 -j ACCEPT")]
        );
        let anew = Snapshot { native: vec![vec![1]], ..before.clone() };
        assert_eq!(anew.changes_since(&before).len(), 1);
    }
}
