//! Looks at what is there, asking no more than has to be asked.

use std::io;

use crate::backend::iptables::observe::{self, Observation, Ours, Unread};
use crate::backend::iptables::situation::{Place, Recorded};
use crate::backend::iptables::tools::{Tools, Variant};
use crate::backend::nftables::decode::Observed;
use crate::backend::nftables::observe::observe as observe_native;
use crate::exit::{Exit, Failure};
use crate::plan::{Family, OWNER_TAG, OwnChain, Table};
use crate::sys::netlink;
use crate::sys::netlink::nftables::Door;

use super::store::State;

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

/// What an earlier run of ours left on record about the tables that everybody shares.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Rules without comment.
    pub rules: Recorded,
    /// The variant of the installation, if it is one through iptables.
    pub variant: Option<Variant>,
}

impl From<&State> for Record {
    fn from(state: &State) -> Self {
        Self { rules: state.recorded(), variant: state.variant() }
    }
}

/// What was seen of the tables that everybody shares.
#[derive(Debug)]
pub struct Seen {
    /// Rules.
    pub rules: Observation,
    /// Where there may be more.
    pub unread: Unread,
    /// Whether Docker's embedded DNS server is in tables that were not read.
    pub docker_dns: bool,
}

/// The rules of the iptables programs. With `spare`, a program is run only if there can be a rule of ours in what it
/// would read.
pub fn iptables(tools: &Tools, record: &Record, spare: bool) -> Result<Seen, Failure> {
    if !spare {
        return Ok(Seen { rules: observe::observe(tools)?, unread: Unread::new(), docker_dns: false });
    }
    let chains = netlink::nft_chain_names(Family::V4).map_err(|error| unreadable(&error))?;
    let docker_dns = chains.iter().any(|(table, chain)| table == "nat" && chain == "DOCKER_OUTPUT");
    let ours = |variant, family| ours(variant, family, record);
    let (rules, unread) = observe::observe_some(tools, ours)?;
    Ok(Seen { rules, unread, docker_dns })
}

/// Where there can be rules of ours, but no program to read them.
///
/// # Errors
/// There are some, so that they can be neither replaced nor removed.
pub fn out_of_reach(tools: &Tools, record: &Record) -> Result<Vec<Place>, Failure> {
    let mut places = Vec::new();
    for (variant, family) in observe::unreadable(tools)? {
        let are_ours = match variant {
            Variant::Nft => mentions_us(family)?,
            Variant::Legacy => record.variant == Some(variant),
        };
        if are_ours {
            let what = format!(
                "the transparent proxy's rules are in {family} tables of the {variant} variant, and there is no {variant} \
                 iptables here to change them"
            );
            let hint = format!("install the {variant} variant of iptables, and run the command again");
            return Err(Failure::new(Exit::Host, what).hint(hint));
        }
        if ours(variant, family, record)? != Ours::No {
            places.push((variant, family));
        }
    }
    Ok(places)
}

/// Whether there are rules of ours; without asking a program, which alone could tell what is in legacy tables.
pub fn ours(variant: Variant, family: Family, record: &Record) -> Result<Ours, Failure> {
    let known = record.rules.get(&family).is_some_and(|rules| !rules.is_empty());
    match variant {
        _ if known => Ok(Ours::Yes),
        Variant::Legacy if record.variant == Some(Variant::Legacy) => Ok(Ours::Yes),
        Variant::Legacy => Ok(Ours::Perhaps),
        Variant::Nft => mentions_us(family).map(|us| if us { Ours::Yes } else { Ours::No }),
    }
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
