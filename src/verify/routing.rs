//! Failures that are no firewall's: this host's routes lead elsewhere what is redirected to it. And programs whose
//! sockets cannot follow a redirection.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::net::if_::{if_indextoname, if_nametoindex};

use super::check::{Outcome, Status};
use super::judge::{FIREWALL, LOST_BY_FIREWALL};
use super::routes::is_scoped;
use crate::plan::Family;
use crate::sys::netlink::{route, rules, sockets};
use crate::sys::socket_holder;

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

/// A sentence for each program that has connections which are tied to an interface: once redirected, such a
/// connection gets no answer, because that comes by the loopback interface.
pub fn tied(families: &[Family], sidecar: u32, loopback: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for &family in families {
        for socket in sockets::bound(family).unwrap_or_default() {
            let Some(name) = if_indextoname(socket.interface).ok().and_then(|name| name.into_string().ok())
            else {
                continue;
            };
            // A connection to an address of one link is always tied to that.
            if socket.uid == sidecar || name == loopback || is_scoped(socket.to) {
                continue;
            }
            let who = socket_holder(socket.inode)
                .map_or_else(|| "a program".to_owned(), |holder| holder.to_string());
            found.insert(format!(
                "{who} of UID {} ties its connections to {name} (SO_BINDTODEVICE): a new one that is redirected gets no \
                 answer, because that would come by {loopback}; --exclude-outbound-ports-for-uids tcp:*:{} leaves them alone",
                socket.uid, socket.uid
            ));
        }
    }
    found
}
