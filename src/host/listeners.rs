//! Sockets that take what arrives, with their owners.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use crate::config::values::Protocol;
use crate::plan::Family;
use crate::sys::netlink::sockets::{Waiting, waiting};

/// Every listening socket of a family and protocol in this network namespace.
///
/// # Errors
/// Neither netlink nor `/proc` tells.
pub fn listeners(protocol: Protocol, family: Family) -> io::Result<Vec<Waiting>> {
    waiting(family, protocol).or_else(|_| in_proc(protocol, family))
}

/// The same on a kernel without socket diagnostics.
fn in_proc(protocol: Protocol, family: Family) -> io::Result<Vec<Waiting>> {
    let name = match (protocol, family) {
        (Protocol::Tcp, Family::V4) => "tcp",
        (Protocol::Tcp, Family::V6) => "tcp6",
        (Protocol::Udp, Family::V4) => "udp",
        (Protocol::Udp, Family::V6) => "udp6",
    };
    // Not /proc/net: that is the network namespace of the process's first thread.
    match std::fs::read_to_string(format!("/proc/thread-self/net/{name}")) {
        Ok(table) => Ok(parse(&table, protocol, family)),
        Err(error) if family == Family::V6 && error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Reads lines such as `0: 0100007F:1F90 00000000:0000 0A … uid timeout inode`
/// (`Documentation/networking/proc_net_tcp.rst` of the kernel).
fn parse(table: &str, protocol: Protocol, family: Family) -> Vec<Waiting> {
    let state = match protocol {
        Protocol::Tcp => "0A",
        Protocol::Udp => "07",
    };
    let line = |line: &str| {
        let columns: Vec<_> = line.split_ascii_whitespace().collect();
        let (address, port) = columns.get(1)?.split_once(':')?;
        if *columns.get(3)? != state {
            return None;
        }
        Some(Waiting {
            address: address_of(address, family)?,
            port: u16::from_str_radix(port, 16).ok()?,
            interface: 0,
            // Not told here, as the interface is not; it is what sockets do unless their owner or the host asks for something else.
            both_families: family == Family::V6,
            uid: columns.get(7)?.parse().ok()?,
            inode: columns.get(9)?.parse().ok()?,
        })
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// An address as words of 32 bits, each in the machine's byte order.
fn address_of(hex: &str, family: Family) -> Option<IpAddr> {
    let word = |nth: usize| {
        let digits = hex.get(nth * 8..nth * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match family {
        Family::V4 => Some(Ipv4Addr::from(word(0)?).into()),
        Family::V6 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            Some(IpAddr::from(<[u8; 16]>::try_from(words.concat()).ok()?).to_canonical())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn proc_tells_address_owner_and_inode() {
        let table = "head\n   0: 0100007F:3A99 00000000:0000 0A 00000000:00000000 00:00000000 00000000  5678        0 4242 1 0\n\
                     1: 0100007F:3A9A 00000000:0000 01 00000000:00000000 00:00000000 00000000  0 0 1 1 0\nodd\n";
        let found = parse(table, Protocol::Tcp, Family::V4);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].address, IpAddr::from([127, 0, 0, 1]));
        assert_eq!((found[0].port, found[0].uid, found[0].inode), (15001, 5678, 4242));
        let six = "h\n 0: 00000000000000000000000001000000:3ACD 0:0 07 a b c 7 0 9\n";
        assert_eq!(parse(six, Protocol::Udp, Family::V6)[0].address, IpAddr::from(Ipv6Addr::LOCALHOST));
    }

    #[test]
    fn both_ways_agree() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let of = |all: Vec<Waiting>| all.into_iter().find(|l| l.port == port).unwrap();
        let mut direct = of(listeners(Protocol::Udp, Family::V4).unwrap());
        direct.both_families = false;
        assert_eq!(direct, of(in_proc(Protocol::Udp, Family::V4).unwrap()));
    }
}
