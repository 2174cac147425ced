//! Where packets to an address would go: which interface, and from which source address. Asks; sends nothing.
//!
//! Layouts are those of the kernel's `include/uapi/linux/rtnetlink.h`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::message::{Message, NLM_F_ACK, NLM_F_DUMP, Request, attributes, number};
use super::{absent, ask};
use crate::plan::Family;

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// The size of `struct rtmsg`.
const HEADER: usize = 12;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;
const RTA_UID: u16 = 25;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
/// A route of the kernel's cache and no entry of a table.
const RTM_F_CLONED: u32 = 0x200;

/// Where packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The interface's number.
    pub interface: u32,
    /// The source address that the kernel gives them, if none is asked for.
    pub source: Option<IpAddr>,
    /// Whether they stay on this host.
    pub is_local: bool,
}

/// Where packets of a user to an address go, with this source address if one is named. `None`: nowhere.
///
/// # Errors
/// The kernel's.
pub fn way(to: IpAddr, from: Option<IpAddr>, uid: u32) -> io::Result<Option<Way>> {
    let (family, octets) = octets(to);
    let bits = u8::try_from(octets.len() * 8).unwrap_or(u8::MAX);
    let source = from.map(|from| self::octets(from).1);
    let source_bits = if source.is_some() { bits } else { 0 };
    let header = [family, bits, source_bits, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let uid = uid.to_ne_bytes();
    let mut all: Vec<(u16, &[u8])> = vec![(RTA_DST, &octets), (RTA_UID, &uid)];
    if let Some(source) = &source {
        all.push((RTA_SRC, source));
    }
    let mut found = None;
    let request = Request::new(RTM_GETROUTE, NLM_F_ACK, &header, &all);
    let asked =
        ask(SockProtocol::NetlinkRoute, &request, |message| found = found.or_else(|| read_way(message)));
    match asked {
        Ok(()) => Ok(found),
        // EINVAL and EACCES are those of blackhole and prohibit routes, and of a source that is not this host's.
        Err(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EINVAL | Errno::EACCES) => Ok(None),
        Err(errno) if absent(errno) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The networks that routes of any table lead out to; the default is one of them.
///
/// # Errors
/// The kernel's.
pub fn networks(family: Family) -> io::Result<Vec<IpNet>> {
    let mut header = [0; HEADER];
    header[0] = number(family);
    let mut found = Vec::new();
    let request = Request::new(RTM_GETROUTE, NLM_F_DUMP, &header, &[]);
    let asked = ask(SockProtocol::NetlinkRoute, &request, |message| {
        found.extend(read_network(message, family));
    });
    match asked {
        Ok(()) => {}
        Err(errno) if absent(errno) => {}
        Err(errno) => return Err(errno.into()),
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn read_way(message: &Message<'_>) -> Option<Way> {
    let (header, rest) = message.payload.split_at_checked(HEADER).filter(|_| message.kind == RTM_NEWROUTE)?;
    let mut way = Way { interface: 0, source: None, is_local: header[7] == RTN_LOCAL };
    for (kind, value) in attributes(rest) {
        match kind {
            RTA_OIF => way.interface = u32::from_ne_bytes(value.try_into().ok()?),
            RTA_PREFSRC => way.source = address(value),
            _ => {}
        }
    }
    matches!(header[7], RTN_UNICAST | RTN_LOCAL).then_some(way)
}

fn read_network(message: &Message<'_>, family: Family) -> Option<IpNet> {
    let (header, rest) = message.payload.split_at_checked(HEADER).filter(|_| message.kind == RTM_NEWROUTE)?;
    let flags = u32::from_ne_bytes(*header.last_chunk()?);
    if header[7] != RTN_UNICAST || flags & RTM_F_CLONED != 0 {
        return None;
    }
    let any: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let to = attributes(rest).find(|(kind, _)| *kind == RTA_DST).and_then(|(_, value)| address(value));
    IpNet::new(to.unwrap_or(any), header[1]).ok()
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(Ipv4Addr::from(*value.first_chunk::<4>()?).into()),
        16 => Some(Ipv6Addr::from(*value.first_chunk::<16>()?).into()),
        _ => None,
    }
}

fn octets(addr: IpAddr) -> (u8, Vec<u8>) {
    match addr {
        IpAddr::V4(four) => (number(Family::V4), four.octets().to_vec()),
        IpAddr::V6(six) => (number(Family::V6), six.octets().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netns::testing::apart;

    fn ip(args: &str) {
        let done = std::process::Command::new("ip").args(args.split(' ')).status().unwrap();
        assert!(done.success(), "ip {args}");
    }

    #[test]
    fn routes_of_every_table_and_what_they_mean_for_a_user() {
        apart(|| {
            ip("link set lo up");
            ip("link add tpvr0 type veth peer name tpvr1");
            ip("addr add 10.9.0.1/24 dev tpvr0");
            ip("addr add 10.9.0.7/24 dev tpvr0");
            ip("link set tpvr0 up");
            ip("link set tpvr1 up");
            ip("route add default via 10.9.0.2 src 10.9.0.7 table 100");
            ip("rule add uidrange 77-77 lookup 100");
            let networks: Vec<String> =
                networks(Family::V4).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(networks, ["0.0.0.0/0", "10.9.0.0/24"]);
            let far: IpAddr = "203.0.113.9".parse().unwrap();
            assert_eq!(way(far, None, 0).unwrap(), None);
            let by_user = way(far, None, 77).unwrap().expect("a way");
            assert_eq!(by_user.source.unwrap().to_string(), "10.9.0.7");
            let near = way("10.9.0.5".parse().unwrap(), None, 0).unwrap().expect("a way");
            assert_eq!((near.source.unwrap().to_string(), near.is_local), ("10.9.0.1".to_owned(), false));
            assert_eq!(near.interface, by_user.interface);
            assert!(way("10.9.0.7".parse().unwrap(), None, 0).unwrap().expect("a way").is_local);
        });
    }

    #[test]
    fn short_messages_are_passed_over() {
        let payload = [2, 24, 0, 0, 254, 3, 0, 1, 0, 0, 0];
        let message = Message { kind: RTM_NEWROUTE, payload: &payload, ..Message::default() };
        assert_eq!((read_way(&message), read_network(&message, Family::V4)), (None, None));
    }
}
