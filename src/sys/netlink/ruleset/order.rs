//! Which of two chains the kernel calls first that translate addresses at the same hook with the same priority.
//!
//! Of equal priorities, the one that was registered last comes first. `nfnetlink_hook` (Linux 5.14, if it was built in)
//! lists who is called in which order; only newer kernels list what hangs behind the one hook of address translation.
//! Elsewhere the handles tell: those of tables grow as tables are made, those of chains as objects of one table are.
//!
//! Layouts and numbers are those of the kernel's `include/uapi/linux/netfilter/{nfnetlink_hook,nf_tables}.h`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::{
    ChainType, FamilyNumber, GETCHAIN, GETRULE, HEADER, HookedChain, NEWCHAIN, NEWRULE, find, number, text,
};
use crate::plan::{OWNER_TAG, OwnChain};
use crate::sys::netlink::list;
use crate::sys::netlink::message::{Message, NLM_F_DUMP, Request};

/// `NFNL_SUBSYS_HOOK`, `NFNL_MSG_HOOK_GET`; answers have the same.
const HOOK: u16 = 0x0c00;
const NEWTABLE: u16 = 0x0a00;
const GETTABLE: u16 = 0x0a01;
const NEWSET: u16 = 0x0a09;
const GETSET: u16 = 0x0a0a;
/// `NFTA_{TABLE,CHAIN,RULE,SET}_HANDLE`
const TABLE_HANDLE: u16 = 4;
const CHAIN_HANDLE: u16 = 2;
const RULE_HANDLE: u16 = 3;
const SET_HANDLE: u16 = 16;
/// `NFT_TABLE_F_DORMANT`
const DORMANT: u32 = 1;
/// At which iptables translates addresses before routing (`NF_IP_PRI_NAT_DST`).
const IPTABLES: i32 = -100;
/// The hooks before routing and of what this host sends.
const HOOKS: [u32; 2] = [0, 3];
const FAMILIES: [FamilyNumber; 2] = [2, 10];

/// A chain: the family of its table, its table and its name.
pub type Key = (FamilyNumber, String, String);

/// Who is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Called {
    /// A chain of `nf_tables`.
    Chain(Key),
    /// A table of iptables' legacy variant.
    Legacy,
    /// Something else.
    Other,
}

/// When a chain is called, compared with another one of the same priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Before it.
    Before,
    /// After it.
    After,
    /// The kernel does not tell.
    Unknown,
}

/// What the kernel tells about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Order {
    /// By the number of a family and a hook: who is called, the first one first.
    called: BTreeMap<(FamilyNumber, u32), Vec<Called>>,
    ages: BTreeMap<Key, Age>,
}

/// When something was made, in numbers that grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Age {
    table: u64,
    chain: u64,
    /// Whether everything that the table had before the chain is still there, and is no rule but of ours: such a chain was
    /// made with its table. An installation writes rules before the last chain of iptables is made.
    with_table: bool,
}

impl Order {
    /// When `one` is called at a hook of a family, compared with `other`.
    pub fn turn(&self, (family, hook): (FamilyNumber, u32), one: &Called, other: &Called) -> Turn {
        let of = |first: bool| if first { Turn::Before } else { Turn::After };
        let listed = self.called.get(&(family, hook)).map(Vec::as_slice).unwrap_or_default();
        let place = |of: &Called| listed.iter().position(|called| called == of);
        if let (Some(one), Some(other)) = (place(one), place(other)) {
            return of(one < other);
        }
        let age = |of: &Called| match of {
            Called::Chain(key) => self.ages.get(key),
            _ => None,
        };
        let (Some(one), Some(other)) = (age(one), age(other)) else { return Turn::Unknown };
        let (older, newest) = if one.table < other.table { (one, false) } else { (other, true) };
        match one.table == other.table {
            true => of(one.chain > other.chain),
            // Its chain may have come long after its table, and so after the newer table.
            false if !older.with_table => Turn::Unknown,
            false => of(newest),
        }
    }
}

/// Whether the order matters: two chains have the same place, or one has that of iptables.
fn matters(chains: &[HookedChain]) -> bool {
    let nat = |chain: &&HookedChain| chain.kind == ChainType::Nat && HOOKS.contains(&chain.hook);
    let meet = |one: FamilyNumber, other: FamilyNumber| one == other || one == 1 || other == 1;
    chains.iter().enumerate().filter(|(_, chain)| nat(chain)).any(|(at, one)| {
        let same = |other: &&HookedChain| {
            (one.hook, one.priority) == (other.hook, other.priority) && meet(one.family, other.family)
        };
        one.priority == IPTABLES && !super::is_compat(one)
            || chains[..at].iter().filter(nat).any(|c| same(&c))
    })
}

/// What the kernel tells of these chains; nothing where no two of them have the same place.
///
/// # Errors
/// The kernel's.
pub(super) fn read(chains: &[HookedChain]) -> io::Result<Order> {
    if !matters(chains) {
        return Ok(Order::default());
    }
    let mut called = BTreeMap::new();
    for place in FAMILIES.into_iter().flat_map(|family| HOOKS.map(|hook| (family, hook))) {
        called.insert(place, list(&question(place), self::called)?);
    }
    let dump = |kind| Request::new(kind, NLM_F_DUMP, &[0; HEADER], &[]);
    let tables = list(&dump(GETTABLE), |message| {
        let (family, body) = object(message, NEWTABLE)?;
        Some(((family, text(find(body, 1)?)), handle(body, TABLE_HANDLE)?))
    })?;
    let chains = list(&dump(GETCHAIN), |message| {
        let (family, body) = object(message, NEWCHAIN)?;
        Some(((family, text(find(body, 1)?), text(find(body, 3)?)), handle(body, CHAIN_HANDLE)?))
    })?;
    let mut others = list(&dump(GETSET), |message| {
        let (family, body) = object(message, NEWSET)?;
        Some(((family, text(find(body, 1)?)), handle(body, SET_HANDLE)?))
    })?;
    let has_ours = |key: &&Key| OwnChain::named(&key.2).is_some();
    let with_ours: BTreeSet<Table> =
        chains.iter().map(|(key, _)| key).filter(has_ours).map(|key| (key.0, key.1.clone())).collect();
    for (family, table) in with_ours {
        let name = format!("{table}\0");
        let request = Request::new(GETRULE, NLM_F_DUMP, &[family, 0, 0, 0], &[(1, name.as_bytes())]);
        let own = |message: &Message<'_>| own_rule(message, &table);
        others.extend(list(&request, own)?.into_iter().map(|handle| ((family, table.clone()), handle)));
    }
    Ok(Order { called, ages: ages(&tables, &chains, &others) })
}

type Table = (FamilyNumber, String);

/// The handle of a rule of ours in a table.
fn own_rule(message: &Message<'_>, of: &str) -> Option<u64> {
    let (_, body) = object(message, NEWRULE)?;
    let (table, chain) = (text(find(body, 1)?), text(find(body, 2)?));
    let mentions = |bytes: &[u8]| body.windows(bytes.len()).any(|window| window == bytes);
    let ours = OwnChain::named(&chain).is_some()
        || mentions(OWNER_TAG.as_bytes())
        || OwnChain::ALL.iter().any(|own| mentions(own.name().as_bytes()));
    if table == of && ours { handle(body, RULE_HANDLE) } else { None }
}

fn ages(tables: &[(Table, u64)], chains: &[(Key, u64)], others: &[(Table, u64)]) -> BTreeMap<Key, Age> {
    let made: BTreeMap<&Table, u64> = tables.iter().map(|(table, handle)| (table, *handle)).collect();
    let mut objects: BTreeMap<Table, BTreeSet<u64>> = BTreeMap::new();
    let of_chains = chains.iter().map(|((family, table, _), handle)| ((*family, table.clone()), *handle));
    for (table, handle) in of_chains.chain(others.iter().cloned()) {
        objects.entry(table).or_default().insert(handle);
    }
    let age = |(key, chain): &(Key, u64)| {
        let table = (key.0, key.1.clone());
        let before = objects.get(&table)?.range(..*chain).count();
        let with_table = u64::try_from(before).ok()? == chain.checked_sub(1)?;
        Some((key.clone(), Age { table: *made.get(&table)?, chain: *chain, with_table }))
    };
    chains.iter().filter_map(age).collect()
}

/// The tables whose chains are not called, because they were put to sleep.
///
/// # Errors
/// The kernel's.
pub(super) fn dormant() -> io::Result<Vec<Table>> {
    list(&Request::new(GETTABLE, NLM_F_DUMP, &[0; HEADER], &[]), |message| {
        let (family, body) = object(message, NEWTABLE)?;
        (number(body, 2)? & DORMANT != 0).then(|| find(body, 1).map(|name| (family, text(name))))?
    })
}

/// Who is called at a hook?
fn question((family, hook): (FamilyNumber, u32)) -> Request {
    Request::new(HOOK, NLM_F_DUMP, &[family, 0, 0, 0], &[(1, &hook.to_be_bytes())])
}

/// Who is called, from one of the answers.
fn called(message: &Message<'_>) -> Option<Called> {
    /// `NFNL_HOOK_TYPE_NFTABLES`
    const NFTABLES: u32 = 1;
    let (_, body) = object(message, HOOK)?;
    if let Some(chain) = find(body, 6).filter(|chain| number(chain, 2) == Some(NFTABLES)) {
        let told = find(chain, 1)?;
        let family = *find(told, 2)?.first()?;
        return Some(Called::Chain((family, text(find(told, 1)?), text(find(told, 3)?))));
    }
    // Functions of legacy tables; those of other tables than `nat` are called at other priorities.
    let function = find(body, 4).map(text).unwrap_or_default();
    let legacy = function.ends_with("t_do_table") || function.ends_with("table_nat_do_chain");
    Some(if legacy && number(body, 2) == Some(IPTABLES.cast_unsigned()) {
        Called::Legacy
    } else {
        Called::Other
    })
}

/// Family and attributes of a message of that kind.
fn object<'a>(message: &Message<'a>, kind: u16) -> Option<(FamilyNumber, &'a [u8])> {
    let body = message.payload.get(HEADER..)?;
    (message.kind == kind).then_some((*message.payload.first()?, body))
}

fn handle(body: &[u8], kind: u16) -> Option<u64> {
    Some(u64::from_be_bytes(*find(body, kind)?.first_chunk()?))
}

#[cfg(test)]
mod tests;
