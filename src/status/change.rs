//! What a change of the firewall comes to, in numbers. Pure but for the type of what the kernel told.

use std::collections::{BTreeMap, BTreeSet};

use crate::backend::iptables::observe::Observation;
use crate::backend::iptables::save::SavedRule;
use crate::backend::nftables::model::TABLE;
use crate::plan::{OWNER_TAG, OwnChain};
use crate::sys::netlink::events::{Change, Object, Transaction};

/// The kernel's number for the family of our own table.
const INET: u8 = 1;

/// How many rules came and went, and how many of them were ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// `nft` or `legacy`.
    pub variant: &'static str,
    /// The program, cut off after 15 bytes, where the kernel tells.
    pub program: Option<String>,
    /// Its process, where the kernel tells.
    pub pid: Option<u32>,
    /// Its command line, where it was still to be seen.
    pub command: Option<String>,
    /// Rules added.
    pub added: usize,
    /// Rules removed.
    pub removed: usize,
    /// Rules of ours among those added.
    pub ours_added: usize,
    /// Rules of ours among those removed.
    pub ours_removed: usize,
    /// Tables, chains, sets and the like, added or removed.
    pub others: usize,
    /// In which tables: `ip nat`, `inet filter`.
    pub tables: BTreeSet<String>,
    /// The kernel had more to tell than there was room for.
    pub lost: bool,
}

impl Summary {
    /// Whether anything changed that redirection depends on, or may have.
    pub fn concerns_us(&self) -> bool {
        self.lost || self.ours_added + self.ours_removed + self.added + self.removed + self.others > 0
    }
}

/// Of a transaction of nftables.
pub fn of_transaction(transaction: &Transaction) -> Summary {
    let mut summary = Summary {
        variant: "nft",
        program: transaction.program.clone(),
        pid: transaction.pid,
        lost: transaction.lost,
        ..Summary::default()
    };
    for change in &transaction.changes {
        let ours = usize::from(is_ours(change));
        match (change.object, change.added) {
            (Object::Rule, true) => {
                summary.added += 1;
                summary.ours_added += ours;
            }
            (Object::Rule, false) => {
                summary.removed += 1;
                summary.ours_removed += ours;
            }
            _ => summary.others += 1,
        }
        summary.tables.insert(format!("{} {}", family(change.family), change.table));
    }
    summary
}

fn family(number: u8) -> String {
    match number {
        INET => "inet".to_owned(),
        2 => "ip".to_owned(),
        3 => "arp".to_owned(),
        5 => "netdev".to_owned(),
        7 => "bridge".to_owned(),
        10 => "ip6".to_owned(),
        other => format!("family {other}"),
    }
}

/// Whether a rule is in our own table, carries the owner tag, is in a chain of ours, or leads to one.
fn is_ours(change: &Change) -> bool {
    let holds = |text: &str| change.bytes.windows(text.len()).any(|part| part == text.as_bytes());
    (change.family == INET && change.table == TABLE)
        || change.chain.as_deref().and_then(OwnChain::named).is_some_and(|_| change.table == "nat")
        || holds(OWNER_TAG)
        || OwnChain::ALL.iter().any(|chain| holds(&format!("{}\0", chain.name())))
}

/// Between two looks at the legacy rules; `None` if nothing changed.
pub fn between(before: &Observation, after: &Observation) -> Option<Summary> {
    if before == after {
        return None;
    }
    let (was, is) = (counted(before), counted(after));
    let mut summary = Summary { variant: "legacy", ..Summary::default() };
    let keys: BTreeSet<_> = was.keys().chain(is.keys()).collect();
    for key in keys {
        let (old, new) = (was.get(key).copied().unwrap_or(0), is.get(key).copied().unwrap_or(0));
        let (table, chain, args) = key;
        let rule = SavedRule::new(args);
        let ours = rule.is_tagged()
            || OwnChain::named(chain).is_some()
            || OwnChain::ALL.iter().any(|chain| rule.leads_to(chain.name()));
        let (added, removed) = (new.saturating_sub(old), old.saturating_sub(new));
        if added + removed == 0 {
            continue;
        }
        if args.is_empty() {
            summary.others += added + removed;
        } else {
            summary.added += added;
            summary.removed += removed;
            if ours {
                summary.ours_added += added;
                summary.ours_removed += removed;
            }
        }
        summary.tables.insert(table.clone());
    }
    Some(summary)
}

/// How often each rule is there; a chain counts as one without words.
fn counted(observation: &Observation) -> BTreeMap<(String, String, String), usize> {
    let mut counts = BTreeMap::new();
    for ((_, family), saved) in observation {
        let family = match family {
            crate::plan::Family::V4 => "ip",
            crate::plan::Family::V6 => "ip6",
        };
        for table in &saved.tables {
            let name = format!("{family} {}", table.name);
            for chain in &table.chains {
                let mut count = |args: &str| {
                    *counts.entry((name.clone(), chain.name.clone(), args.to_owned())).or_insert(0) += 1;
                };
                count("");
                chain.rules.iter().for_each(|rule| count(&rule.args));
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::iptables::save::Saved;
    use crate::backend::iptables::tools::Variant;
    use crate::plan::Family;

    fn change(added: bool, object: Object, table: &str, chain: Option<&str>, bytes: &str) -> Change {
        Change {
            added,
            object,
            family: 2,
            table: table.into(),
            chain: chain.map(str::to_owned),
            bytes: bytes.as_bytes().to_vec(),
        }
    }

    #[test]
    fn rules_of_ours_are_known_by_tag_chain_and_target() {
        let transaction = Transaction {
            changes: vec![
                change(false, Object::Rule, "nat", Some("OUTPUT"), "x kuma/mesh/transparent/proxy/why\0"),
                change(false, Object::Rule, "nat", Some("KUMA_MESH_INBOUND"), "x"),
                change(false, Object::Rule, "nat", Some("OUTPUT"), "x\0KUMA_MESH_OUTBOUND\0"),
                change(false, Object::Rule, "nat", Some("OUTPUT"), "x"),
                change(true, Object::Rule, "t", Some("KUMA_MESH_INBOUND"), "x"),
                change(false, Object::Chain, "nat", Some("OUTPUT"), "x"),
                Change { family: INET, ..change(true, Object::Rule, TABLE, Some("outbound"), "x") },
            ],
            ..Transaction::default()
        };
        let summary = of_transaction(&transaction);
        assert_eq!((summary.removed, summary.ours_removed), (4, 3));
        assert_eq!((summary.added, summary.ours_added, summary.others), (2, 1, 1));
        assert_eq!(summary.tables.into_iter().collect::<Vec<_>>(), ["inet kuma_mesh", "ip nat", "ip t"]);
    }

    #[test]
    fn legacy_rules_are_compared_as_lists() {
        let look = |text: &str| Observation::from([((Variant::Legacy, Family::V6), Saved::parse(text))]);
        let before = look(
            "*nat\n:OUTPUT ACCEPT [0:0]\n:KUMA_MESH_OUTBOUND - [0:0]\n-A OUTPUT -j X\n\
                           -A OUTPUT -p tcp -j KUMA_MESH_OUTBOUND\n-A OUTPUT -j X\nCOMMIT\n",
        );
        assert_eq!(between(&before, &before), None);
        let summary = between(&before, &look("*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -j X\nCOMMIT\n"))
            .expect("a change");
        assert_eq!((summary.removed, summary.ours_removed, summary.others), (2, 1, 1));
        let gone = between(&before, &Observation::new()).expect("a change");
        assert_eq!((gone.removed, gone.ours_removed), (3, 1));
        assert_eq!(gone.tables.into_iter().collect::<Vec<_>>(), ["ip6 nat"]);
    }
}
