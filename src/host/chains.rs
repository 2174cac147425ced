//! Everybody's live chains, read for evaluation (`crate::rules`). Reads only, and runs no program.

use std::collections::BTreeSet;
use std::io;

use crate::attribute::{Attributes, find, find_text, find_u32};
use crate::backend::iptables::legacy;
use crate::backend::nftables::model::TABLE;
use crate::backend::nftables::wire::{INET, Message};
use crate::plan::Family;
use crate::rules::model::Chain;
use crate::rules::{nft, words};
use crate::sys::netlink::nftables::Door;

/// `NFT_MSG_GET*`
const GET_TABLE: u16 = 1;
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const GET_SET: u16 = 10;
const GET_ELEMENTS: u16 = 13;
/// `NFT_TABLE_F_DORMANT`: no hook calls its chains.
const DORMANT: u32 = 1;

/// All chains that are called, but those of our own table.
///
/// # Errors
/// The kernel's.
pub fn all() -> io::Result<Vec<Chain>> {
    read(false)
}

/// The chains of those tables of which a hook calls a chain that what goes on here meets. Others can be long, and do
/// nothing to it.
///
/// # Errors
/// The kernel's.
pub fn met() -> io::Result<Vec<Chain>> {
    read(true)
}

fn read(met: bool) -> io::Result<Vec<Chain>> {
    let mut chains = match native(met) {
        Ok(chains) => chains,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Vec::new(),
        Err(error) => return Err(error),
    };
    for family in Family::BOTH {
        // A kernel that has none, or does not tell, has said so elsewhere.
        let Ok(tables) = legacy::read_all(family) else { continue };
        chains.extend(words::chains(&tables.saved(false), family, |table, chain| tables.drops(table, chain)));
    }
    Ok(chains)
}

fn told(all: &[Message]) -> Vec<nft::Told<'_>> {
    all.iter().map(|message| (message.family, message.body.as_slice())).collect()
}

fn native(met: bool) -> io::Result<Vec<Chain>> {
    let mut door = Door::open()?;
    let mut dump =
        |kind: u16, family: u8, body: Vec<u8>| door.dump(&Message { kind, flags: 0, family, body });
    let mut listed = dump(GET_CHAIN, 0, Vec::new())?;
    listed.retain(|chain| chain.family != INET || find_text(&chain.body, 1).as_deref() != Some(TABLE));
    let is_wanted = |chain: &&Message| !met || is_met(chain);
    let mut tables: BTreeSet<(u8, String)> = listed
        .iter()
        .filter(is_wanted)
        .filter_map(|chain| Some((chain.family, find_text(&chain.body, 1)?)))
        .collect();
    if !tables.is_empty() {
        for table in dump(GET_TABLE, 0, Vec::new())? {
            let flags = find_u32(&table.body, 2).unwrap_or_default();
            if let Some(name) = find_text(&table.body, 1).filter(|_| flags & DORMANT != 0) {
                tables.remove(&(table.family, name));
            }
        }
    }
    let (mut rules, mut elements) = (Vec::new(), Vec::new());
    for (family, table) in &tables {
        let of_table: Vec<u8> = Attributes::new().text(1, table).into();
        rules.extend(dump(GET_RULE, *family, of_table.clone())?);
        for set in dump(GET_SET, *family, of_table)? {
            let Some(name) = find_text(&set.body, 2) else { continue };
            let about = Attributes::new().text(1, table).text(2, &name);
            elements.extend(dump(GET_ELEMENTS, *family, about.into())?);
        }
    }
    listed.retain(|chain| {
        find_text(&chain.body, 1).is_some_and(|table| tables.contains(&(chain.family, table)))
    });
    Ok(nft::chains(&told(&listed), &told(&rules), &told(&elements)))
}

/// Whether a hook calls a chain that what goes on here meets: before routing (0), on the way in (1) if it does not translate
/// alone where nothing is redirected, on the way out (3), and after routing (4).
fn is_met(chain: &Message) -> bool {
    let translates = find_text(&chain.body, 7).is_some_and(|kind| kind == "nat");
    match find(&chain.body, 4).and_then(|hook| find_u32(hook, 1)) {
        Some(1) => !translates,
        hook => matches!(hook, Some(0 | 3 | 4)),
    }
}
