//! Looks at what is there, asking no more than has to be asked.

use std::io;

use crate::backend::iptables::observe::{self, Observation};
use crate::backend::iptables::situation::Recorded;
use crate::backend::iptables::tools::{Tools, Variant};
use crate::backend::nftables::decode::Observed;
use crate::backend::nftables::observe::observe as observe_native;
use crate::exit::{Exit, Failure};
use crate::plan::{Family, OWNER_TAG, OwnChain, Table};
use crate::sys::netlink;
use crate::sys::netlink::nftables::Door;

/// Our own table; `None` also where the kernel could have none.
pub fn native() -> Result<Option<Observed>, Failure> {
    let seen = Door::open().and_then(|mut door| observe_native(&mut door));
    match seen {
        Ok(seen) => Ok(seen.table),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            Err(Failure::new(Exit::Busy, error.to_string()).hint("find out who, and run the command again"))
        }
        Err(error) => Err(unreadable(&error)),
    }
}

/// The rules of the iptables programs, and whether Docker's embedded DNS server is there. With `spare`, a program is
/// run only if there can be a rule of ours in what it would read.
pub fn iptables(tools: &Tools, recorded: &Recorded, spare: bool) -> Result<(Observation, bool), Failure> {
    if !spare {
        return Ok((observe::observe(tools)?, false));
    }
    let chains = netlink::nft_chain_names(Family::V4).map_err(|error| unreadable(&error))?;
    let docker_dns = chains.iter().any(|(table, chain)| table == "nat" && chain == "DOCKER_OUTPUT");
    let worth = |variant, family| may_be_ours(variant, family, recorded);
    Ok((observe::observe_some(tools, worth)?, docker_dns))
}

/// Whether there can be rules of ours that no program here can read.
pub fn out_of_reach(tools: &Tools, recorded: &Recorded) -> Result<bool, Failure> {
    for (variant, family) in observe::unreadable(tools)? {
        if may_be_ours(variant, family, recorded)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether there can be rules of ours; without asking a program, which alone could tell what is in legacy tables.
pub fn may_be_ours(variant: Variant, family: Family, recorded: &Recorded) -> Result<bool, Failure> {
    let known = recorded.get(&family).is_some_and(|rules| !rules.is_empty());
    if known || variant == Variant::Legacy { Ok(true) } else { mentions_us(family) }
}

/// Whether there is a chain of ours, or a rule with our tag in a table that can have one. Other tables are not read:
/// they can be long.
fn mentions_us(family: Family) -> Result<bool, Failure> {
    let chains = netlink::nft_chain_names(family).map_err(|error| unreadable(&error))?;
    if chains.iter().any(|(_, chain)| OwnChain::named(chain).is_some()) {
        return Ok(true);
    }
    for table in Table::ALL.map(Table::name) {
        let exists = chains.iter().any(|(of, _)| of == table);
        let mentioned = || netlink::nft_rules_mention(family, table, OWNER_TAG.as_bytes());
        if exists && mentioned().map_err(|error| unreadable(&error))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::new(Exit::Host, format!("the kernel does not list its nftables tables: {error}"))
        .hint("root needs the capability CAP_NET_ADMIN too; containers have to be given it")
}
