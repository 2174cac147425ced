//! TCP connections that connection tracking shall know from now on, though it did not see them begin.
//!
//! Layouts and numbers are those of the kernel's `include/uapi/linux/netfilter/nfnetlink_conntrack.h`,
//! `nf_conntrack_common.h` and `nf_conntrack_tcp.h`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, NetlinkAddr, SockProtocol, recv, sendto};

use super::super::message::{self, HEADER, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, Request, nest, number};
use super::super::{Socket, absent, with_buffer};
use super::{
    CTA_STATUS, CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, IPCTNL_MSG_CT_DELETE, IPCTNL_MSG_CT_NEW, IPS_SEEN_REPLY,
    NESTED, tuple,
};
use crate::config::values::Protocol;

const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;

const IPS_ASSURED: u32 = 4;
const IPS_CONFIRMED: u32 = 8;
const SACK_PERM: u8 = 2;
const BE_LIBERAL: u8 = 8;

/// Messages sent at once: about 20 KiB to the kernel, and a refusal of each fits into what a socket holds back.
const AT_ONCE: usize = 100;

/// How far a connection is that is entered (`enum tcp_conntrack`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The client asked for it.
    SynSent,
    /// The server agreed.
    SynReceived,
    /// Data goes both ways.
    Established,
    /// One side has ended it.
    FinWait,
}

/// A connection that is not translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Who asked for it.
    pub client: SocketAddr,
    /// Who was asked.
    pub server: SocketAddr,
    /// How far it is.
    pub phase: Phase,
    /// Seconds until it is forgotten unless a packet is seen.
    pub timeout: u32,
}

/// What became of entries.
#[derive(Debug, Default)]
pub struct Entered {
    /// Which of them are known only since then, by their place.
    pub new: Vec<usize>,
    /// How many are not known, and why the last of them is not.
    pub refused: Option<(usize, io::Error)>,
}

/// Enters connections; one that is known already, from either end, stays as it is. Of the window of each nothing is
/// known, so the kernel is told to be liberal about it, as it is when it takes up a connection in the middle.
pub fn enter(entries: &[Entry]) -> Entered {
    let mut entered = Entered::default();
    let mut refuse = |count: usize, errno: Errno| {
        let refused = entered.refused.get_or_insert((0, errno.into()));
        *refused = (refused.0 + count, explained(errno));
    };
    match each(entries, new) {
        Err(errno) => refuse(entries.len(), errno),
        Ok(verdicts) => {
            for (place, verdict) in verdicts.into_iter().enumerate() {
                match verdict {
                    None => entered.new.push(place),
                    Some(Errno::EEXIST) => {}
                    Some(errno) => refuse(1, errno),
                }
            }
        }
    }
    entered
}

/// Lets the kernel forget connections that were entered and are no more. That one is not known is no error.
///
/// # Errors
/// The kernel's.
pub fn leave(entries: &[Entry]) -> io::Result<()> {
    let refused = each(entries, |entry| {
        let (family, original) = tuple(Protocol::Tcp, entry.client, entry.server);
        Request::new(
            IPCTNL_MSG_CT_DELETE,
            0,
            &[number(family), 0, 0, 0],
            &[(CTA_TUPLE_ORIG | NESTED, &original)],
        )
    })?;
    match refused.into_iter().flatten().find(|errno| *errno != Errno::ENOENT) {
        Some(errno) => Err(errno.into()),
        None => Ok(()),
    }
}

fn explained(errno: Errno) -> io::Error {
    match errno {
        // What the kernel says of a table that is full (`__nf_conntrack_alloc`).
        Errno::ENOMEM => {
            io::Error::other("the table is full, see the setting net.netfilter.nf_conntrack_max")
        }
        errno if absent(errno) => {
            io::Error::new(io::ErrorKind::Unsupported, "this kernel lacks nf_conntrack_netlink")
        }
        errno => errno.into(),
    }
}

fn new(entry: &Entry) -> Request {
    let (family, original) = tuple(Protocol::Tcp, entry.client, entry.server);
    let (_, reply) = tuple(Protocol::Tcp, entry.server, entry.client);
    let (state, status) = match entry.phase {
        Phase::SynSent => (1u8, IPS_CONFIRMED),
        Phase::SynReceived => (2, IPS_CONFIRMED | IPS_SEEN_REPLY),
        Phase::Established => (3, IPS_CONFIRMED | IPS_SEEN_REPLY | IPS_ASSURED),
        Phase::FinWait => (4, IPS_CONFIRMED | IPS_SEEN_REPLY | IPS_ASSURED),
    };
    // Values, and which of the bits are meant.
    let flags = [SACK_PERM | BE_LIBERAL; 2];
    let tcp = nest(&[
        (CTA_PROTOINFO_TCP_STATE, &[state]),
        (CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &flags),
        (CTA_PROTOINFO_TCP_FLAGS_REPLY, &flags),
    ]);
    Request::new(
        IPCTNL_MSG_CT_NEW,
        NLM_F_CREATE | NLM_F_EXCL,
        &[number(family), 0, 0, 0],
        &[
            (CTA_TUPLE_ORIG | NESTED, &original),
            (CTA_TUPLE_REPLY | NESTED, &reply),
            (CTA_STATUS, &status.to_be_bytes()),
            (CTA_TIMEOUT, &entry.timeout.to_be_bytes()),
            (CTA_PROTOINFO | NESTED, &nest(&[(CTA_PROTOINFO_TCP | NESTED, &tcp)])),
        ],
    )
}

/// Sends a request for each, many at once; what the kernel says to each, `None` where it did it.
pub(super) fn each<T>(items: &[T], request: impl Fn(&T) -> Request) -> Result<Vec<Option<Errno>>, Errno> {
    let mut verdicts = vec![None; items.len()];
    if items.is_empty() {
        return Ok(verdicts);
    }
    let socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
    let mut bytes = Vec::new();
    let mut rest = items.iter().zip(&mut verdicts).peekable();
    // The first one goes alone: a kernel that knows nothing of it looks for its module each time it is asked.
    let mut room = 1;
    while rest.peek().is_some() {
        bytes.clear();
        let (items, mut said): (Vec<&T>, Vec<_>) = rest.by_ref().take(room).unzip();
        for (place, item) in items.iter().enumerate() {
            let from = bytes.len();
            bytes.extend_from_slice(request(item).bytes());
            // The kernel answers only what it does not do, and the last one, by which the end is known.
            number_message(&mut bytes[from..], place, place + 1 == items.len());
        }
        sendto(socket.fd.as_raw_fd(), &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        hear(&socket, &mut said)?;
        if let (1, Some(Some(errno))) = (room, said.first())
            && absent(*errno)
            && *errno != Errno::ENOENT
        {
            return Err(*errno);
        }
        room = AT_ONCE;
    }
    socket.keep();
    Ok(verdicts)
}

fn number_message(message: &mut [u8], place: usize, last: bool) {
    if let (true, Some(flags)) = (last, message.get_mut(6..8)) {
        let ack = NLM_F_ACK.to_ne_bytes();
        flags.iter_mut().zip(ack).for_each(|(flag, ack)| *flag |= ack);
    }
    if let Some(sequence) = message.get_mut(8..12) {
        sequence.copy_from_slice(&u32::try_from(place).unwrap_or(u32::MAX).to_ne_bytes());
    }
    debug_assert!(message.len() > HEADER);
}

fn hear(socket: &Socket, verdicts: &mut [&mut Option<Errno>]) -> Result<(), Errno> {
    let last = verdicts.len().saturating_sub(1);
    with_buffer(|buffer| {
        loop {
            let size = match recv(socket.fd.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT),
                other => other?,
            };
            let answer = buffer.get(..size).ok_or(Errno::EMSGSIZE)?;
            for message in message::parse(answer) {
                let place = usize::try_from(message.sequence).unwrap_or(usize::MAX);
                let Some(verdict) = verdicts.get_mut(place) else { continue };
                if let Some(Err(errno)) = message.end() {
                    **verdict = Some(Errno::from_raw(errno));
                }
                if place == last && message.end().is_some() {
                    return Ok(());
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;

    #[test]
    fn an_entry_has_the_kernels_layout() {
        let (client, server) = ("192.0.2.1:7".parse().unwrap(), "198.51.100.9:80".parse().unwrap());
        let request = new(&Entry { client, server, phase: Phase::Established, timeout: 432_000 });
        let mut bytes = request.bytes().to_vec();
        number_message(&mut bytes, 3, true);
        assert_eq!(bytes[4..6], 0x100u16.to_ne_bytes());
        assert_eq!(
            bytes[6..8],
            0x605u16.to_ne_bytes(),
            "a request to create what is not there, and to say so"
        );
        assert_eq!(bytes[8..12], 3u32.to_ne_bytes());
        let all = &bytes[HEADER + 4..];
        assert_eq!(find(all, CTA_STATUS), Some(&[0, 0, 0, 14][..]));
        assert_eq!(find(all, CTA_TIMEOUT), Some(&[0, 6, 0x97, 0x80][..]));
        let tcp = find(find(all, CTA_PROTOINFO).unwrap(), CTA_PROTOINFO_TCP).unwrap();
        assert_eq!(find(tcp, CTA_PROTOINFO_TCP_STATE), Some(&[3][..]));
        assert_eq!(find(tcp, CTA_PROTOINFO_TCP_FLAGS_REPLY), Some(&[10, 10][..]));
        let reply = find(find(all, CTA_TUPLE_REPLY).unwrap(), super::super::CTA_TUPLE_IP).unwrap();
        assert_eq!(find(reply, super::super::CTA_IP_V4_SRC), Some(&[198, 51, 100, 9][..]));
    }
}
