//! The UDP flows that connection tracking knows.

use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::super::message::{Message, NLM_F_DUMP, Request, number};
use super::super::{absent, ask};
use super::enter::each;
use super::{
    CTA_PROTO_NUM, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_TUPLE_REPLY, CTA_ZONE, IPCTNL_MSG_CT_DELETE,
    IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_NEW, about, destination, find, source,
};
use crate::config::values::Protocol;
use crate::plan::Family;
use crate::sys::proc;

const UDP: u8 = 17;

/// Datagrams between two ends, and where they really go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagrams {
    /// Who sent the first one.
    pub from: SocketAddr,
    /// Where that was sent to.
    pub to: SocketAddr,
    /// Where it really went: from there the answers come.
    pub answers_from: SocketAddr,
    /// The zone.
    pub zone: u16,
}

/// Those of a family, in the network namespace of the calling thread.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::Unsupported`] where it cannot tell of connections at all.
pub fn datagrams(family: Family, mut each: impl FnMut(Datagrams)) -> io::Result<()> {
    let request = Request::new(IPCTNL_MSG_CT_GET, NLM_F_DUMP, &[number(family), 0, 0, 0], &[]);
    let asked = ask(SockProtocol::NetlinkNetFilter, &request, |message| {
        if let Some(flow) = read(message) {
            each(flow);
        }
    });
    match asked {
        Err(errno) if absent(errno) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel lacks nf_conntrack_netlink"))
        }
        other => Ok(other?),
    }
}

/// Whether connection tracking is known to have nothing at all here. All network namespaces share one table, which the kernel looks
/// through to list what is in it: 10 ms on some machines.
pub fn is_empty() -> bool {
    let count = proc::text("/proc/sys/net/netfilter/nf_conntrack_count");
    count.is_some_and(|count| count.trim() == "0")
}

/// Lets the kernel forget them; that one is not known any more is no error.
///
/// # Errors
/// The kernel's.
pub fn forget_all(flows: &[Datagrams]) -> io::Result<()> {
    let refused =
        each(flows, |flow| about(IPCTNL_MSG_CT_DELETE, Protocol::Udp, flow.from, flow.to, flow.zone))?;
    match refused.into_iter().flatten().find(|errno| *errno != Errno::ENOENT) {
        Some(errno) => Err(errno.into()),
        None => Ok(()),
    }
}

fn read(message: &Message<'_>) -> Option<Datagrams> {
    if message.kind != IPCTNL_MSG_CT_NEW {
        return None;
    }
    let all = message.payload.get(4..)?;
    let original = find(all, CTA_TUPLE_ORIG)?;
    if find(find(original, CTA_TUPLE_PROTO)?, CTA_PROTO_NUM)?.first() != Some(&UDP) {
        return None;
    }
    let zone = find(all, CTA_ZONE).and_then(|zone| zone.try_into().ok()).map_or(0, u16::from_be_bytes);
    Some(Datagrams {
        from: source(original)?,
        to: destination(original)?,
        answers_from: source(find(all, CTA_TUPLE_REPLY)?)?,
        zone,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::message::nest;
    use super::super::{NESTED, tuple};
    use super::*;

    #[test]
    fn a_flow_is_read_whole_or_not_at_all() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (from, to, real) in [
            ("192.0.2.1:7", "192.0.2.53:53", "127.0.0.1:15053"),
            ("[fd00::1]:7", "[fd00::53]:53", "[::1]:15053"),
        ] {
            let (_, original) = tuple(Protocol::Udp, at(from), at(to));
            let (_, reply) = tuple(Protocol::Udp, at(real), at(from));
            let told = nest(&[
                (CTA_TUPLE_ORIG | NESTED, &original),
                (CTA_TUPLE_REPLY | NESTED, &reply),
                (CTA_ZONE, &[0, 2]),
            ]);
            let payload = [vec![2, 0, 0, 0], told].concat();
            let message = Message { kind: IPCTNL_MSG_CT_NEW, payload: &payload, ..Message::default() };
            let wanted = Datagrams { from: at(from), to: at(to), answers_from: at(real), zone: 2 };
            assert_eq!(read(&message), Some(wanted));
            for cut in 0..payload.len() {
                read(&Message { payload: &payload[..cut], ..message });
            }
        }
        let (_, tcp) = tuple(Protocol::Tcp, at("192.0.2.1:7"), at("192.0.2.53:53"));
        let told = nest(&[(CTA_TUPLE_ORIG | NESTED, &tcp), (CTA_TUPLE_REPLY | NESTED, &tcp)]);
        let payload = [vec![2, 0, 0, 0], told].concat();
        assert_eq!(read(&Message { kind: IPCTNL_MSG_CT_NEW, payload: &payload, ..Message::default() }), None);
    }
}
