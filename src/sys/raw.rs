//! Single packets that no socket of a program ever takes: a UDP datagram with a wrong checksum, which every rule sees and
//! the kernel drops in front of the socket, and a TCP packet that asks for a connection nobody completes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recv, sendto, socket,
};

use crate::config::values::Protocol;

const TCP: u8 = 6;
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;
/// The same in words of 32 bits.
const WORDS: u8 = 5;
/// Flags of TCP (RFC 9293, section 3.1).
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A raw socket.
#[derive(Debug)]
pub struct Raw(OwnedFd);

impl AsFd for Raw {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Raw {
    /// One of a protocol and an address's family, which sends from that address. Needs `CAP_NET_RAW`.
    ///
    /// # Errors
    /// The kernel's: not permitted, or the address is not this host's.
    pub fn open(protocol: Protocol, from: IpAddr) -> io::Result<Self> {
        let family = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let protocol = match protocol {
            Protocol::Tcp => SockProtocol::Tcp,
            Protocol::Udp => SockProtocol::Udp,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(family, SockType::Raw, flags, protocol)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
        Ok(Self(fd))
    }

    /// Sends what comes behind the IP header.
    ///
    /// # Errors
    /// The kernel's; a rule that drops it there and then is "operation not permitted".
    pub fn send(&self, bytes: &[u8], to: IpAddr) -> io::Result<()> {
        // A port would be taken for a protocol.
        let to = SockaddrStorage::from(SocketAddr::new(to, 0));
        sendto(self.0.as_raw_fd(), bytes, &to, MsgFlags::empty())?;
        Ok(())
    }

    /// The next packet that waits here, if it is what a TCP packet with these ends is answered with.
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::WouldBlock`] if none waits.
    pub fn answer(&self, from: SocketAddr, to: SocketAddr) -> io::Result<Option<Knocked>> {
        let mut bytes = [0; 256];
        let size = recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
        let packet = bytes.get(..size).unwrap_or_default();
        // IPv4 hands its own header out too.
        let header = match (from, packet.first()) {
            (SocketAddr::V4(_), Some(first)) => usize::from(first & 15) * 4,
            _ => 0,
        };
        Ok(packet.get(header..).and_then(|tcp| knocked(tcp, from.port(), to.port())))
    }
}

/// Who is behind a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knocked {
    /// Somebody who would take a connection.
    Taken,
    /// Nobody, or somebody who does not want one.
    Refused,
}

fn knocked(tcp: &[u8], own: u16, other: u16) -> Option<Knocked> {
    let port = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    if port(0)? != other || port(2)? != own {
        return None;
    }
    match *tcp.get(13)? {
        flags if flags & RST != 0 => Some(Knocked::Refused),
        flags if flags & (SYN | ACK) == SYN | ACK => Some(Knocked::Taken),
        _ => None,
    }
}

/// The first packet of a TCP connection.
pub fn syn(from: SocketAddr, to: SocketAddr, sequence: u32) -> Vec<u8> {
    const WINDOW: u16 = 65535;
    let mut packet = Vec::with_capacity(TCP_HEADER);
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([WORDS << 4, SYN]);
    packet.extend(WINDOW.to_be_bytes());
    packet.extend([0; 4]);
    let sum = checksum(TCP, from.ip(), to.ip(), &packet);
    packet[16..18].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A UDP datagram.
pub fn udp(from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let size = u16::try_from(UDP_HEADER + bytes.len()).unwrap_or(u16::MAX);
    let mut packet = Vec::with_capacity(UDP_HEADER + bytes.len());
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend(size.to_be_bytes());
    packet.extend([0; 2]);
    packet.extend(bytes);
    // None is written as zero, so that a sum of zero is written the other way (RFC 768).
    let sum = Some(checksum(UDP, from.ip(), to.ip(), &packet)).filter(|sum| *sum != 0).unwrap_or(u16::MAX);
    packet[6..8].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The same with a wrong checksum, also after address translation, which corrects by the difference.
pub fn spoiled_udp(from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut packet = udp(from, to, bytes);
    let sum = u16::from_be_bytes([packet[6], packet[7]]);
    let wrong = if sum == 0x5555 { 0xaaaa } else { 0x5555 };
    packet[6..8].copy_from_slice(&u16::to_be_bytes(wrong));
    packet
}

/// The Internet checksum over the addresses, the protocol, the length and the packet (RFC 1071; RFC 8200, section 8.1).
fn checksum(protocol: u8, from: IpAddr, to: IpAddr, packet: &[u8]) -> u16 {
    let mut all = Vec::new();
    for addr in [from, to] {
        match addr {
            IpAddr::V4(four) => all.extend(four.octets()),
            IpAddr::V6(six) => all.extend(six.octets()),
        }
    }
    all.extend([0, protocol]);
    all.extend(u16::try_from(packet.len()).unwrap_or(u16::MAX).to_be_bytes());
    all.extend(packet);
    let mut sum: u32 =
        all.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// How many UDP datagrams with a wrong checksum have come to where sockets are looked for, since the calling thread's
/// network namespace was made. Every rule of the firewall has let those pass.
///
/// # Errors
/// `/proc` is not mounted, or the kernel does not count them.
pub fn spoiled_so_far(family_of: IpAddr) -> io::Result<u64> {
    let file = if family_of.is_ipv4() { "snmp" } else { "snmp6" };
    let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}"))?;
    let count = if family_of.is_ipv4() { count_of_four(&text) } else { count_of_six(&text) };
    count.ok_or_else(|| {
        io::Error::new(io::ErrorKind::Unsupported, "the kernel does not count checksum errors")
    })
}

/// A line of names and one of numbers, both begin with the protocol.
fn count_of_four(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with("Udp: ")).map(str::split_ascii_whitespace);
    let place = lines.next()?.position(|name| name == "InCsumErrors")?;
    lines.next()?.nth(place)?.parse().ok()
}

fn count_of_six(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Udp6InCsumErrors"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_right_or_wrong_as_asked() {
        for (from, to) in [("192.0.2.1:7", "192.0.2.9:53"), ("[2001:db8::1]:7", "[::1]:53")] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            // Over a packet with its sum in place the sum is zero.
            assert_eq!(checksum(UDP, from.ip(), to.ip(), &udp(from, to, b"odd")), 0);
            assert_eq!(checksum(TCP, from.ip(), to.ip(), &syn(from, to, 77)), 0);
            assert_ne!(checksum(UDP, from.ip(), to.ip(), &spoiled_udp(from, to, b"odd")), 0);
        }
    }

    #[test]
    fn answers_are_told_apart() {
        let (from, to) = ("192.0.2.1:7".parse().unwrap(), "192.0.2.9:53".parse().unwrap());
        let with = |flags: u8| {
            let mut packet = syn(to, from, 1);
            packet[13] = flags;
            knocked(&packet, 7, 53)
        };
        assert_eq!(with(SYN | ACK), Some(Knocked::Taken));
        assert_eq!(with(RST | ACK), Some(Knocked::Refused));
        assert_eq!(with(ACK), None);
        assert_eq!(knocked(&syn(from, to, 1), 7, 53), None, "one's own");
        assert_eq!(knocked(b"short", 7, 53), None);
    }

    #[test]
    fn counts_are_read_by_name() {
        let four = "Udp: InDatagrams InCsumErrors X\nUdp: 1 22 3\nUdpLite: InCsumErrors\n";
        assert_eq!(count_of_four(four), Some(22));
        assert_eq!(count_of_four("Tcp: a\n"), None);
        assert_eq!(count_of_six("Udp6X 1\nUdp6InCsumErrors                \t7\n"), Some(7));
        assert!(spoiled_so_far(IpAddr::from([127, 0, 0, 1])).is_ok());
    }
}
