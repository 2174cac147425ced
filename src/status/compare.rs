//! From what would have to change to what differs. The changes are those that an install would make, so status and
//! install can never disagree. Pure.

use crate::backend::iptables::situation::{Changes, Place, Situation};
use crate::backend::iptables::transition::{DiffLine, TableChange};
use crate::plan::{OwnChain, Table};

use super::model::{Difference, DifferenceKind};

/// Every difference, place by place and table by table.
pub fn differences(situation: &Situation, changes: &Changes) -> Vec<Difference> {
    let mut found = Vec::new();
    for (&place, tables) in changes {
        for change in tables {
            table_differences(situation, place, change, &mut found);
        }
    }
    found
}

fn table_differences(situation: &Situation, place: Place, change: &TableChange, found: &mut Vec<Difference>) {
    let difference = |kind, line: &DiffLine| Difference {
        kind,
        variant: place.0.to_string(),
        family: place.1,
        table: change.table.name(),
        chain: line.chain.clone(),
        rule: line.args.clone(),
    };
    let before = found.len();
    for line in &change.diff {
        let kind = if line.added {
            DifferenceKind::Missing
        } else if is_foreign(situation, place, change.table, line) {
            DifferenceKind::Foreign
        } else {
            DifferenceKind::Extra
        };
        found.push(difference(kind, line));
    }
    // What is in the wrong place because something between is missing is not worth a second line.
    found.extend(change.moved.iter().map(|line| difference(DifferenceKind::Reordered, line)));
    if found.len() == before {
        // A table that has to be written differs, whatever it is in.
        found.push(Difference {
            kind: DifferenceKind::Reordered,
            variant: place.0.to_string(),
            family: place.1,
            table: change.table.name(),
            chain: String::new(),
            rule: String::new(),
        });
    }
}

fn is_foreign(situation: &Situation, place: Place, table: Table, line: &DiffLine) -> bool {
    let Some(chain) = OwnChain::named(&line.chain).filter(|_| table == Table::Nat) else { return false };
    situation.ownership().any(|(of, own)| {
        of == place && own.intruders.iter().any(|(name, rule)| *name == chain && rule.args == line.args)
    })
}
