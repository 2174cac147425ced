//! Rules of `nf_tables`, native ones and those of iptables' nft variant, from the kernel's messages. Any bytes are
//! read; what is not understood is said to be so.
//!
//! Numbers are those of the kernel's `include/uapi/linux/netfilter/nf_tables.h`.

mod compared;
mod expressions;
mod quote;
mod sets;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::model::{Called, Chain, Hook, Span};
use crate::attribute::{find, find_text, find_u32};
use crate::backend::nftables::model::TABLE;
use crate::plan::{Family, OwnChain};

/// iptables' own tables and chains.
const TABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];
const BUILTIN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

const INET: u8 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// A message of the kernel's: the family of its table, and its attributes.
pub type Told<'a> = (u8, &'a [u8]);

/// So many rules are put into words; of more, only what was understood is told.
const QUOTED: usize = 20_000;

/// All chains, from what the kernel lists: chains, rules, and each set's elements by the family, table and name of the
/// set.
pub fn chains(listed: &[Told<'_>], rules: &[Told<'_>], elements: &[Told<'_>]) -> Vec<Chain> {
    let sets = sets::read(elements);
    let mut by_chain: HashMap<(u8, String, String), Vec<&[u8]>> = HashMap::new();
    for (family, body) in rules {
        let (Some(table), Some(chain)) = (find_text(body, 1), find_text(body, 2)) else { continue };
        by_chain.entry((*family, table, chain)).or_default().push(body);
    }
    let quoted = rules.len() <= QUOTED;
    // Tables of which iptables' own chains are: its programs read all chains of those.
    let compat: HashSet<(u8, String)> = listed
        .iter()
        .filter(|(family, body)| {
            *family != INET && find_text(body, 3).is_some_and(|name| BUILTIN.contains(&name.as_str()))
        })
        .filter_map(|(family, body)| Some((*family, find_text(body, 1)?)))
        .filter(|(_, table)| TABLES.contains(&table.as_str()))
        .collect();
    let chain = |(family, body): &Told<'_>| {
        let families = match *family {
            INET => Family::BOTH.to_vec(),
            IPV4 => vec![Family::V4],
            IPV6 => vec![Family::V6],
            _ => return None,
        };
        let (table, name) = (find_text(body, 1)?, find_text(body, 3)?);
        // What is ours is known, and promises what is asked here.
        if *family == INET && table == TABLE {
            return None;
        }
        let called = find(body, 4).and_then(|hook| called(hook, body));
        let rules = by_chain.get(&(*family, table.clone(), name.clone())).into_iter().flatten().enumerate();
        let mut read = Vec::new();
        for (number, body) in rules {
            let compat = compat.contains(&(*family, table.clone()));
            let place = expressions::Place { family: *family, table: &table, compat };
            read.extend(expressions::rule(place, &sets, body, number + 1, quoted));
        }
        let shown = match *family {
            INET => format!("inet {table}"),
            IPV4 => format!("ip {table}"),
            _ => format!("ip6 {table}"),
        };
        Some(Chain { families, table: shown, name, called, rules: read })
    };
    listed.iter().filter_map(chain).collect()
}

fn called(hook: &[u8], body: &[u8]) -> Option<Called> {
    let hook_of = match find_u32(hook, 1)? {
        0 => Hook::Prerouting,
        1 => Hook::Input,
        3 => Hook::Output,
        4 => Hook::Postrouting,
        _ => return None,
    };
    let priority = find_u32(hook, 2)?.cast_signed();
    let translates = find_text(body, 7).is_some_and(|kind| kind == "nat");
    Some(Called { hook: hook_of, priority, translates, drops: find_u32(body, 5) == Some(0) })
}

/// Whether a chain of iptables is one of ours.
pub fn is_own_chain(name: &str) -> bool {
    OwnChain::named(name).is_some()
}

/// The numbers of a network's addresses.
pub fn span_of(net: IpNet) -> Span {
    number_of(net.network())..=number_of(net.broadcast())
}

/// An address as a number.
pub fn number_of(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(four) => u32::from(four).into(),
        IpAddr::V6(six) => six.into(),
    }
}
