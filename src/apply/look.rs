//! Looks at what is there, asking no more than has to be asked.

use std::collections::BTreeMap;
use std::io;

use crate::backend::iptables::legacy::{self, Legacy};
use crate::backend::iptables::observe::{self, Listed, Observation, Ours, Unread};
use crate::backend::iptables::situation::{Place, Recorded, Situation};
use crate::backend::iptables::tools::{Tools, Variant};
use crate::backend::nftables::observe::{Seen as SeenTable, observe as observe_native};
use crate::exit::{Exit, Failure};
use crate::plan::{Family, OWNER_TAG, OwnChain, Table};
use crate::sys::netlink;
use crate::sys::netlink::nftables::Door;

use super::store::State;

/// Our own table, and when that was so; `None` where the kernel could have none.
pub fn native() -> Result<Option<SeenTable>, Failure> {
    let seen = Door::open().and_then(|mut door| observe_native(&mut door));
    match seen {
        Ok(seen) => Ok(Some(seen)),
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
    /// Families of which there are legacy tables that were not all read.
    pub legacy: Vec<Family>,
    /// Whether Docker's embedded DNS server is in tables that were not read.
    pub docker_dns: bool,
}

/// How much of what others have is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sight {
    /// Nothing: a program is run only if there can be a rule of ours in what it would read.
    Ours,
    /// As much as it takes to choose between the variants, and all of the one that is chosen.
    ToChoose,
    /// All.
    All,
}

/// The rules of the iptables programs.
pub fn iptables(tools: &Tools, record: &Record, sight: Sight) -> Result<Seen, Failure> {
    let all = |rules, legacy| Seen { rules, unread: Unread::new(), legacy, docker_dns: false };
    match sight {
        Sight::Ours => only_ours(tools, record, &Listed::read()?),
        // Without programs of the nft variant there is nothing to choose.
        Sight::ToChoose if tools.nft.v4.is_some() && tools.named != Some(Variant::Legacy) => {
            let listed = Listed::read()?;
            to_choose(tools, record, &listed).map(|rules| all(rules, with_legacy(&listed)))
        }
        Sight::ToChoose | Sight::All => observe::observe(tools).map(|rules| all(rules, Vec::new())),
    }
}

fn with_legacy(listed: &Listed) -> Vec<Family> {
    let of = |(variant, family)| (variant == Variant::Legacy).then_some(family);
    listed.places().filter_map(of).collect()
}

fn only_ours(tools: &Tools, record: &Record, listed: &Listed) -> Result<Seen, Failure> {
    let legacy =
        legacy(&Family::BOTH, |family| legacy::read_ours(family, listed.tables(Variant::Legacy, family)));
    let has_nat = listed.tables(Variant::Nft, Family::V4).iter().any(|table| table == "nat");
    let docker_dns = legacy.get(&Family::V4).is_some_and(Legacy::has_docker_dns)
        || has_nat && {
            let chains = netlink::nft_chain_names(Family::V4).map_err(|error| unreadable(&error))?;
            chains.iter().any(|(table, chain)| table == "nat" && chain == "DOCKER_OUTPUT")
        };
    let ours = |variant, family| ours((variant, family), record, &legacy);
    let (rules, unread) = observe::observe_some(tools, listed, ours)?;
    Ok(Seen { rules, unread, legacy: with_legacy(listed), docker_dns })
}

/// Legacy rules of others are read by a program only if that variant is the one to use: then ours go to places among
/// them.
fn to_choose(tools: &Tools, record: &Record, listed: &Listed) -> Result<Observation, Failure> {
    let legacy =
        legacy(&Family::BOTH, |family| legacy::read_named(family, listed.tables(Variant::Legacy, family)));
    let mut others = Observation::new();
    for (family, tables) in &legacy {
        let place = (Variant::Legacy, *family);
        if !tables.is_empty() && ours(place, record, &legacy)? == Ours::No {
            others.insert(place, tables.saved(false));
        }
    }
    let told: Vec<Place> = others.keys().copied().collect();
    // Whatever is asked for has to be read.
    let unless_told =
        |variant, family| Ok(if told.contains(&(variant, family)) { Ours::No } else { Ours::Yes });
    let (mut observation, _) = observe::observe_some(tools, listed, unless_told)?;
    observation.append(&mut others);
    let situation = Situation::new(observation, &record.rules);
    let legacy_it_is = situation.choose(tools).is_some_and(|(variant, _)| variant == Variant::Legacy);
    let mut observation = situation.into_observation();
    if legacy_it_is {
        let if_told =
            |variant, family| Ok(if told.contains(&(variant, family)) { Ours::Yes } else { Ours::No });
        observation.append(&mut observe::observe_some(tools, listed, if_told)?.0);
    }
    Ok(observation)
}

/// Where there can be rules of ours, but no program to read them.
///
/// # Errors
/// There are some, so that they can be neither replaced nor removed.
pub fn out_of_reach(tools: &Tools, record: &Record) -> Result<Vec<Place>, Failure> {
    let unreadable = observe::unreadable(tools)?;
    if unreadable.is_empty() {
        return Ok(unreadable);
    }
    let legacy = legacy(&Family::BOTH, legacy::read);
    let mut places = Vec::new();
    for (variant, family) in unreadable {
        let are_ours = match (variant, legacy.get(&family)) {
            (Variant::Nft, _) => mentions_us(family)?,
            (Variant::Legacy, Some(tables)) => tables.is_ours(),
            (Variant::Legacy, None) => record.variant == Some(variant),
        };
        if are_ours {
            let what = format!(
                "the transparent proxy's rules are in {family} tables of the {variant} variant, and there is no {variant} \
                 iptables here to change them"
            );
            let hint = format!("install the {variant} variant of iptables, and run the command again");
            return Err(Failure::new(Exit::Host, what).hint(hint));
        }
        if ours((variant, family), record, &legacy)? != Ours::No {
            places.push((variant, family));
        }
    }
    Ok(places)
}

/// Legacy tables by family, as far as the kernel tells of them.
pub type LegacyTables = BTreeMap<Family, Legacy>;

/// Reads them without a program. A family that cannot be read so is left out: a program may know better.
pub fn legacy(families: &[Family], read: impl Fn(Family) -> io::Result<Legacy>) -> LegacyTables {
    let read = |family| match read(family) {
        Ok(tables) => Some((family, tables)),
        Err(error) => {
            tracing::debug!("the kernel does not tell of {family} legacy tables: {error}");
            None
        }
    };
    families.iter().copied().filter_map(read).collect()
}

/// Whether there are rules of ours; without asking a program.
pub fn ours((variant, family): Place, record: &Record, legacy: &LegacyTables) -> Result<Ours, Failure> {
    // Rules without comment are known by their words, which their program has to say.
    let known = record.rules.get(&family).is_some_and(|rules| !rules.is_empty());
    let are = |ours: bool| if ours { Ours::Yes } else { Ours::No };
    match (variant, legacy.get(&family)) {
        _ if known => Ok(Ours::Yes),
        (Variant::Nft, _) => mentions_us(family).map(are),
        (Variant::Legacy, Some(tables)) => Ok(are(tables.is_ours())),
        (Variant::Legacy, None) if record.variant == Some(Variant::Legacy) => Ok(Ours::Yes),
        (Variant::Legacy, None) => Ok(Ours::Perhaps),
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
    observe::not_listed("tables", error)
}
