//! Connections as connection tracking first sees them: where they were meant to go, where their packets really go.
//!
//! Layouts are those of the kernel's `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};

const NEW: u16 = 1 << 8;
const DELETE: u16 = NEW | 2;
/// The group that is told of new connections, as a bit.
const GROUP_NEW: u32 = 1;
/// Milliseconds; nothing takes so long unless it never comes.
const PATIENCE: u16 = 10_000;

/// A new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    /// The transport protocol's number.
    pub protocol: u8,
    pub source: SocketAddr,
    /// Before any translation.
    pub destination: SocketAddr,
    /// The other end, after translation.
    pub answers_from: SocketAddr,
    /// To whom that end answers.
    pub answers_to: SocketAddr,
    pub zone: u16,
}

/// News of one network namespace.
pub struct News {
    socket: OwnedFd,
}

impl News {
    /// Of the caller's namespace, from now on.
    pub fn open() -> Self {
        let socket = open(GROUP_NEW);
        Self { socket }
    }

    /// What arrived since the last call; waits for nothing.
    pub fn arrived(&self) -> Vec<Tracked> {
        let mut buffer = vec![0; 1 << 16];
        let mut all = Vec::new();
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(size) => all.extend(messages(&buffer[..size]).filter_map(read)),
                Err(Errno::EAGAIN) => return all,
                Err(Errno::EINTR) => {}
                Err(errno) => panic!("news of connections: {errno}"),
            }
        }
    }

    /// What arrives until `last` does, that one left out.
    #[track_caller]
    pub fn until(&self, last: impl Fn(&Tracked) -> bool) -> Vec<Tracked> {
        let mut all = Vec::new();
        loop {
            for tracked in self.arrived() {
                if last(&tracked) {
                    return all;
                }
                all.push(tracked);
            }
            let mut wait = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut wait, PollTimeout::from(PATIENCE)).expect("a wait for news");
            assert_eq!(ready, 1, "a connection never came; so far {all:#?}");
        }
    }
}

/// Every connection that the caller's namespace knows.
pub fn known() -> Vec<Tracked> {
    const GET: u16 = NEW | 1;
    const DONE: u16 = 3;
    let socket = open(0);
    let mut request = Vec::new();
    request.extend(20_u32.to_ne_bytes());
    request.extend(GET.to_ne_bytes());
    // A request for all there is.
    request.extend(0x301_u16.to_ne_bytes());
    request.extend([0; 12]);
    sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty()).expect("a request");
    let mut buffer = vec![0; 1 << 16];
    let mut all = Vec::new();
    loop {
        let size = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("an answer");
        for (kind, payload) in messages(&buffer[..size]) {
            if kind == DONE {
                return all;
            }
            all.extend(read((kind, payload)));
        }
    }
}

/// Forgets every connection of the caller's namespace.
pub fn forget_all() {
    let socket = open(0);
    let mut request = Vec::new();
    request.extend(20_u32.to_ne_bytes());
    request.extend(DELETE.to_ne_bytes());
    // A request that wants an acknowledgement.
    request.extend(5_u16.to_ne_bytes());
    request.extend([0; 12]);
    sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty()).expect("a request");
    let mut answer = [0; 1024];
    let size = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("an answer");
    assert_eq!(answer[..size].get(16..20), Some(&[0; 4][..]), "connections cannot be forgotten");
}

fn open(groups: u32) -> OwnedFd {
    super::lab::in_a_namespace_of_our_own();
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)
            .expect("a netlink socket");
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups)).expect("a netlink address");
    socket
}

/// Messages of a datagram: kind, and what follows the header.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let payload = bytes.get(16..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// The value of an attribute.
fn find(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

fn number(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*value.first_chunk()?))
}

fn read((kind, payload): (u16, &[u8])) -> Option<Tracked> {
    if kind != NEW {
        return None;
    }
    let attributes = payload.get(4..)?;
    let (protocol, source, destination) = tuple(find(attributes, 1)?)?;
    let (_, answers_from, answers_to) = tuple(find(attributes, 2)?)?;
    let zone = find(attributes, 18).and_then(number).unwrap_or(0);
    Some(Tracked { protocol, source, destination, answers_from, answers_to, zone })
}

fn tuple(bytes: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let (ip, transport) = (find(bytes, 1)?, find(bytes, 2)?);
    let address = |v4: u16, v6: u16| -> Option<IpAddr> {
        match find(ip, v4) {
            Some(bits) => Some(IpAddr::from(*bits.first_chunk::<4>()?)),
            None => Some(IpAddr::from(*find(ip, v6)?.first_chunk::<16>()?)),
        }
    };
    let port = |kind: u16| find(transport, kind).and_then(number);
    Some((
        *find(transport, 1)?.first()?,
        SocketAddr::new(address(1, 3)?, port(2)?),
        SocketAddr::new(address(2, 4)?, port(3)?),
    ))
}
