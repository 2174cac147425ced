//! The number that `nf_tables` raises with every change, whoever makes it.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};

const GETGEN: u16 = (10 << 8) | 16;
const NEWGEN: u16 = (10 << 8) | 15;

/// The generation of the caller's network namespace.
pub fn nft_generation() -> u32 {
    ask().expect("nf_tables tells its generation")
}

fn ask() -> io::Result<u32> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    // A header without attributes (length, type, flags REQUEST, sequence, port) and an empty nfgenmsg.
    let mut request = Vec::new();
    request.extend(20_u32.to_ne_bytes());
    request.extend(GETGEN.to_ne_bytes());
    request.extend(1_u16.to_ne_bytes());
    request.extend([0; 12]);
    sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut reply = [0; 4096];
    let length = recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
    let reply = &reply[..length];
    let word = |at: usize| reply.get(at..at + 2).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    if word(4) != Some(NEWGEN) {
        return Err(io::Error::other(format!("an unexpected answer: {reply:?}")));
    }
    // The first attribute, NFTA_GEN_ID: length, type, then the number in network order.
    match (word(22), reply.get(24..28)) {
        (Some(1), Some(id)) => Ok(u32::from_be_bytes([id[0], id[1], id[2], id[3]])),
        _ => Err(io::Error::other(format!("no generation in {reply:?}"))),
    }
}
