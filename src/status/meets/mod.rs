//! Rules of others that meet the sidecar in place of those whom they are about. It sends what applications sent, and it
//! connects to this host's applications from one address, `127.0.0.6` or `::6`, whoever the client was. So rules about users,
//! routes and filters by users or control groups, and rules about clients' addresses, shut out some and let others in.
//! Pure but for `look` and `routes`.

mod cgroups;
pub mod clients;
pub mod look;
mod routes;
#[cfg(test)]
mod tests;
mod users;
mod words;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::Config;
use crate::plan::Family;
use crate::rules::model::{Chain, Span, Value};
use crate::rules::nft::{number_of, span_of};
use crate::rules::numbers::{LOCAL, NEW, TCP, TRANSLATED, UDP, UNICAST};
use crate::verify::flows::{Road, Stand};

/// So many rules are looked at for one kind of question, each as often as it is met, but always some packets.
const VISITS: usize = 3_000_000;
const WALKS: usize = 24;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// What is redirected.
    pub config: &'a Config,
    /// The sidecar's user.
    pub sidecar: u32,
    /// A user whom no rule names.
    pub nobody: u32,
    /// The redirected families.
    pub families: &'a [Family],
    /// Where our rules stand.
    pub stand: Stand,
    /// The loopback interface's name and number.
    pub loopback: (&'a str, u32),
    /// By which source addresses and interfaces packets leave.
    pub departures: &'a [Road],
    /// At which addresses of which interfaces this host is asked.
    pub arrivals: &'a [Road],
    /// DNS servers whose questions are redirected.
    pub servers: &'a [IpAddr],
    /// TCP ports that are redirected when they are asked for from outside, and on which somebody listens.
    pub ports: &'a [u16],
    /// The families in which routing rules go by marks.
    pub by_marks: &'a [Family],
}

impl Asked<'_> {
    /// Addresses that are not elsewhere.
    fn here(&self, family: Family) -> Vec<Span> {
        let loopback = match family {
            Family::V4 => "127.0.0.0/8",
            Family::V6 => "::1/128",
        };
        let own = self.arrivals.iter().map(|road| road.address).filter(|addr| family.holds((*addr).into()));
        let own = own.map(|addr| number_of(addr)..=number_of(addr));
        own.chain(loopback.parse().ok().map(span_of)).collect()
    }
}

/// How many packets may be walked through that many rules.
fn walks(rules: usize) -> usize {
    (VISITS / rules.max(1)).clamp(WALKS, 4096)
}

/// What such a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Met {
    /// Of which family, or one of both.
    pub family: Family,
    /// In a sentence.
    pub what: String,
    /// What cures it.
    pub fix: String,
    /// Whether traffic that worked is dead for sure, and not only another way than the rule means.
    pub dead: bool,
    /// Of a rule about clients: in which chain it is, and about which ports.
    pub clients: Option<Clients>,
}

/// What a rule about clients is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// Its chain, in words.
    pub place: String,
    /// The rule, in its own words.
    pub rule: String,
    /// The ports that it keeps clients from.
    pub ports: Vec<u16>,
    /// Whether it keeps everybody from them now, the sidecar being its only client.
    pub shuts: bool,
}

/// Everything that rules do to the sidecar.
pub fn judge(asked: &Asked<'_>, chains: &[Chain]) -> Vec<Met> {
    let mut found = users::judge(asked, chains);
    found.extend(clients::judge(asked, chains));
    found
}

const fn is(number: u128) -> Value {
    Value::Is(number)
}

const fn localhost_of(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

fn localhost(family: Family) -> u128 {
    number_of(localhost_of(family))
}

/// The address from which the sidecar connects to applications of this host.
pub fn passthrough(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(127, 0, 0, 6).into(),
        Family::V6 => crate::host::PASSTHROUGH.into(),
    }
}
