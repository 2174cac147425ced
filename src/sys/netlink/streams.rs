//! The TCP connections of this network namespace, with both ends and how far each is.
//!
//! Layouts are those of the kernel's `include/uapi/linux/inet_diag.h`, states those of `include/net/tcp_states.h`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::message::{Message, number, u32_at};
use super::sockets::{INODE, SOCK_DIAG_BY_FAMILY, SOURCE, UID, dump};
use crate::plan::Family;

const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;
/// All that may still send or take data, or is about to.
const LIVE: [u8; 8] = [ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING];

/// A connection, as the socket of one end knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream {
    /// This end.
    pub local: SocketAddr,
    /// The other one.
    pub remote: SocketAddr,
    /// How far it is.
    pub stage: Stage,
    /// Whose this end is, as long as it has a process.
    pub uid: u32,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// This end asked for it.
    Asked,
    /// The other end asked for it, and this one agreed.
    Agreed,
    /// It carries data, in one direction at least.
    Open,
    /// No process has it any more; the kernel sends what is left.
    Ending,
}

/// Both ends of each connection of the calling thread's network namespace whose socket is of this family; an IPv6
/// socket may have a connection of IPv4, which is told as such.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::Unsupported`] where it cannot tell.
pub fn streams(family: Family, mut each: impl FnMut(Stream)) -> io::Result<()> {
    let states = LIVE.iter().fold(0, |all, state| all | 1 << state);
    dump(family, 6, states, |message| {
        if let Some(stream) = read(message) {
            each(stream);
        }
    })
}

fn read(message: &Message<'_>) -> Option<Stream> {
    let bytes = message.payload;
    if message.kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let [family, in_state, _, _, local_high, local_low, high, low] = bytes.first_chunk::<8>()?;
    let six = *family == number(Family::V6);
    let address = |at: usize| -> Option<IpAddr> {
        let bytes: &[u8; 16] = bytes.get(at..)?.first_chunk()?;
        let [a, b, c, d, ..] = *bytes;
        Some(if six { IpAddr::from(*bytes).to_canonical() } else { Ipv4Addr::new(a, b, c, d).into() })
    };
    let owned = u32_at(bytes, INODE)? != 0;
    let stage = match *in_state {
        SYN_SENT => Stage::Asked,
        SYN_RECV => Stage::Agreed,
        ESTABLISHED | CLOSE_WAIT => Stage::Open,
        // A program that said all it had to say may wait for an answer as long as it likes.
        FIN_WAIT1 | FIN_WAIT2 if owned => Stage::Open,
        FIN_WAIT1 | FIN_WAIT2 | LAST_ACK | CLOSING => Stage::Ending,
        _ => return None,
    };
    Some(Stream {
        local: SocketAddr::new(address(SOURCE)?, u16::from_be_bytes([*local_high, *local_low])),
        remote: SocketAddr::new(address(SOURCE + 16)?, u16::from_be_bytes([*high, *low])),
        stage,
        uid: u32_at(bytes, UID)?,
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;

    fn between(family: Family, local: SocketAddr, remote: SocketAddr) -> Option<Vec<Stage>> {
        let mut found = Vec::new();
        let wanted = |stream: &Stream| (stream.local, stream.remote) == (local, remote);
        match streams(family, |stream| found.extend(wanted(&stream).then_some(stream.stage))) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => None,
            told => told.map(|()| Some(found)).unwrap(),
        }
    }

    #[test]
    fn both_ends_are_told_and_a_half_that_is_closed_is_still_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let (here, there) = (client.local_addr().unwrap(), server.local_addr().unwrap());
        let Some(found) = between(Family::V4, here, there) else { return };
        assert_eq!(found, [Stage::Open]);
        assert_eq!(between(Family::V4, there, here), Some(vec![Stage::Open]));
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(between(Family::V4, here, there), Some(vec![Stage::Open]));
        drop(client);
        assert_eq!(between(Family::V4, here, there), Some(vec![Stage::Ending]));
    }

    #[test]
    fn a_connection_of_ipv4_is_one_whatever_its_socket() {
        let Ok(listener) = TcpListener::bind("[::]:0") else { return };
        let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listener.local_addr().unwrap().port());
        let client = TcpStream::connect(to).unwrap();
        let (_server, _) = listener.accept().unwrap();
        let Some(found) = between(Family::V6, to, client.local_addr().unwrap()) else { return };
        assert_eq!(found, [Stage::Open]);
    }

    #[test]
    fn short_messages_are_passed_over() {
        let mut payload = [0; 72];
        payload[..8].copy_from_slice(&[2, ESTABLISHED, 0, 0, 0x1f, 0x90, 0, 22]);
        let told = |payload| read(&Message { kind: SOCK_DIAG_BY_FAMILY, payload, ..Message::default() });
        let stream = told(&payload).unwrap();
        assert_eq!((stream.local.port(), stream.remote.port()), (8080, 22));
        for cut in 0..payload.len() {
            assert_eq!(told(&payload[..cut]), None);
        }
    }
}
