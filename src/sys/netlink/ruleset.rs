//! Chains of `nf_tables` that translate addresses or come before connection tracking, and what their rules do, as far
//! as we need to know it: enough to see whether they are about traffic of ours. Any bytes are read; what is not
//! understood is "something".
//!
//! Layouts and numbers are those of the kernel's `include/uapi/linux/netfilter/nf_tables.h`, those of iptables'
//! matches and targets those of `xt_{addrtype,owner,tcpudp,CT}.h` beside it.

mod matched;
pub mod order;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::list;
use super::message::{Message, NLM_F_DUMP, Request, attributes};
use matched::{matched, native16};
use order::Order;

const NEWCHAIN: u16 = 0x0a03;
const GETCHAIN: u16 = 0x0a04;
const NEWRULE: u16 = 0x0a06;
const GETRULE: u16 = 0x0a07;
/// `struct nfgenmsg`.
const HEADER: usize = 4;
const AF_UNSPEC: u8 = 0;
/// When connections are begun to be tracked (`NF_IP_PRI_CONNTRACK`).
const CONNTRACK: i32 = -200;

/// All that was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    /// Chains that a hook calls, as far as they were wanted.
    pub hooked: Vec<HookedChain>,
    /// All other chains that a hook calls; their rules are not read.
    pub others: Vec<HookedChain>,
    /// The rules of those that were wanted, and of the chains that they lead to.
    pub rules: Vec<NativeRule>,
    /// Who comes first of those at the same place.
    pub order: Order,
}

/// A table's family as the kernel numbers it: 1 both, 2 IPv4, 10 IPv6, others.
pub type FamilyNumber = u8;

/// What a chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainType {
    /// Translate addresses.
    Nat,
    /// Switch connection tracking off, because it comes before it.
    Untracked,
}

/// A chain that a hook calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookedChain {
    /// What it may do.
    pub kind: ChainType,
    /// Its table's family.
    pub family: FamilyNumber,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// 0 prerouting, 1 input, 3 output, 4 postrouting.
    pub hook: u32,
    /// Lower ones come first; that of iptables is -100 before routing.
    pub priority: i32,
}

/// A rule, as far as we need to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeRule {
    /// Its table's family.
    pub family: FamilyNumber,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// What a packet has to be.
    pub conditions: Vec<Condition>,
    /// What happens to it then.
    pub action: Action,
    /// How many packets met it, if it counts.
    pub packets: Option<u64>,
}

/// What a packet has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Of this transport protocol.
    Protocol(u8),
    /// Of this family.
    Family(u8),
    /// For this address or, with fewer bits, network.
    Destination(IpAddr, u8),
    /// For this port.
    Port(u16),
    /// For an address of the host itself.
    OwnAddress,
    /// From a socket of this user.
    User(u32),
    /// Something else.
    Something,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Changes the destination.
    Redirect,
    /// Drops.
    Drop,
    /// Switches connection tracking off.
    Untrack,
    /// Goes on in this chain, and may come back.
    Jump(String),
    /// Looks up what to do in a map.
    Map,
    /// Nothing that redirects.
    Other,
}

/// Reads the chains that `wanted` picks, and the chains that they lead to. Those of dormant tables are left out, because
/// no packet meets them. Empty where the kernel has no `nf_tables`.
///
/// # Errors
/// The kernel's.
pub fn read(wanted: impl Fn(&HookedChain) -> bool) -> io::Result<Ruleset> {
    let header = [AF_UNSPEC, 0, 0, 0];
    let mut all = list(&Request::new(GETCHAIN, NLM_F_DUMP, &header, &[]), hooked_chain)?;
    if all.is_empty() {
        return Ok(Ruleset::default());
    }
    let dormant = order::dormant()?;
    all.retain(|chain| {
        !dormant.iter().any(|(family, table)| (*family, table) == (chain.family, &chain.table))
    });
    let order = order::read(&all)?;
    let (hooked, others): (Vec<_>, Vec<_>) = all.into_iter().partition(wanted);
    let mut rules: Vec<NativeRule> = Vec::new();
    let mut asked: BTreeSet<(FamilyNumber, String, String)> = BTreeSet::new();
    let mut next: Vec<_> = hooked.iter().map(|c| (c.family, c.table.clone(), c.name.clone())).collect();
    while let Some(chain) = next.pop() {
        if !asked.insert(chain.clone()) {
            continue;
        }
        let (family, table, name) = chain;
        let of_table = format!("{table}\0");
        let of_chain = format!("{name}\0");
        let of = [(1, of_table.as_bytes()), (2, of_chain.as_bytes())];
        let found = list(&Request::new(GETRULE, NLM_F_DUMP, &[family, 0, 0, 0], &of), rule)?;
        next.extend(found.iter().filter_map(|rule| match &rule.action {
            Action::Jump(to) => Some((family, table.clone(), to.clone())),
            _ => None,
        }));
        rules.extend(found);
    }
    Ok(Ruleset { hooked, others, rules, order })
}

/// Whether it is a chain of iptables, which its own programs read.
pub fn is_compat(chain: &HookedChain) -> bool {
    let builtin = ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"];
    let table = match chain.kind {
        ChainType::Nat => "nat",
        ChainType::Untracked => "raw",
    };
    matches!(chain.family, 2 | 10) && chain.table == table && builtin.contains(&chain.name.as_str())
}

fn hooked_chain(message: &Message<'_>) -> Option<HookedChain> {
    if message.kind != NEWCHAIN {
        return None;
    }
    let body = message.payload.get(HEADER..)?;
    let hook = find(body, 4)?;
    let priority = be32(find(hook, 2)?)?.cast_signed();
    let kind = match text(find(body, 7)?).as_str() {
        "nat" => ChainType::Nat,
        "filter" if priority < CONNTRACK => ChainType::Untracked,
        _ => return None,
    };
    Some(HookedChain {
        kind,
        family: *message.payload.first()?,
        table: text(find(body, 1)?),
        name: text(find(body, 3)?),
        hook: be32(find(hook, 1)?)?,
        priority,
    })
}

fn rule(message: &Message<'_>) -> Option<NativeRule> {
    if message.kind != NEWRULE {
        return None;
    }
    let body = message.payload.get(HEADER..)?;
    let mut reader =
        Reader { conditions: Vec::new(), action: Action::Other, packets: None, loaded: None, bits: None };
    for (_, expression) in attributes(find(body, 4).unwrap_or_default()) {
        reader.read(&text(find(expression, 1).unwrap_or_default()), find(expression, 2).unwrap_or_default());
    }
    let Reader { conditions, action, packets, .. } = reader;
    Some(NativeRule {
        family: *message.payload.first()?,
        table: text(find(body, 1)?),
        chain: text(find(body, 2)?),
        conditions,
        action,
        packets,
    })
}

/// What the programs of iptables write in any of their versions.
const WRITTEN: [&str; 10] =
    ["bitwise", "cmp", "counter", "immediate", "limit", "log", "match", "meta", "payload", "target"];

/// The table of a rule that holds anything else.
pub(super) fn table_of_native_rule(message: &Message<'_>) -> Option<String> {
    if message.kind != NEWRULE {
        return None;
    }
    let body = message.payload.get(HEADER..)?;
    let mut names =
        attributes(find(body, 4)?).map(|(_, expression)| text(find(expression, 1).unwrap_or_default()));
    names.any(|name| !WRITTEN.contains(&name.as_str())).then(|| find(body, 1).map(text))?
}

/// Of how many matches and targets the programs of iptables print a rule, at least: each that is one of theirs, a verdict or
/// a log, and one that reads the transport header, `tcp` or `udp`. Newer ones write some of the others in nftables' own
/// words.
pub(super) fn extensions_of_rule(message: &Message<'_>) -> usize {
    let Some(list) = message.payload.get(HEADER..).and_then(|body| find(body, 4)) else { return 0 };
    let (mut own, mut transport) = (0, false);
    for (_, expression) in attributes(list) {
        match text(find(expression, 1).unwrap_or_default()).as_str() {
            "match" | "target" | "log" => own += 1,
            "immediate" if number(find(expression, 2).unwrap_or_default(), 1) == Some(VERDICT) => own += 1,
            "payload" => transport |= number(find(expression, 2).unwrap_or_default(), 2) == Some(TRANSPORT),
            _ => {}
        }
    }
    own + usize::from(transport)
}

/// `NFT_PAYLOAD_TRANSPORT_HEADER`
const TRANSPORT: u32 = 2;

/// `NFT_REG_VERDICT`
const VERDICT: u32 = 0;

/// What a register holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loaded {
    Protocol,
    Family,
    Destination,
    Port,
    AddressType,
    User,
    Something,
}

struct Reader {
    conditions: Vec<Condition>,
    action: Action,
    packets: Option<u64>,
    loaded: Option<Loaded>,
    /// Of a mask over what was loaded.
    bits: Option<u8>,
}

impl Reader {
    fn read(&mut self, name: &str, data: &[u8]) {
        match name {
            "meta" => {
                self.load(match number(data, 2) {
                    Some(15) => Loaded::Family,
                    Some(16) => Loaded::Protocol,
                    Some(10) => Loaded::User,
                    _ => Loaded::Something,
                });
            }
            "payload" => {
                self.load(match (number(data, 2), number(data, 3), number(data, 4)) {
                    (Some(1), Some(9 | 6), Some(1)) => Loaded::Protocol,
                    (Some(1), Some(16), Some(4)) | (Some(1), Some(24), Some(16)) => Loaded::Destination,
                    // A short prefix is compared byte by byte.
                    (Some(1), Some(16), Some(1..=3)) | (Some(1), Some(24), Some(1..=15)) => {
                        Loaded::Destination
                    }
                    (Some(2), Some(2), Some(2)) => Loaded::Port,
                    _ => Loaded::Something,
                });
            }
            "fib" => {
                let kind = if number(data, 2) == Some(3) { Loaded::AddressType } else { Loaded::Something };
                self.load(kind);
            }
            "bitwise" => {
                let mask = find(data, 4).and_then(|mask| find(mask, 1)).unwrap_or_default();
                let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
                self.bits = u8::try_from(ones).ok();
            }
            "cmp" => self.compare(data),
            "lookup" if number(data, 3) == Some(0) => self.action = Action::Map,
            "counter" => {
                let packets =
                    find(data, 2).and_then(|bytes| bytes.first_chunk()).map(|b| u64::from_be_bytes(*b));
                self.packets = packets;
            }
            "immediate" => self.verdict(data),
            "redir" => self.action = Action::Redirect,
            "nat" if number(data, 1) == Some(1) => self.action = Action::Redirect,
            "reject" => self.action = Action::Drop,
            "notrack" => self.action = Action::Untrack,
            "target" => {
                let info = find(data, 3).unwrap_or_default();
                match text(find(data, 1).unwrap_or_default()).as_str() {
                    "DNAT" | "REDIRECT" | "NETMAP" => self.action = Action::Redirect,
                    "REJECT" => self.action = Action::Drop,
                    "NOTRACK" => self.action = Action::Untrack,
                    // The first flag is XT_CT_NOTRACK.
                    "CT" if native16(info, 0).is_some_and(|flags| flags & 1 != 0) => {
                        self.action = Action::Untrack;
                    }
                    _ => {}
                }
            }
            "match" => {
                let info = find(data, 3).unwrap_or_default();
                let name = text(find(data, 1).unwrap_or_default());
                if name != "comment" {
                    self.conditions.extend(matched(&name, info));
                }
            }
            "nat" | "masq" | "log" | "byteorder" => {}
            _ => self.conditions.push(Condition::Something),
        }
    }

    fn load(&mut self, loaded: Loaded) {
        self.loaded = Some(loaded);
        self.bits = None;
    }

    fn compare(&mut self, data: &[u8]) {
        let value = find(data, 3).and_then(|data| find(data, 1)).unwrap_or_default();
        let equal = number(data, 2) == Some(0);
        let bits = self.bits.or_else(|| u8::try_from(value.len() * 8).ok());
        let native = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        let condition = match self.loaded {
            Some(Loaded::Protocol) if equal => value.first().map(|number| Condition::Protocol(*number)),
            Some(Loaded::Family) if equal => value.first().map(|number| Condition::Family(*number)),
            Some(Loaded::Port) if equal => {
                value.first_chunk().map(|port| Condition::Port(u16::from_be_bytes(*port)))
            }
            Some(Loaded::AddressType) if equal && native(value) == Some(2) => Some(Condition::OwnAddress),
            Some(Loaded::User) if equal => native(value).map(Condition::User),
            Some(Loaded::Destination) if equal => {
                address(value).zip(bits).map(|(a, b)| Condition::Destination(a, b))
            }
            _ => None,
        };
        self.conditions.push(condition.unwrap_or(Condition::Something));
    }

    fn verdict(&mut self, data: &[u8]) {
        // Other immediates are addresses and ports for what follows.
        let Some(verdict) = find(data, 2).and_then(|data| find(data, 2)) else { return };
        let chain = || find(verdict, 2).map(text).unwrap_or_default();
        match number(verdict, 1).map(u32::cast_signed) {
            Some(0) => self.action = Action::Drop,
            Some(-3 | -4) => self.action = Action::Jump(chain()),
            _ => {}
        }
    }
}

/// An address, or the beginning of one.
fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        1..=4 => {
            let mut octets = [0; 4];
            octets[..value.len()].copy_from_slice(value);
            Some(Ipv4Addr::from(octets).into())
        }
        16 => Some(Ipv6Addr::from(*value.first_chunk::<16>()?).into()),
        _ => None,
    }
}

fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(of, _)| *of == kind).map(|(_, value)| value)
}

fn number(bytes: &[u8], kind: u16) -> Option<u32> {
    be32(find(bytes, kind)?)
}

fn be32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests;
