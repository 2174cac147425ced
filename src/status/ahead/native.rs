//! Chains of nftables ahead of ours.

use std::collections::HashMap;

use crate::backend::iptables::tools::Variant;
use crate::backend::nftables::model::TABLE;
use crate::plan::Family;
use crate::sys::netlink::ruleset::order::{Called, Turn};
use crate::sys::netlink::ruleset::{
    Action, ChainType, Condition, FamilyNumber, HookedChain, NativeRule, Ruleset, is_compat,
};

use super::super::model::Ahead;
use super::rules::OTHER_VARIANT;
use super::{Ours, Part, Traffic, whose};

/// At which iptables translates addresses before routing (`NF_IP_PRI_NAT_DST`).
pub const IPTABLES: i32 = -100;

const BOTH: FamilyNumber = 1;
const DEEPEST: usize = 16;

/// Where ours stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// The priority of the chain; whoever is at the same one may come first.
    pub priority: i32,
    /// Whether it is a table of our own, beside those of iptables.
    pub own_table: bool,
    /// Whether it is one of iptables' legacy variant.
    pub legacy: bool,
    /// Whether the chains of iptables' nft variant are to be told of here too.
    pub compat: bool,
}

impl Stand {
    /// In the chains of iptables.
    pub fn iptables(variant: Variant) -> Self {
        Self { priority: IPTABLES, own_table: false, legacy: variant == Variant::Legacy, compat: false }
    }

    /// In a table of our own.
    pub const fn own_table(priority: i32) -> Self {
        Self { priority, own_table: true, legacy: false, compat: true }
    }
}

const fn number(family: Family) -> FamilyNumber {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// Whether a chain may have to be looked into: all that come early enough, but for ours, and those that translate what
/// ours let pass, such as the sidecar's questions, however late.
pub fn may_be_ahead(chain: &HookedChain) -> bool {
    let early = chain.kind == ChainType::Untracked || chain.priority <= LATEST;
    let translates = chain.kind == ChainType::Nat && chain.hook == OUTPUT;
    (early || translates) && matches!(chain.hook, PREROUTING | OUTPUT) && !is_ours(chain)
}

/// A table of our name is ours in one family only.
fn is_ours(chain: &HookedChain) -> bool {
    chain.family == BOTH && chain.table == TABLE
}

const PREROUTING: u32 = 0;
const OUTPUT: u32 = 3;
/// The latest that ours can stand.
const LATEST: i32 = crate::backend::nftables::lower::NAT_LAST;

/// Chains at the same hook with an earlier or the same priority that take of this traffic, and those that switch
/// connection tracking off for it.
pub fn ahead(ruleset: &Ruleset, family: Family, traffic: Traffic, ours: &Ours, stand: Stand) -> Vec<Ahead> {
    let all = taking(ruleset, family, traffic, ours, stand).into_iter();
    all.filter(|(_, turn)| *turn != Some(Turn::After)).map(|(ahead, _)| ahead).collect()
}

/// Those of them that surely come first: of an earlier priority, or where connections are not tracked yet.
pub fn earlier(ruleset: &Ruleset, family: Family, traffic: Traffic, ours: &Ours, stand: Stand) -> Vec<Ahead> {
    let all = taking(ruleset, family, traffic, ours, stand).into_iter();
    all.filter(|(_, turn)| turn.is_none()).map(|(ahead, _)| ahead).collect()
}

/// Chains with the priority of ours that would take of this traffic if they came first, and whether they do.
pub fn ties(
    ruleset: &Ruleset,
    family: Family,
    traffic: Traffic,
    ours: &Ours,
    stand: Stand,
) -> Vec<(Ahead, Turn)> {
    let all = taking(ruleset, family, traffic, ours, stand).into_iter();
    all.filter_map(|(ahead, turn)| Some((ahead, turn?))).collect()
}

/// The same, and others with an earlier priority; of equal ones, whether they come before ours.
fn taking(
    ruleset: &Ruleset,
    family: Family,
    traffic: Traffic,
    ours: &Ours,
    stand: Stand,
) -> Vec<(Ahead, Option<Turn>)> {
    let hook = match traffic {
        Traffic::Inbound => PREROUTING,
        Traffic::Outbound | Traffic::Dns => OUTPUT,
    };
    let mut rules: HashMap<Place<'_>, Vec<&NativeRule>> = HashMap::new();
    for rule in &ruleset.rules {
        rules.entry((rule.family, &rule.table, &rule.chain)).or_default().push(rule);
    }
    let search = Search { ruleset, rules, family, traffic, ours, stand };
    ruleset
        .hooked
        .iter()
        .filter(|chain| {
            chain.hook == hook
                && (chain.kind == ChainType::Untracked || chain.priority <= stand.priority)
                && (chain.family == BOTH || chain.family == number(family))
                && may_be_ahead(chain)
                && (stand.compat || !is_compat(chain))
        })
        .filter_map(|chain| search.chain(chain))
        .collect()
}

/// A sentence about each chain that translates addresses at another priority than the usual one and takes nothing of
/// ours; `taking` are those that do, and `ours` the priority of ours at a hook.
pub fn elsewhere(
    ruleset: &Ruleset,
    taking: &[Ahead],
    ours: impl Fn(&'static str) -> Option<i32>,
) -> Vec<String> {
    let at = |chain: &HookedChain| match chain.hook {
        PREROUTING => Some("prerouting"),
        OUTPUT => Some("output"),
        _ => None,
    };
    let unusual =
        |chain: &&HookedChain| chain.kind == ChainType::Nat && chain.priority != IPTABLES && !is_ours(chain);
    let sentence = |chain: &HookedChain| {
        let ours = ours(at(chain)?)?;
        let (place, rule) = (place(chain), rule(chain));
        if taking.iter().any(|ahead| ahead.place == place && ahead.rule == rule) {
            return None;
        }
        let order = if chain.priority > ours {
            "after ours, so it sees only what ours let pass"
        } else {
            "before ours, and takes nothing that ours redirect"
        };
        Some(format!("a foreign chain translates addresses too, {order}: {place}, {rule}"))
    };
    ruleset.hooked.iter().chain(&ruleset.others).filter(unusual).filter_map(sentence).collect()
}

fn place(chain: &HookedChain) -> String {
    format!("nftables table {} {}", family_name(chain), chain.table)
}

fn rule(chain: &HookedChain) -> String {
    format!("chain {} at priority {}", chain.name, chain.priority)
}

const fn family_name(chain: &HookedChain) -> &'static str {
    match chain.family {
        BOTH => "inet",
        2 => "ip",
        _ => "ip6",
    }
}

/// Family, table and chain.
type Place<'a> = (FamilyNumber, &'a str, &'a str);

struct Search<'a> {
    ruleset: &'a Ruleset,
    rules: HashMap<Place<'a>, Vec<&'a NativeRule>>,
    family: Family,
    traffic: Traffic,
    ours: &'a Ours,
    stand: Stand,
}

/// What a chain, with all that it leads to, does to the traffic.
struct Taken<'a> {
    part: Part,
    packets: Option<u64>,
    /// The chains that have a share in it.
    chains: Vec<&'a str>,
}

impl Search<'_> {
    /// Who comes first, if both have the same priority.
    fn turn(&self, chain: &HookedChain) -> Option<Turn> {
        if chain.kind != ChainType::Nat || chain.priority != self.stand.priority {
            return None;
        }
        let own = || {
            let mut all = self.ruleset.hooked.iter().chain(&self.ruleset.others).filter(|of| is_ours(of));
            all.find(|of| (of.hook, of.priority) == (chain.hook, chain.priority))
        };
        let key = |of: &HookedChain| Called::Chain((of.family, of.table.clone(), of.name.clone()));
        let ours = match self.stand {
            Stand { own_table: true, .. } => own().map(key),
            Stand { legacy: true, .. } => Some(Called::Legacy),
            _ => {
                Some(Called::Chain((number(self.family), "nat".to_owned(), self.traffic.chain().to_owned())))
            }
        };
        let place = (number(self.family), chain.hook);
        Some(ours.map_or(Turn::Unknown, |ours| self.ruleset.order.turn(place, &key(chain), &ours)))
    }

    fn chain(&self, chain: &HookedChain) -> Option<(Ahead, Option<Turn>)> {
        let taken = self.taken(chain, &chain.name, 0);
        let table = chain.table.to_uppercase();
        let whose = whose([table.as_str(), &chain.table].into_iter().chain(taken.chains));
        // What arrives at a published port is a container's and not the host's.
        if taken.part == Part::None || self.traffic == Traffic::Inbound && whose == "Docker" {
            return None;
        }
        let family = family_name(chain);
        let place = if !self.stand.own_table && is_compat(chain) {
            format!("{} {} ({})", chain.table, chain.name, Variant::Nft)
        } else {
            self::place(chain)
        };
        let turn = self.turn(chain);
        let ahead = Ahead {
            whose,
            family: self.family,
            hook: self.traffic.hook(),
            rule: self::rule(chain),
            traffic: self.traffic.name(),
            all: taken.part == Part::All,
            unsure: turn == Some(Turn::Unknown),
            packets: taken.packets,
            fix: self.fix(chain, family, turn),
            place,
        };
        Some((ahead, turn))
    }

    fn fix(&self, chain: &HookedChain, family: &str, turn: Option<Turn>) -> String {
        let first = match self.traffic {
            Traffic::Outbound => Some("--redirect-outbound-insert-instead-of-append"),
            Traffic::Inbound => Some("--redirect-inbound-insert-instead-of-append"),
            Traffic::Dns => None,
        };
        let earliest = crate::backend::nftables::lower::NAT_FIRST;
        let list = format!("'nft list table {family} {}' shows its rules", chain.table);
        match first {
            _ if chain.kind == ChainType::Untracked => {
                format!("leave that traffic tracked: what is not tracked cannot be redirected; {list}")
            }
            _ if !self.stand.own_table && is_compat(chain) => format!("{OTHER_VARIANT}; {list}"),
            Some(flag) if self.stand.own_table && chain.priority > earliest => {
                format!("install with {flag} to come first, or exclude that traffic; {list}")
            }
            _ => {
                let why = match turn {
                    Some(Turn::Before) => {
                        "it has the priority of ours and was made later, so it comes first: "
                    }
                    Some(Turn::Unknown) => {
                        "it has the priority of ours, and this kernel does not tell which of the two comes first: "
                    }
                    Some(Turn::After) | None => "",
                };
                format!(
                    "{why}exclude that traffic, or give the chain a priority above {}; {list}",
                    self.stand.priority
                )
            }
        }
    }

    fn taken<'a>(&'a self, of: &HookedChain, chain: &str, depth: usize) -> Taken<'a> {
        let mut sum = Taken { part: Part::None, packets: None, chains: Vec::new() };
        let here = self.rules.get(&(of.family, of.table.as_str(), chain));
        for rule in here.into_iter().flatten() {
            let part = rule.conditions.iter().fold(Part::All, |part, c| part.min(self.concerns(*c)));
            let nothing = || (Part::None, None);
            let (taken, packets) = match (&rule.action, of.kind) {
                (Action::Redirect | Action::Drop, ChainType::Nat)
                | (Action::Untrack, ChainType::Untracked) => (part, rule.packets),
                (Action::Jump(next), _) if depth < DEEPEST && part > Part::None => {
                    let inner = self.taken(of, next, depth + 1);
                    if inner.part > Part::None {
                        sum.chains.push(next);
                        sum.chains.extend(inner.chains);
                    }
                    (inner.part.min(part), inner.packets)
                }
                // Where a map leads is not followed; that it leads somewhere is enough to look at it.
                (Action::Map, ChainType::Nat) => (part.min(Part::Some), rule.packets),
                _ => nothing(),
            };
            if taken > Part::None {
                sum.part = sum.part.max(taken);
                sum.packets = match (sum.packets, packets) {
                    (None, None) => None,
                    (a, b) => Some(a.unwrap_or(0u64).saturating_add(b.unwrap_or(0))),
                };
            }
        }
        sum
    }

    fn concerns(&self, condition: Condition) -> Part {
        let dns = self.traffic == Traffic::Dns;
        let all_if = |yes: bool| if yes { Part::All } else { Part::None };
        match condition {
            Condition::Protocol(protocol) => all_if(protocol == if dns { 17 } else { 6 }),
            Condition::Family(family) => all_if(family == number(self.family)),
            // Redirection leaves alone what a host sends to itself, but takes what arrives, which is for the host.
            Condition::OwnAddress => all_if(self.traffic == Traffic::Inbound),
            Condition::User(uid) if uid == self.ours.sidecar => Part::None,
            Condition::Port(port) if dns => all_if(port == 53),
            Condition::Destination(address, bits) if dns => {
                let net = ipnet::IpNet::new(address, bits);
                if net.is_ok_and(|net| self.ours.dns.could_go_to(&net)) { Part::Some } else { Part::None }
            }
            Condition::Destination(address, _) if address.is_loopback() => Part::None,
            Condition::Port(_) | Condition::User(_) | Condition::Destination(..) | Condition::Something => {
                Part::Some
            }
        }
    }
}

#[cfg(test)]
mod tests;
