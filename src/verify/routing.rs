//! Failures that are no firewall's: this host's routes lead elsewhere what is redirected to it. And programs whose
//! sockets cannot follow a redirection.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::net::if_::{if_indextoname, if_nametoindex};

use super::check::{Outcome, Status};
use super::judge::{FIREWALL, LOST_BY_FIREWALL};
use super::routes::is_scoped;
use crate::plan::Family;
use crate::sys::netlink::{route, rules, sockets};
use crate::sys::{Holder, socket_holders};

/// What is wrong with a family's routes, and the command that shows it.
fn trouble(family: Family, loopback: &str) -> Option<(String, String)> {
    let (ip, localhost) = match family {
        Family::V4 => ("ip", IpAddr::from(Ipv4Addr::LOCALHOST)),
        Family::V6 => ("ip -6", IpAddr::from(Ipv6Addr::LOCALHOST)),
    };
    if !rules::is_local_table_first(family).ok()? {
        let why = "this host's routing rules come before its table of local addresses, so they may lead elsewhere what is \
                   redirected to this host";
        return Some((why.to_owned(), format!("{ip} rule")));
    }
    let way = route::way(localhost, None, 0).ok()?;
    let index = if_nametoindex(loopback).ok()?;
    let leads_home = way.is_some_and(|way| way.is_local && way.interface == index);
    (!leads_home).then(|| {
        let why = format!("no route leads to {localhost} by {loopback}, where everything goes that is redirected on this host");
        (why, format!("{ip} route show table local"))
    })
}

/// Lets failures that nothing else explains say what is wrong with the routes, where something is.
pub fn explain(outcomes: &mut [Outcome], loopback: &str) {
    for family in Family::BOTH {
        let unexplained = |outcome: &&mut Outcome| {
            let blamed = |cause: &str| [FIREWALL, LOST_BY_FIREWALL].contains(&cause);
            outcome.check.family == family
                && outcome.status == Status::Fail
                && outcome.cause.as_deref().is_some_and(blamed)
        };
        let mut unexplained = outcomes.iter_mut().filter(unexplained).peekable();
        if unexplained.peek().is_none() {
            continue;
        }
        let Some((cause, next)) = trouble(family, loopback) else { continue };
        for outcome in unexplained {
            outcome.cause = Some(cause.clone());
            outcome.next = Some(next.clone());
        }
    }
}

/// A sentence for each program that has connections which are tied to an interface, and one for the rest where there are
/// many: once redirected, such a connection gets no answer, because that comes by the loopback interface.
pub fn tied(families: &[Family], sidecar: u32, loopback: &str) -> Vec<String> {
    const MOST: usize = 8;
    let mut names = BTreeMap::new();
    let mut name_of = |index: u32| -> Option<String> {
        let name = || if_indextoname(index).ok().and_then(|name| name.into_string().ok());
        names.entry(index).or_insert_with(name).clone()
    };
    let mut all = Vec::new();
    for &family in families {
        for socket in sockets::bound(family).unwrap_or_default() {
            let Some(name) = name_of(socket.interface) else { continue };
            // A connection to an address of one link is always tied to that.
            if socket.uid != sidecar && name != loopback && !is_scoped(socket.to) {
                all.push((socket, name));
            }
        }
    }
    let holders = socket_holders(all.iter().map(|(socket, _)| (socket.inode, socket.uid)));
    let programs: BTreeSet<(u32, String, String)> = all
        .into_iter()
        .map(|(socket, name)| {
            let who = holders.get(&socket.inode).map_or_else(|| "a program".to_owned(), Holder::to_string);
            (socket.uid, name, who)
        })
        .collect();
    let mut words: Vec<String> = programs
        .iter()
        .take(MOST)
        .map(|(uid, name, who)| {
            format!(
                "{who} of UID {uid} ties its connections to {name} (SO_BINDTODEVICE): a new one that is redirected gets no \
                 answer, because that would come by {loopback}; --exclude-outbound-ports-for-uids tcp:*:{uid} leaves them \
                 alone"
            )
        })
        .collect();
    if let Some(rest) = programs.len().checked_sub(MOST).filter(|rest| *rest > 0) {
        words.push(format!("{rest} more tie their connections to an interface (SO_BINDTODEVICE)"));
    }
    words
}
