//! From the rules of ours that a family has to those that it shall have: the smallest set of table transactions. Pure.
//!
//! A table that is right already is left out, a chain of ours that is right stays untouched, and so do the rules of
//! ours in a shared chain as long as they are all there, in order. What remains is one block for each table, with
//! removal and installation together: the kernel commits a block as a whole.

use std::fmt::Write as _;

use crate::plan::{OwnChain, Table};

use super::owned::{Ownership, SharedRule};
use super::save::{Saved, SavedRule};
use super::wanted::{Comments, Key, Place, Wanted, WantedRule};

/// A line of a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffLine {
    /// Added, or removed.
    pub added: bool,
    /// The chain.
    pub chain: String,
    /// The rule; empty for the chain itself.
    pub args: String,
    key: Option<Key>,
}

impl DiffLine {
    /// What takes it back.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self { added: !self.added, ..self.clone() }
    }
}

/// What one table needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableChange {
    /// Which.
    pub table: Table,
    /// The block from `*table` to `COMMIT`, for `iptables-restore --noflush`.
    pub script: String,
    /// The same for people.
    pub diff: Vec<DiffLine>,
    /// Rules that are there, but not where they belong among ours or before others'.
    pub moved: Vec<DiffLine>,
}

/// What a family needs to come from `saved` to `wanted`, in the order in which it is to be committed: what
/// redirects comes last when there is more to be redirected, and first when nothing is.
pub fn changes(saved: &Saved, ownership: &Ownership, wanted: &Wanted) -> Vec<TableChange> {
    changes_by_number(saved, ownership, wanted, &[])
}

/// The same, where an earlier script was refused: lines of it that take out rules which the programs do not find by
/// these words, so that they have to go by their numbers.
pub fn changes_by_number(
    saved: &Saved,
    ownership: &Ownership,
    wanted: &Wanted,
    unfound: &[String],
) -> Vec<TableChange> {
    let change = |table| table_change(table, saved, ownership, wanted, unfound);
    let mut changes: Vec<_> = Table::ALL.into_iter().filter_map(change).collect();
    if !wanted.redirects() {
        changes.reverse();
    }
    changes
}

/// The file for `iptables-restore --noflush`.
pub fn script(changes: &[TableChange]) -> String {
    changes.iter().map(|change| change.script.as_str()).collect()
}

fn table_change(
    table: Table,
    saved: &Saved,
    ownership: &Ownership,
    wanted: &Wanted,
    unfound: &[String],
) -> Option<TableChange> {
    let mut block = Block { comments: wanted.comments, unfound, ..Block::default() };
    if table == Table::Nat {
        block.own_chains(saved, ownership, wanted);
    }
    let mut chains: Vec<&str> =
        ownership.shared.iter().filter(|r| r.table == table).map(|r| r.chain.as_str()).collect();
    chains.extend(wanted.shared.keys().filter(|(of, _)| *of == table).map(|(_, chain)| chain.as_str()));
    chains.sort_unstable();
    chains.dedup();
    for chain in chains {
        let present: Vec<_> =
            ownership.shared.iter().filter(|r| r.table == table && r.chain == chain).collect();
        let rules = wanted.shared.get(&(table, chain.to_owned())).map(Vec::as_slice).unwrap_or_default();
        if !is_in_place(&present, rules, wanted.comments) {
            let all = saved.table(table.name()).and_then(|table| table.chain(chain));
            let all = all.map(|chain| chain.rules.as_slice()).unwrap_or_default();
            block.shared_chain(chain, all, &present, rules);
        }
    }
    block.finish(table)
}

/// Whether a shared chain holds the wanted rules already: all of them, in order, those for the head first of all.
fn is_in_place(present: &[&SharedRule], wanted: &[WantedRule], comments: Comments) -> bool {
    present.len() == wanted.len()
        && present.iter().zip(wanted).enumerate().all(|(nth, (present, wanted))| {
            let at = match wanted.place {
                Place::Head => Some(nth),
                Place::At(index) => Some(index),
                Place::Tail => None,
            };
            at.is_none_or(|at| at == present.index) && Key::of(&present.rule).counting(comments) == wanted.key
        })
}

/// A table's block in the making. Its parts are in the order that works: declare or empty chains, take out, put in,
/// and delete chains when nothing leads to them any more.
#[derive(Default)]
struct Block<'a> {
    declare: String,
    remove: String,
    add: String,
    delete: String,
    diff: Vec<DiffLine>,
    moved: Vec<DiffLine>,
    comments: Comments,
    unfound: &'a [String],
}

impl Block<'_> {
    // Writing to a String cannot fail, here and below.
    fn own_chains(&mut self, saved: &Saved, ownership: &Ownership, wanted: &Wanted) {
        let nat = saved.table(Table::Nat.name());
        for name in OwnChain::ALL {
            let exists = ownership.chains.contains(&name);
            let present = nat.and_then(|nat| nat.chain(name.name())).filter(|_| exists);
            let present = present.map(|chain| chain.rules.as_slice()).unwrap_or_default();
            let rules = wanted.own.get(&name);
            let same = rules.is_some_and(|rules| {
                rules.len() == present.len() && present.iter().zip(rules).all(|(p, w)| self.key(p) == w.key)
            });
            if (exists && same) || (!exists && rules.is_none()) {
                continue;
            }
            for rule in present {
                self.note(false, name.name(), &rule.args, Some(self.key(rule)));
            }
            if let Some(rules) = rules {
                let present: Vec<_> =
                    present.iter().enumerate().map(|(at, rule)| (at, self.key(rule))).collect();
                self.note_moved(name.name(), &present, rules);
                let _ = writeln!(self.declare, ":{} - [0:0]", name.name());
                if !exists {
                    self.note(true, name.name(), "", None);
                }
                for rule in rules {
                    let _ = writeln!(self.add, "-A {} {}", name.name(), rule.args);
                    self.note(true, name.name(), &rule.args, Some(rule.key.clone()));
                }
            } else {
                // Emptied before any is deleted, because they lead to one another.
                let _ = writeln!(self.declare, "-F {}", name.name());
                let _ = writeln!(self.delete, "-X {}", name.name());
                self.note(false, name.name(), "", None);
            }
        }
    }

    /// `all` are the rules in it, ours and others'.
    fn shared_chain(
        &mut self,
        chain: &str,
        all: &[SavedRule],
        present: &[&SharedRule],
        wanted: &[WantedRule],
    ) {
        // A rule is named by its words, so that a chain that changed meanwhile is found out. Only where somebody
        // else's rule of the same words comes first, and would be taken instead, or no script can have its words, or the
        // program does not find it by them, does the number have to do; the highest first, as long as they are right.
        let is_ours = |index: usize| present.iter().any(|shared| shared.index == index);
        let is_twin = |shared: &SharedRule| {
            (0..shared.index.min(all.len())).any(|at| all[at].args == shared.rule.args && !is_ours(at))
        };
        let is_unfound = |shared: &SharedRule| self.unfound.contains(&deletion(chain, &shared.rule));
        let (numbered, others): (Vec<&SharedRule>, Vec<&SharedRule>) = present
            .iter()
            .partition(|shared| !shared.rule.can_be_said() || is_twin(shared) || is_unfound(shared));
        for shared in numbered.iter().rev() {
            let _ = writeln!(self.remove, "-D {chain} {}", shared.index + 1);
        }
        for shared in others {
            let _ = writeln!(self.remove, "{}", deletion(chain, &shared.rule));
        }
        for shared in present {
            self.note(false, chain, &shared.rule.args, Some(self.key(&shared.rule)));
        }
        let places: Vec<_> = present.iter().map(|shared| (shared.index, self.key(&shared.rule))).collect();
        self.note_moved(chain, &places, wanted);
        let mut head = 0;
        for (length, rule) in (all.len().saturating_sub(present.len())..).zip(wanted) {
            let _ = match rule.place {
                Place::Head => {
                    head += 1;
                    writeln!(self.add, "-I {chain} {head} {}", rule.args)
                }
                Place::Tail => writeln!(self.add, "-A {chain} {}", rule.args),
                // Others may have taken rules away since the place was counted.
                Place::At(index) => writeln!(self.add, "-I {chain} {} {}", index.min(length) + 1, rule.args),
            };
            self.note(true, chain, &rule.args, Some(rule.key.clone()));
        }
    }

    fn key(&self, rule: &SavedRule) -> Key {
        Key::of(rule).counting(self.comments)
    }

    fn note_moved(&mut self, chain: &str, present: &[(usize, Key)], wanted: &[WantedRule]) {
        for rule in misplaced(present, wanted).into_iter().map(|nth| &wanted[nth]) {
            let (chain, args) = (chain.to_owned(), rule.args.clone());
            self.moved.push(DiffLine { added: true, chain, args, key: None });
        }
    }

    /// A rule that is taken out and put in again is no difference, only the way to another order.
    fn note(&mut self, added: bool, chain: &str, args: &str, key: Option<Key>) {
        let counterpart = |line: &DiffLine| line.added != added && line.chain == chain && line.key == key;
        match self.diff.iter().position(|line| key.is_some() && counterpart(line)) {
            Some(at) => {
                self.diff.remove(at);
            }
            None => self.diff.push(DiffLine { added, chain: chain.to_owned(), args: args.to_owned(), key }),
        }
    }

    fn finish(self, table: Table) -> Option<TableChange> {
        let Self { declare, remove, add, delete, diff, moved, .. } = self;
        let body = format!("{declare}{remove}{add}{delete}");
        (!body.is_empty()).then(|| TableChange {
            table,
            script: format!("*{}\n{body}COMMIT\n", table.name()),
            diff,
            moved,
        })
    }
}

/// The line that takes a rule out by its words.
fn deletion(chain: &str, rule: &SavedRule) -> String {
    format!("-D {chain} {}", rule.args)
}

/// Which of the wanted rules are there already, but not in the wanted order, or behind others' although they belong
/// before them. `present` are ours with their places in the chain.
fn misplaced(present: &[(usize, Key)], wanted: &[WantedRule]) -> Vec<usize> {
    let mut free: Vec<bool> = vec![true; present.len()];
    let mut pairs = Vec::new();
    for (nth, rule) in wanted.iter().enumerate() {
        if let Some(at) = (0..present.len()).find(|at| free[*at] && present[*at].1 == rule.key) {
            free[at] = false;
            pairs.push((nth, at));
        }
    }
    // The longest run of rules that are in order among themselves stays; what is not in it has moved.
    let mut runs: Vec<(usize, Option<usize>)> = Vec::with_capacity(pairs.len());
    for (i, (_, at)) in pairs.iter().enumerate() {
        let before = (0..i).filter(|j| pairs[*j].1 < *at).max_by_key(|j| (runs[*j].0, usize::MAX - j));
        runs.push((before.map_or(1, |j| runs[j].0 + 1), before));
    }
    let mut stays = vec![false; pairs.len()];
    let mut next = (0..pairs.len()).max_by_key(|i| (runs[*i].0, usize::MAX - i));
    while let Some(i) = next {
        stays[i] = true;
        next = runs[i].1;
    }
    let behind_others = |nth: usize, at: usize| wanted[nth].place == Place::Head && present[at].0 > at;
    let moved = pairs.iter().zip(stays).filter(|((nth, at), stays)| !stays || behind_others(*nth, *at));
    moved.map(|((nth, _), _)| *nth).collect()
}
