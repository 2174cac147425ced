//! What connection tracking knows of one flow: where its packets really go.
//!
//! Layouts are those of the kernel's `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.

pub mod enter;
pub mod list;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::message::{Message, NLM_F_ACK, Request, attributes, nest, number};
use super::{absent, ask};
use crate::config::values::Protocol;
use crate::plan::Family;

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_NEW: u16 = NFNL_SUBSYS_CTNETLINK << 8;
const IPCTNL_MSG_CT_GET: u16 = IPCTNL_MSG_CT_NEW | 1;
const IPCTNL_MSG_CT_DELETE: u16 = IPCTNL_MSG_CT_NEW | 2;

const NESTED: u16 = 0x8000;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// Of `include/uapi/linux/netfilter/nf_conntrack_common.h`.
const IPS_SEEN_REPLY: u32 = 2;

/// A flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// From where its answers come, and so where its packets go, whatever destination they carried at first.
    pub answers_from: SocketAddr,
    /// Whether an answer was seen.
    pub answered: bool,
}

/// The flow that a packet with these ends began. `None`: there is none in this zone, or packets like it are the
/// answers of one. Looks in the network namespace of the calling thread.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::Unsupported`] where it cannot tell of connections at all.
pub fn flow(protocol: Protocol, from: SocketAddr, to: SocketAddr, zone: u16) -> io::Result<Option<Flow>> {
    let mut found = None;
    let request = about(IPCTNL_MSG_CT_GET, protocol, from, to, zone);
    let asked = ask(SockProtocol::NetlinkNetFilter, &request, |message| found = read(message, from));
    match asked {
        Ok(()) => Ok(found),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) if absent(errno) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel does not tell of tracked connections",
        )),
        Err(errno) => Err(errno.into()),
    }
}

/// Lets the kernel forget the flow that a packet with these ends began; that there is none is no error.
///
/// # Errors
/// The kernel's.
pub fn forget(protocol: Protocol, from: SocketAddr, to: SocketAddr, zone: u16) -> io::Result<()> {
    let request = about(IPCTNL_MSG_CT_DELETE, protocol, from, to, zone);
    match ask(SockProtocol::NetlinkNetFilter, &request, |_| ()) {
        Err(Errno::ENOENT) => Ok(()),
        other => Ok(other?),
    }
}

fn about(kind: u16, protocol: Protocol, from: SocketAddr, to: SocketAddr, zone: u16) -> Request {
    let (family, tuple) = tuple(protocol, from, to);
    let zone = zone.to_be_bytes();
    let mut all: Vec<(u16, &[u8])> = vec![(CTA_TUPLE_ORIG | NESTED, &tuple)];
    // A kernel without zones refuses even the number of the only one.
    if zone != [0, 0] {
        all.push((CTA_ZONE, &zone));
    }
    Request::new(kind, NLM_F_ACK, &[number(family), 0, 0, 0], &all)
}

/// The ends of packets in one direction, and of which family that makes them.
fn tuple(protocol: Protocol, from: SocketAddr, to: SocketAddr) -> (Family, Vec<u8>) {
    let number_of = match protocol {
        Protocol::Tcp => 6u8,
        Protocol::Udp => 17,
    };
    let (family, addresses) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            (Family::V4, nest(&[(CTA_IP_V4_SRC, &from.octets()), (CTA_IP_V4_DST, &to.octets())]))
        }
        (from, to) => {
            (Family::V6, nest(&[(CTA_IP_V6_SRC, &six(from).octets()), (CTA_IP_V6_DST, &six(to).octets())]))
        }
    };
    let ports = nest(&[
        (CTA_PROTO_NUM, &[number_of]),
        (CTA_PROTO_SRC_PORT, &from.port().to_be_bytes()),
        (CTA_PROTO_DST_PORT, &to.port().to_be_bytes()),
    ]);
    (family, nest(&[(CTA_TUPLE_IP | NESTED, &addresses), (CTA_TUPLE_PROTO | NESTED, &ports)]))
}

fn six(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(four) => four.to_ipv6_mapped(),
        IpAddr::V6(six) => six,
    }
}

fn read(message: &Message<'_>, from: SocketAddr) -> Option<Flow> {
    if message.kind != IPCTNL_MSG_CT_NEW {
        return None;
    }
    // The kernel looks among both directions.
    let all = message.payload.get(4..)?;
    let begun_by = source(find(all, CTA_TUPLE_ORIG)?)?;
    if (begun_by.ip(), begun_by.port()) != (from.ip(), from.port()) {
        return None;
    }
    let status = find(all, CTA_STATUS).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    let answers_from = source(find(all, CTA_TUPLE_REPLY)?)?;
    Some(Flow { answers_from, answered: status & IPS_SEEN_REPLY != 0 })
}

fn source(tuple: &[u8]) -> Option<SocketAddr> {
    end(tuple, CTA_IP_V4_SRC, CTA_IP_V6_SRC, CTA_PROTO_SRC_PORT)
}

fn destination(tuple: &[u8]) -> Option<SocketAddr> {
    end(tuple, CTA_IP_V4_DST, CTA_IP_V6_DST, CTA_PROTO_DST_PORT)
}

fn end(tuple: &[u8], v4: u16, v6: u16, port: u16) -> Option<SocketAddr> {
    let addresses = find(tuple, CTA_TUPLE_IP)?;
    let addr = match find(addresses, v4) {
        Some(octets) => Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into(),
        None => Ipv6Addr::from(<[u8; 16]>::try_from(find(addresses, v6)?).ok()?).into(),
    };
    let port = find(find(tuple, CTA_TUPLE_PROTO)?, port)?;
    Some(SocketAddr::new(addr, u16::from_be_bytes(port.try_into().ok()?)))
}

fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(of, _)| *of == kind).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(from: &str, to: &str) -> Request {
        about(IPCTNL_MSG_CT_GET, Protocol::Tcp, from.parse().unwrap(), to.parse().unwrap(), 2)
    }

    #[test]
    fn a_question_has_the_kernels_layout() {
        let request = flow("192.0.2.1:7", "198.51.100.9:80");
        let bytes = request.bytes();
        assert_eq!(bytes[4..6], 0x101u16.to_ne_bytes());
        assert_eq!(bytes[16..20], [2, 0, 0, 0]);
        let tuple = find(&bytes[20..], CTA_TUPLE_ORIG).unwrap();
        assert_eq!(find(find(tuple, CTA_TUPLE_IP).unwrap(), CTA_IP_V4_DST), Some(&[198, 51, 100, 9][..]));
        assert_eq!(find(find(tuple, CTA_TUPLE_PROTO).unwrap(), CTA_PROTO_DST_PORT), Some(&[0, 80][..]));
        assert_eq!(find(&bytes[20..], CTA_ZONE), Some(&[0, 2][..]));
    }

    fn tuple(source: SocketAddr) -> Vec<u8> {
        let addresses = match source.ip() {
            IpAddr::V4(four) => nest(&[(CTA_IP_V4_SRC, &four.octets())]),
            IpAddr::V6(six) => nest(&[(CTA_IP_V6_SRC, &six.octets())]),
        };
        let ports = nest(&[(CTA_PROTO_SRC_PORT, &source.port().to_be_bytes())]);
        nest(&[(CTA_TUPLE_IP | NESTED, &addresses), (CTA_TUPLE_PROTO | NESTED, &ports)])
    }

    #[test]
    fn an_answer_tells_where_it_really_goes() {
        for (from, to) in [("192.0.2.1:7", "127.0.0.1:15001"), ("[2001:db8::1]:7", "[::1]:15001")] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            for (status, answered) in [(vec![], false), (nest(&[(CTA_STATUS, &[0, 0, 0, 0x0a])]), true)] {
                let tuples =
                    [(CTA_TUPLE_ORIG | NESTED, &tuple(from)[..]), (CTA_TUPLE_REPLY | NESTED, &tuple(to))];
                let payload = [vec![2, 0, 0, 0], nest(&tuples), status].concat();
                let message = Message { kind: IPCTNL_MSG_CT_NEW, payload: &payload, ..Message::default() };
                assert_eq!(read(&message, from), Some(Flow { answers_from: to, answered }));
                assert_eq!(read(&message, to), None, "that is the direction of its answers");
                for cut in 0..payload.len() {
                    read(&Message { payload: &payload[..cut], ..message }, from);
                }
            }
        }
    }
}
