//! Who has which port.
//!
//! Layouts are those of the kernel's `include/uapi/linux/inet_diag.h`.

use std::io;

use nix::sys::socket::SockProtocol;

use super::message::{Message, NLM_F_DUMP, Request, number};
use super::{Socket, absent};
use crate::config::values::Protocol;
use crate::plan::Family;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST: usize = 56;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
/// Behind family, state and timers (4), the addresses (48) and three counters (12).
const UID: usize = 64;

/// A socket that waits for whoever comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Its port.
    pub port: u16,
    /// The user who made it.
    pub uid: u32,
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
    let [_, state, _, _, high, low, ..] = message.payload else { return None };
    let uid = message.payload.get(UID..)?.first_chunk()?;
    (message.kind == SOCK_DIAG_BY_FAMILY && *state == wanted)
        .then_some(Waiting { port: u16::from_be_bytes([*high, *low]), uid: u32::from_ne_bytes(*uid) })
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
            assert!(found.contains(&Waiting { port, uid }), "{protocol:?} {port}: {found:?}");
        }
    }

    #[test]
    fn short_messages_are_passed_over() {
        let payload = [2, TCP_LISTEN, 0, 0, 0x1f, 0x90, 0, 0];
        let message = Message { kind: SOCK_DIAG_BY_FAMILY, payload: &payload, ..Message::default() };
        assert_eq!(read(&message, TCP_LISTEN), None);
    }
}
