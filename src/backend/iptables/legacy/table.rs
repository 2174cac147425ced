//! A table of the legacy variant, taken apart. Pure, and total: any bytes are read, or said not to be a table.
//!
//! Layouts are those of the kernel's `include/uapi/linux/netfilter_ipv4/ip_tables.h`, `ip6_tables.h` and
//! `netfilter/x_tables.h`, of 64 bits; numbers are the machine's own.

use std::collections::HashMap;

use crate::plan::{Family, OwnChain, Table};

use super::super::save::{SavedChain, SavedRule, SavedTable, is_owner_tag};
use super::words;

/// The chains that hooks call, by the kernel's number of the hook.
const BUILTIN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// The target that begins a user's chain and has its name, and that ends a table.
const ERROR: &str = "ERROR";
/// What is in front of a match's or target's own data: its size, its name and its revision.
const EXTENSION: usize = 32;
const EXTENSION_NAME: usize = 29;

/// A table and its chains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyTable {
    family: Family,
    name: String,
    bytes: Vec<u8>,
    chains: Vec<Chain>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Chain {
    name: String,
    builtin: bool,
    /// Where its rules are; the last of them, its policy or its return, is not listed.
    rules: Vec<usize>,
    /// Where a jump to it goes.
    start: usize,
    /// Where its policy or its return is.
    end: usize,
}

impl LegacyTable {
    /// Takes a table's entries apart; `hooks` says where the chains of the hooks begin. `None`: that is no table.
    pub fn decode(family: Family, name: &str, hooks: &[Option<u32>; 5], bytes: Vec<u8>) -> Option<Self> {
        let mut chains: Vec<Chain> = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let entry = Entry::read(family, bytes.get(at..)?)?;
            let next = at + entry.bytes.len();
            let hook = hooks.iter().position(|hook| hook.is_some_and(|hook| hook as usize == at));
            if let Some(hook) = hook {
                chains.push(Chain::new(BUILTIN[hook], true, at));
            } else if entry.target().name == ERROR {
                if next < bytes.len() {
                    chains.push(Chain::new(&text(entry.target().data), false, next));
                }
                at = next;
                continue;
            }
            chains.last_mut()?.rules.push(at);
            at = next;
        }
        for chain in &mut chains {
            chain.end = chain.rules.pop()?;
        }
        Some(Self { family, name: name.to_owned(), bytes, chains })
    }

    /// Whether it is the nat table and has a chain of this name.
    pub fn translates_in(&self, chain: &str) -> bool {
        self.name == Table::Nat.name() && self.chains.iter().any(|of| of.name == chain)
    }

    /// Whether anything of an installation is in it: what makes [`super::super::owned::Ownership`] of its text not
    /// empty, without the text.
    pub fn is_ours(&self) -> bool {
        let tagged = |entry: Entry<'_>| entry.comment().is_some_and(|comment| is_owner_tag(&comment));
        OwnChain::ALL.iter().any(|chain| self.translates_in(chain.name()))
            || self.chains.iter().flat_map(|chain| &chain.rules).filter_map(|at| self.entry(*at)).any(tagged)
    }

    /// Whether a chain that a hook calls drops what no rule decides about. A verdict is one of netfilter's, less one
    /// and negative.
    pub fn drops(&self, chain: &str) -> bool {
        const DROP: [u8; 4] = (-1i32).to_ne_bytes();
        let chain = self.chains.iter().find(|of| of.builtin && of.name == chain);
        let policy = chain.and_then(|chain| self.entry(chain.end));
        policy.is_some_and(|entry| entry.target().name.is_empty() && entry.target().data.starts_with(&DROP))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The table as a save program would print it, with what rules counted or without. Of matches and targets that
    /// nothing here asks for, the name alone is told, and that there is more.
    pub fn saved(&self, counted: bool) -> SavedTable {
        let starts: HashMap<usize, &str> =
            self.chains.iter().map(|chain| (chain.start, chain.name.as_str())).collect();
        let rule = |at: &usize| {
            let entry = self.entry(*at)?;
            let falls_through = at + entry.bytes.len();
            let target = |jump: usize| (jump != falls_through).then(|| starts.get(&jump).copied()).flatten();
            Some(SavedRule { args: words::of(&entry, target), packets: counted.then(|| entry.packets()) })
        };
        let chain = |chain: &Chain| SavedChain {
            name: chain.name.clone(),
            builtin: chain.builtin,
            rules: chain.rules.iter().filter_map(rule).collect(),
        };
        SavedTable { name: self.name.clone(), chains: self.chains.iter().map(chain).collect() }
    }

    fn entry(&self, at: usize) -> Option<Entry<'_>> {
        Entry::read(self.family, self.bytes.get(at..)?)
    }
}

impl Chain {
    fn new(name: &str, builtin: bool, start: usize) -> Self {
        Self { name: name.to_owned(), builtin, rules: Vec::new(), start, end: start }
    }
}

/// A rule, or what begins or ends a chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub family: Family,
    /// All of it.
    bytes: &'a [u8],
    /// Where its target is.
    target: usize,
}

/// A match or a target.
#[derive(Debug, Clone)]
pub(super) struct Extension<'a> {
    pub name: String,
    pub revision: u8,
    pub data: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The first of some entries.
    fn read(family: Family, bytes: &'a [u8]) -> Option<Self> {
        let (ip, header) = sizes(family);
        // Behind what it says about packets and four bytes of the kernel's.
        let target = usize::from(native16(bytes, ip + 4)?);
        let next = usize::from(native16(bytes, ip + 6)?);
        let fits = target >= header && next >= target + EXTENSION;
        Some(Self { family, bytes: bytes.get(..next).filter(|_| fits)?, target })
    }

    /// `struct ipt_ip` or `struct ip6t_ip6`: what a packet has to be in any case.
    pub fn ip(&self) -> &'a [u8] {
        &self.bytes[..sizes(self.family).0]
    }

    pub fn packets(&self) -> u64 {
        let counters = self.bytes.get(sizes(self.family).1 - 16..).and_then(|bytes| bytes.first_chunk());
        counters.map_or(0, |packets| u64::from_ne_bytes(*packets))
    }

    /// Its matches, as far as they make sense.
    pub fn matches(&self) -> impl Iterator<Item = Extension<'a>> + use<'a> {
        let mut rest = &self.bytes[sizes(self.family).1..self.target];
        std::iter::from_fn(move || {
            let size = usize::from(native16(rest, 0)?);
            let one = extension(rest.get(..size)?)?;
            rest = &rest[size..];
            Some(one)
        })
    }

    pub fn target(&self) -> Extension<'a> {
        let bytes = &self.bytes[self.target..];
        extension(bytes).unwrap_or(Extension { name: String::new(), revision: 0, data: &[] })
    }

    pub fn comment(&self) -> Option<String> {
        self.matches().find(|one| one.name == "comment").map(|comment| text(comment.data))
    }
}

/// Sizes of what an entry says about packets, and of all that is in front of its matches.
const fn sizes(family: Family) -> (usize, usize) {
    match family {
        Family::V4 => (84, 112),
        Family::V6 => (136, 168),
    }
}

/// Size, name, revision, and the data.
fn extension(bytes: &[u8]) -> Option<Extension<'_>> {
    let (front, data) = bytes.split_at_checked(EXTENSION)?;
    let name = text(&front[2..2 + EXTENSION_NAME]);
    Some(Extension { name, revision: front[2 + EXTENSION_NAME], data })
}

/// What is before the first zero.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

pub(super) fn native16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn native32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
