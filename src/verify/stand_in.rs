//! Who has the sidecar's ports; where nobody does, tproxy in its place.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::check::{Check, Goal, Probe, Reached};
use super::derive;
use super::judge::Holders;
use super::lab::Lab;
use super::run::RIGHTS;
use crate::apply::doors::Stranger;
use crate::config::Config;
use crate::config::values::Protocol;
use crate::exit::{Exit, Failure};
use crate::host::owners;
use crate::plan::Family;
use crate::sidecar::{Channel, Port};
use crate::sys::netlink::sockets;
use crate::sys::rights;

/// Users who have the sidecar's ports. A socket of IPv6 may take IPv4 as well.
pub fn holders(config: &Config, families: &[Family], sidecar: u32) -> Holders {
    let mut holders = Holders::new();
    let wanted = derive::sidecar_ports(config);
    let mut held = Vec::new();
    for of in Family::BOTH {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            // A kernel that cannot tell is asked by trying to listen.
            let all = sockets::waiting(of, protocol).unwrap_or_default().into_iter();
            let is_wanted =
                |port: u16| wanted.iter().any(|(of, of_it)| *of == protocol && of_it.get() == port);
            held.extend(all.filter(|socket| is_wanted(socket.port)).map(|socket| (of, socket)));
        }
    }
    // As whom others than root send is known.
    let of_root = held.iter().filter(|(_, socket)| socket.uid == 0 && sidecar != 0);
    let senders = owners::Senders::of(of_root.map(|(_, socket)| owners::by_maker(socket)));
    for (of, socket) in held {
        let uid = if socket.uid == sidecar { sidecar } else { senders.user(socket.inode, socket.uid) };
        for &family in families.iter().filter(|family| **family == of || socket.both_families) {
            let users = holders.entry((family, socket.port)).or_default();
            if !users.contains(&uid) {
                users.push(uid);
            }
        }
    }
    holders
}

/// What becomes of a probe that would come to a port of the sidecar's which somebody else has, whose own traffic is
/// redirected.
pub fn held_by_a_stranger(strangers: &[Stranger], check: &Check) -> Option<Reached> {
    let name = match (check.goal, &check.probe) {
        (_, Probe::Nothing(_)) => return None,
        // It begins with a question of another user.
        (Goal::Dns, _) | (_, Probe::Again { .. }) => "dns",
        (Goal::Port(Channel::Outbound), _) => "outbound",
        (Goal::Port(Channel::Inbound), _) => "inbound",
        (Goal::Past, _) => return None,
    };
    let here = |of: &&Stranger| of.redirected && (of.name, of.family) == (name, check.family);
    let &Stranger { port, address, uid, .. } = strangers.iter().find(here)?;
    Some(Reached::Held { port, address, uid })
}

/// Listens in the sidecar's place; `None` if somebody does already. Nobody else can get through to these: they are on
/// loopback, and on the temporary interface.
pub fn listen(
    config: &Config,
    uid: u32,
    families: &[Family],
    lab: Option<&Lab>,
    guests: &BTreeMap<String, Lab>,
) -> Result<Option<Vec<Port>>, Failure> {
    let redirect = &config.redirect;
    let bind = || -> io::Result<Vec<Port>> {
        let mut ports = Vec::new();
        for &family in families {
            let localhost: IpAddr = match family {
                Family::V4 => Ipv4Addr::LOCALHOST.into(),
                Family::V6 => Ipv6Addr::LOCALHOST.into(),
            };
            let local = |port: crate::config::values::Port| SocketAddr::new(localhost, port.get());
            ports.push(Port::tcp(Channel::Outbound, uid, local(redirect.outbound.port), None)?);
            ports.push(Port::tcp(Channel::Inbound, uid, local(redirect.inbound.port), None)?);
            if redirect.dns.enabled {
                ports.push(Port::dns(uid, local(redirect.dns.port))?);
            }
            if let Some((lab, Ok(ends))) = lab.and_then(|lab| Some((lab, lab.ends.get(&family)?))) {
                let here = SocketAddr::new(ends.here, redirect.inbound.port.get());
                ports.push(Port::tcp(Channel::Inbound, uid, here, Some(&lab.device))?);
            }
            // What a guest sends is redirected to this host's address on the guest's interface.
            for guest in guests.values() {
                let Some(ends) = guest.ends_of(localhost) else { continue };
                let here = |port: crate::config::values::Port| SocketAddr::new(ends.here, port.get());
                let device = Some(guest.device.as_str());
                ports.push(Port::tcp(Channel::Outbound, uid, here(redirect.outbound.port), device)?);
                ports.push(Port::tcp(Channel::Inbound, uid, here(redirect.inbound.port), device)?);
                if redirect.dns.enabled {
                    ports.push(Port::dns(uid, here(redirect.dns.port))?);
                }
            }
        }
        Ok(ports)
    };
    match bind() {
        Ok(ports) => Ok(Some(ports)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(refused(&error)),
    }
}

pub fn refused(error: &io::Error) -> Failure {
    let failure =
        Failure::new(Exit::Host, format!("the sidecar's ports cannot be listened on in its place: {error}"));
    match error.kind() {
        io::ErrorKind::PermissionDenied => failure.hint(rights::remedy(&RIGHTS)),
        _ => failure.hint("run it as root of the host or of the container whose traffic is redirected"),
    }
}
