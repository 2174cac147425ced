//! A plan as elements of direct.xml.

use std::borrow::Cow;

use crate::backend::iptables::syntax::{Style, rule_args};
use crate::plan::{ChainRef, Family, Placement, Plan, Target};

/// Our rules have this priority and the following ones, those for the head of a chain the same below zero. firewalld
/// keeps no order among equal priorities, so each rule of a chain gets its own. The numbers are far from those that
/// people type (mostly 0 to 100), and name us in an install without comments.
const PRIORITY: i32 = 56_780_000;

/// More rules than that do not get into one chain.
const PRIORITIES: i32 = 1_000_000;

/// A chain or a rule for direct.xml.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) ipv: &'static str,
    pub(super) table: &'static str,
    pub(super) chain: &'static str,
    pub(super) rule: Option<EntryRule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntryRule {
    pub(super) priority: i32,
    pub(super) args: String,
}

impl Entry {
    /// As it stands in the file.
    pub(super) fn xml(&self) -> String {
        // Names of families, tables and chains are constants that need no escaping.
        let place = format!("ipv=\"{}\" table=\"{}\" chain=\"{}\"", self.ipv, self.table, self.chain);
        match &self.rule {
            None => format!("<chain {place}/>"),
            Some(EntryRule { priority, args }) => {
                let args: Cow<'_, str> = quick_xml::escape::partial_escape(args.as_str());
                format!("<rule {place} priority=\"{priority}\">{args}</rule>")
            }
        }
    }
}

/// Whether a rule of ours may have this priority.
pub(super) fn is_our_priority(priority: i32) -> bool {
    (PRIORITY..PRIORITY + PRIORITIES).contains(&priority)
        || (-PRIORITY..-PRIORITY + PRIORITIES).contains(&priority)
}

/// Chains first, then rules, both in the plan's order; and a sentence for what had to be left out.
pub(super) fn of(plan: &Plan, comments: bool) -> (Vec<Entry>, Vec<String>) {
    let mut chains = Vec::new();
    let mut rules = Vec::new();
    let mut notes = Vec::new();
    for family in &plan.families {
        let ipv = match family.family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        };
        for table in &family.tables {
            for (chain, placed) in &table.chains {
                let entry = Entry { ipv, table: table.table.name(), chain: chain.name(), rule: None };
                if matches!(chain, ChainRef::Own(_)) {
                    chains.push(entry.clone());
                }
                let (mut head, mut tail) = (-PRIORITY, PRIORITY);
                for placed in placed {
                    if placed.rule.target == Target::DockerOutput {
                        notes.push(
                            "the rule for Docker's DNS server is not stored in firewalld, which would refuse all \
                             rules wherever Docker has not made its chain yet"
                                .to_owned(),
                        );
                        continue;
                    }
                    let next = match placed.placement {
                        Placement::Head => &mut head,
                        Placement::Tail => &mut tail,
                    };
                    let args = rule_args(&placed.rule, comments, Style::Short).trim_start().to_owned();
                    rules.push(Entry { rule: Some(EntryRule { priority: *next, args }), ..entry.clone() });
                    *next += 1;
                }
            }
        }
    }
    notes.dedup();
    chains.append(&mut rules);
    (chains, notes)
}
