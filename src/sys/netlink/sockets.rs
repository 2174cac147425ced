//! Who has which port.
//!
//! Layouts are those of the kernel's `include/uapi/linux/inet_diag.h`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::sys::socket::SockProtocol;

use super::message::{Message, NLM_F_DUMP, Request, attributes, number, u32_at};
use super::{Socket, absent};
use crate::config::values::Protocol;
use crate::plan::Family;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST: usize = 56;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
/// Behind family, state and timers (4), the addresses (48) and three counters (12).
const UID: usize = 64;
const INODE: usize = 68;
/// The size of `struct inet_diag_msg`; attributes follow.
const ANSWER: usize = 72;
const INET_DIAG_SKV6ONLY: u16 = 11;

/// A socket that waits for whoever comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The address that it is bound to; the unspecified one takes all.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
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
    let mut header = vec![0; REQUEST];
    header[..2].copy_from_slice(&[number(family), protocol]);
    header[4..8].copy_from_slice(&(1u32 << state).to_ne_bytes());
    let request = Request::new(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &header, &[]);
    let mut found = Vec::new();
    let asked = Socket::open(SockProtocol::NetlinkSockDiag)
        .and_then(|socket| socket.ask(&request, |message| found.extend(read(message, state))));
    match asked {
        Ok(()) => Ok(found),
        Err(errno) if absent(errno) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel does not tell of sockets"))
        }
        Err(errno) => Err(errno.into()),
    }
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
            Ipv6Addr::from(*address).into()
        } else {
            Ipv4Addr::new(address[0], address[1], address[2], address[3]).into()
        },
        port: u16::from_be_bytes([*high, *low]),
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
    fn short_messages_are_passed_over() {
        let payload = [2, TCP_LISTEN, 0, 0, 0x1f, 0x90, 0, 0];
        let message = Message { kind: SOCK_DIAG_BY_FAMILY, payload: &payload, ..Message::default() };
        assert_eq!(read(&message, TCP_LISTEN), None);
    }
}
