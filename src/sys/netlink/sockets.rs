//! Who has which port.
//!
//! Layouts are those of the kernel's `include/uapi/linux/inet_diag.h`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::sys::socket::SockProtocol;

use super::message::{Message, NLM_F_DUMP, Request, attributes, number, u32_at};
use super::{absent, ask};
use crate::config::values::Protocol;
use crate::plan::Family;

pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST: usize = 56;
const TCP_TIME_WAIT: u8 = 6;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
/// The last state, of a request for a connection (`TCP_NEW_SYN_RECV`).
const TCP_LAST: u8 = 12;
/// Behind family, state and timers (4), and the two ports.
pub(super) const SOURCE: usize = 8;
/// Behind family, state and timers (4), the addresses (48) and three counters (12).
pub(super) const UID: usize = 64;
/// Behind family, state and timers (4), the two ports (4) and the addresses (32).
const INTERFACE: usize = 40;
pub(super) const INODE: usize = 68;
/// The size of `struct inet_diag_msg`; attributes follow.
const ANSWER: usize = 72;
const INET_DIAG_SKV6ONLY: u16 = 11;

/// A socket that waits for whoever comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The address that it is bound to; the unspecified one takes all. An IPv6 socket can have an IPv4 address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The number of the one interface by which it takes traffic (`SO_BINDTODEVICE`), 0 for all.
    pub interface: u32,
    /// Whether it takes IPv4 too although its address is an IPv6 one.
    pub both_families: bool,
    /// The user who made it.
    pub uid: u32,
    /// Its number, by which `/proc/PID/fd` names it.
    pub inode: u32,
}

/// The listening TCP sockets, or the unconnected UDP ones, of a family in the calling thread's network namespace.
/// An IPv6 one may take IPv4 as well.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::Unsupported`] where it cannot tell.
pub fn waiting(family: Family, protocol: Protocol) -> io::Result<Vec<Waiting>> {
    let (protocol, state) = match protocol {
        Protocol::Tcp => (6, TCP_LISTEN),
        Protocol::Udp => (17, TCP_CLOSE),
    };
    let mut found = Vec::new();
    dump(family, protocol, 1 << state, |message| found.extend(read(message, state)))?;
    Ok(found)
}

/// A TCP connection that may still send something: begun, open, or ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// This end.
    pub from: SocketAddr,
    /// The other one.
    pub to: SocketAddr,
    /// Whether no program has it yet: it came about, and waits to be accepted.
    pub unaccepted: bool,
}

/// The TCP connections of a family that may still send something.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::Unsupported`] where it cannot tell.
pub fn connections(family: Family) -> io::Result<Vec<Connection>> {
    let quiet = [TCP_TIME_WAIT, TCP_CLOSE, TCP_LISTEN];
    let states = (1..=TCP_LAST).filter(|state| !quiet.contains(state)).fold(0, |all, state| all | 1 << state);
    let mut found = Vec::new();
    dump(family, 6, states, |message| found.extend(read_connection(message)))?;
    Ok(found)
}

fn read_connection(message: &Message<'_>) -> Option<Connection> {
    /// One that a program closed has no number either, but another state.
    const OPEN: [u8; 2] = [1, 8];
    let (from, to) = ends(message)?;
    let [_, state, _, _, from_high, from_low, to_high, to_low, ..] = *message.payload else { return None };
    Some(Connection {
        from: SocketAddr::new(from, u16::from_be_bytes([from_high, from_low])),
        to: SocketAddr::new(to, u16::from_be_bytes([to_high, to_low])),
        unaccepted: OPEN.contains(&state) && u32_at(message.payload, INODE)? == 0,
    })
}

/// A TCP socket that is tied to one interface (`SO_BINDTODEVICE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The interface's number.
    pub interface: u32,
    /// Where it is connected to, or wants to.
    pub to: IpAddr,
    /// The user who made it.
    pub uid: u32,
    /// Its number, by which `/proc/PID/fd` names it.
    pub inode: u32,
}

/// TCP connections of a family, begun or open, whose socket is tied to an interface.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::Unsupported`] where it cannot tell.
pub fn bound(family: Family) -> io::Result<Vec<Bound>> {
    const ESTABLISHED: u8 = 1;
    const SYN_SENT: u8 = 2;
    let mut found = Vec::new();
    dump(family, 6, 1 << ESTABLISHED | 1 << SYN_SENT, |message| found.extend(read_bound(message)))?;
    Ok(found)
}

fn read_bound(message: &Message<'_>) -> Option<Bound> {
    let (_, to) = ends(message)?;
    let bytes = message.payload;
    let interface = u32_at(bytes, INTERFACE).filter(|interface| *interface != 0)?;
    Some(Bound { interface, to, uid: u32_at(bytes, UID)?, inode: u32_at(bytes, INODE)? })
}

pub(super) fn dump(
    family: Family,
    protocol: u8,
    states: u32,
    mut each: impl FnMut(&Message<'_>),
) -> io::Result<()> {
    let mut header = vec![0; REQUEST];
    header[..2].copy_from_slice(&[number(family), protocol]);
    header[4..8].copy_from_slice(&states.to_ne_bytes());
    let request = Request::new(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &header, &[]);
    let asked = ask(SockProtocol::NetlinkSockDiag, &request, |message| each(message));
    match asked {
        Ok(()) => Ok(()),
        Err(errno) if absent(errno) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel does not tell of sockets"))
        }
        Err(errno) => Err(errno.into()),
    }
}

fn ends(message: &Message<'_>) -> Option<(IpAddr, IpAddr)> {
    let bytes = message.payload;
    if message.kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let six = *bytes.first()? == number(Family::V6);
    let address = |at: usize| -> Option<IpAddr> {
        let bytes: &[u8; 16] = bytes.get(at..)?.first_chunk()?;
        let [a, b, c, d, ..] = *bytes;
        // An IPv6 socket may have a connection of IPv4.
        Some(if six { IpAddr::from(*bytes).to_canonical() } else { Ipv4Addr::new(a, b, c, d).into() })
    };
    Some((address(SOURCE)?, address(SOURCE + 16)?))
}

fn read(message: &Message<'_>, wanted: u8) -> Option<Waiting> {
    let bytes = message.payload;
    let [family, state, _, _, high, low, _, _, address @ ..] = bytes else { return None };
    if message.kind != SOCK_DIAG_BY_FAMILY || *state != wanted {
        return None;
    }
    let address: &[u8; 16] = address.first_chunk()?;
    let six = *family == number(Family::V6);
    let mut flags = attributes(bytes.get(ANSWER..)?).filter(|(kind, _)| *kind == INET_DIAG_SKV6ONLY);
    Some(Waiting {
        address: if six {
            IpAddr::from(*address).to_canonical()
        } else {
            Ipv4Addr::new(address[0], address[1], address[2], address[3]).into()
        },
        port: u16::from_be_bytes([*high, *low]),
        interface: u32_at(bytes, INTERFACE)?,
        both_families: six && flags.next().is_none_or(|(_, value)| value.first() == Some(&0)),
        uid: u32_at(bytes, UID)?,
        inode: u32_at(bytes, INODE)?,
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn own_sockets_are_among_them() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        for (protocol, port) in [
            (Protocol::Tcp, tcp.local_addr().unwrap().port()),
            (Protocol::Udp, udp.local_addr().unwrap().port()),
        ] {
            let found = match waiting(Family::V4, protocol) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => return,
                other => other.unwrap(),
            };
            let ours = found.iter().find(|socket| socket.port == port).expect("our own socket");
            assert_eq!((ours.uid, ours.address.is_loopback(), ours.both_families), (uid, true, false));
            assert!(ours.inode > 0);
        }
    }

    #[test]
    fn sockets_of_both_families_are_told() {
        let both = TcpListener::bind("[::]:0").unwrap();
        let port = both.local_addr().unwrap().port();
        let Ok(found) = waiting(Family::V6, Protocol::Tcp) else { return };
        let ours = found.iter().find(|socket| socket.port == port).expect("our own socket");
        assert_eq!((ours.address.is_unspecified(), ours.both_families), (true, true));
    }

    #[test]
    fn connections_are_told_until_they_are_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here: IpAddr = "127.45.67.89".parse().unwrap();
        let among = || {
            let Ok(all) = connections(Family::V4) else { return None };
            Some(all.iter().filter(|at| [at.from.ip(), at.to.ip()].contains(&here)).count())
        };
        let fd = crate::sys::socket::tcp(here).unwrap();
        crate::sys::socket::bind_to(&fd, (here, 0).into()).unwrap();
        crate::sys::socket::begin_connect(&fd, listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let Some(found) = among() else { return };
        assert_eq!(found, 2, "each end");
        crate::sys::socket::reset_on_close(&accepted).unwrap();
        drop(accepted);
        drop(fd);
        assert_eq!(among(), Some(0));
    }

    #[test]
    fn sockets_that_are_tied_to_an_interface_are_told() {
        crate::sys::netns::testing::apart(|| {
            super::super::link::bring_up("lo").unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let to = listener.local_addr().unwrap();
            let free = crate::sys::socket::tcp(to.ip()).unwrap();
            crate::sys::socket::begin_connect(&free, to).unwrap();
            let Ok(none) = bound(Family::V4) else { return };
            assert_eq!(none, []);
            let tied = crate::sys::socket::tcp(to.ip()).unwrap();
            crate::sys::socket::bind_to_device(&tied, "lo").unwrap();
            crate::sys::socket::begin_connect(&tied, to).unwrap();
            let one = bound(Family::V4).unwrap();
            assert_eq!(one.iter().map(|one| (one.interface, one.to)).collect::<Vec<_>>(), [(1, to.ip())]);
        });
    }

    #[test]
    fn short_messages_are_passed_over() {
        let payload = [2, TCP_LISTEN, 0, 0, 0x1f, 0x90, 0, 0];
        let message = Message { kind: SOCK_DIAG_BY_FAMILY, payload: &payload, ..Message::default() };
        assert_eq!(read(&message, TCP_LISTEN), None);
    }
}
