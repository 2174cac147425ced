//! Packets made by hand, put on a cable as they are: from any address, to any address.
#![allow(unsafe_code, reason = "only the raw call takes the address of an interface")]

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// The address of the machine's end of every cable.
pub const HOST: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Numbers of transport protocols.
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// Where frames are sent from: the namespace of the thread that opens it.
pub struct Wire {
    socket: OwnedFd,
}

impl Wire {
    pub fn open() -> Self {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None);
        Self { socket: socket.expect("a packet socket") }
    }

    /// Sends the first packet of a connection out of the interface with this index.
    pub fn send(&self, interface: u32, protocol: u8, source: SocketAddr, destination: SocketAddr) {
        let frame = frame(protocol, source, destination);
        // SAFETY: all of its fields are numbers, for which zero is a value.
        let mut to: libc::sockaddr_ll = unsafe { mem::zeroed() };
        to.sll_family = u16::try_from(libc::AF_PACKET).expect("a small number");
        to.sll_ifindex = i32::try_from(interface).expect("a small number");
        let length = u32::try_from(mem::size_of_val(&to)).expect("a small number");
        // SAFETY: both pointers are to values that live through the call, with their lengths.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                length,
            )
        };
        assert_eq!(usize::try_from(sent).ok(), Some(frame.len()), "{}", io::Error::last_os_error());
    }
}

/// Link, network and transport header; UDP has a byte to say.
fn frame(protocol: u8, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut segment = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    let checksum_at = if protocol == TCP {
        segment.extend([0, 0, 0, 1, 0, 0, 0, 0]);
        // Five words of header; SYN; the window; checksum and urgent pointer.
        segment.extend([0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
        16
    } else {
        segment.extend([0, 9, 0, 0, b'?']);
        6
    };
    let length = u16::try_from(segment.len()).expect("a short packet");
    let addresses = match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => [source.octets(), destination.octets()].concat(),
        (IpAddr::V6(source), IpAddr::V6(destination)) => [source.octets(), destination.octets()].concat(),
        mixed => panic!("two families: {mixed:?}"),
    };
    let covered = [&addresses[..], &[0, protocol], &length.to_be_bytes(), &segment].concat();
    segment[checksum_at..checksum_at + 2].copy_from_slice(&checksum(&covered));

    let mut frame = [HOST, SENDER].concat();
    if source.is_ipv4() {
        frame.extend([8, 0]);
        let mut header = vec![0x45, 0];
        header.extend((length + 20).to_be_bytes());
        header.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
        header.extend(&addresses);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum);
        frame.extend(header);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([protocol, 64]);
        frame.extend(&addresses);
    }
    frame.extend(segment);
    frame
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(!sum & 0xffff).expect("two bytes").to_be_bytes()
}
