//! Interfaces, addresses and routes: as much as it takes to make a pair of connected interfaces for a moment.
//!
//! Everything happens in the network namespace of the calling thread. Addresses and routes of an interface go with
//! it, and it goes with the namespace of its other end, so nothing of this outlives the process that made it.
//!
//! Layouts are those of the kernel's `include/uapi/linux/{rtnetlink,if_link,if_addr,veth}.h`.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::{LinkAddr, SockProtocol};

use super::message::{Message, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, Request, nest};
use super::{absent, ask};
use crate::sys::signal;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IFLA_NET_NS_FD: u16 = 28;
/// `IPV4_DEVCONF_FORWARDING` of `include/uapi/linux/ip.h`.
const FORWARDING: u16 = 1;
/// `IPV4_DEVCONF_RP_FILTER` of `include/uapi/linux/ip.h`.
const RP_FILTER: u16 = 8;

const IFF_UP: u32 = 0x1;
const IFF_NOARP: u32 = 0x80;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 0x02;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PRIORITY: u16 = 6;
const RT_TABLE_MAIN: u8 = 254;
pub(super) const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTM_F_FIB_MATCH: u32 = 0x2000;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// The metric of a route that nothing takes while there is another one of the same length.
pub const LAST_RESORT: u32 = 0x7fff_ffff;

/// Makes two connected interfaces, this end here and the other one in `namespace`. Both have the same hardware
/// address: with [`bring_up`], which switches neighbour discovery off, a sender takes its own one for the
/// receiver's.
///
/// # Errors
/// The kernel's: not permitted, the name is taken, no such kind of interface.
pub fn add_pair(
    name: &str,
    other: &str,
    namespace: BorrowedFd<'_>,
    hardware_address: [u8; 6],
) -> io::Result<()> {
    let request = pair(name, other, namespace.as_raw_fd(), hardware_address);
    Ok(change(&request)?)
}

fn pair(name: &str, other: &str, namespace: i32, hardware_address: [u8; 6]) -> Request {
    let name = [name.as_bytes(), &[0]].concat();
    let other = [other.as_bytes(), &[0]].concat();
    let mut peer = header(0, 0, 0);
    peer.extend(nest(&[
        (IFLA_IFNAME, &other),
        (IFLA_ADDRESS, &hardware_address),
        (IFLA_NET_NS_FD, &namespace.to_ne_bytes()),
    ]));
    let info = nest(&[(IFLA_INFO_KIND, b"veth"), (IFLA_INFO_DATA, &nest(&[(VETH_INFO_PEER, &peer)]))]);
    let attributes: [(u16, &[u8]); 3] =
        [(IFLA_IFNAME, &name), (IFLA_ADDRESS, &hardware_address), (IFLA_LINKINFO, &info)];
    Request::new(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &header(0, 0, 0), &attributes)
}

/// `struct ifinfomsg`: family, a byte, type, index, flags, which flags are meant.
fn header(index: u32, flags: u32, mask: u32) -> Vec<u8> {
    let mut header = vec![0; 4];
    header.extend(index.to_ne_bytes());
    header.extend(flags.to_ne_bytes());
    header.extend(mask.to_ne_bytes());
    header
}

/// Removes an interface, and with it the other end of a pair.
///
/// # Errors
/// The kernel's: not permitted, not there.
pub fn remove(name: &str) -> io::Result<()> {
    Ok(change(&Request::new(RTM_DELLINK, NLM_F_ACK, &header(if_nametoindex(name)?, 0, 0), &[]))?)
}

/// Switches an interface on, without neighbour discovery.
///
/// # Errors
/// The kernel's: not permitted, not there.
pub fn bring_up(name: &str) -> io::Result<()> {
    let header = header(if_nametoindex(name)?, IFF_UP | IFF_NOARP, IFF_UP | IFF_NOARP);
    Ok(change(&Request::new(RTM_NEWLINK, NLM_F_ACK, &header, &[]))?)
}

/// Waits until packets can pass an interface.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::TimedOut`] at the deadline.
pub fn wait_until_running(name: &str, deadline: Instant) -> io::Result<()> {
    loop {
        let running = getifaddrs()?.any(|interface| {
            interface.interface_name == name && interface.flags.contains(InterfaceFlags::IFF_RUNNING)
        });
        if running {
            return Ok(());
        }
        if Instant::now() >= deadline || signal::interrupted().is_some() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Waits until no interface has a hardware address that begins so; whether that is so at the deadline.
///
/// # Errors
/// The kernel's.
pub fn wait_until_gone(hardware: [u8; 3], deadline: Instant) -> io::Result<bool> {
    loop {
        let there = getifaddrs()?.any(|interface| {
            let link = interface.address.as_ref().and_then(|address| address.as_link_addr());
            link.and_then(LinkAddr::addr).is_some_and(|address| address.starts_with(&hardware))
        });
        if !there || Instant::now() >= deadline || signal::interrupted().is_some() {
            return Ok(!there);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Between two looks at an interface.
const PAUSE: Duration = Duration::from_millis(1);

/// Lets an interface take packets from senders whose route goes elsewhere, as long as there is any route to them.
/// The stricter of this and of the setting for all interfaces would count, but "loose" is the higher number.
///
/// # Errors
/// The kernel's: not permitted, not there.
pub fn loosen_source_check(name: &str) -> io::Result<()> {
    let loose = nest(&[(RP_FILTER, &2u32.to_ne_bytes())]);
    family_settings(name, AF_INET, &nest(&[(IFLA_INET_CONF, &loose)]))
}

/// Keeps the host from forwarding IPv4 packets that arrive by an interface, and from answering those that it would
/// have to with an error: it has none but its own address for that, and leaves by whatever route there is.
///
/// # Errors
/// The kernel's: not permitted, not there.
pub fn without_forwarding(name: &str) -> io::Result<()> {
    let off = nest(&[(FORWARDING, &0u32.to_ne_bytes())]);
    family_settings(name, AF_INET, &nest(&[(IFLA_INET_CONF, &off)]))
}

/// Keeps the kernel from giving an interface a link-local IPv6 address, which both ends would share.
///
/// # Errors
/// The kernel's: not permitted, not there, no IPv6 on it.
pub fn without_link_local(name: &str) -> io::Result<()> {
    family_settings(name, AF_INET6, &nest(&[(IFLA_INET6_ADDR_GEN_MODE, &[1])]))
}

fn family_settings(name: &str, family: u16, settings: &[u8]) -> io::Result<()> {
    let attributes = nest(&[(family, settings)]);
    let header = header(if_nametoindex(name)?, 0, 0);
    Ok(change(&Request::new(RTM_NEWLINK, NLM_F_ACK, &header, &[(IFLA_AF_SPEC, &attributes)]))?)
}

/// Gives an interface that is running one address of its own, and waits until that is in use: for IPv6 the kernel
/// sees to it on the side, and before that packets to it leave by whatever route there is.
///
/// # Errors
/// The kernel's: not permitted, no such interface, there already, IPv6 is off; [`io::ErrorKind::TimedOut`].
pub fn add_address(name: &str, addr: IpAddr) -> io::Result<()> {
    let (family, octets) = octets(addr);
    let no_check = if addr.is_ipv6() { IFA_F_NODAD } else { 0 };
    let bits = u8::try_from(octets.len() * 8).unwrap_or(u8::MAX);
    let mut header = vec![family, bits, no_check, 0];
    header.extend(if_nametoindex(name)?.to_ne_bytes());
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    change(&Request::new(RTM_NEWADDR, flags, &header, &[(IFA_LOCAL, &octets), (IFA_ADDRESS, &octets)]))?;
    let deadline = Instant::now() + SETTLING;
    while !is_local(addr) {
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Whether packets to an address stay here. That it is the source of packets to itself says nothing yet: it is that
/// also while they still take the route to its network.
fn is_local(addr: IpAddr) -> bool {
    matches!(route(addr), Ok(Some((_, RTN_LOCAL))))
}

/// How long an address may take to be in use.
const SETTLING: Duration = Duration::from_secs(3);

/// Lets IPv6 be spoken on an interface, whatever the host has as default for new ones.
///
/// # Errors
/// The kernel's: not permitted, `/proc/sys` cannot be written, no IPv6 at all.
pub fn enable_ipv6(name: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "0")
}

/// Leads a network out by an interface.
///
/// # Errors
/// The kernel's: not permitted, no such interface, there already.
pub fn add_route(name: &str, network: IpAddr, prefix: u8, metric: u32) -> io::Result<()> {
    add_route_to(RT_TABLE_MAIN, name, network, prefix, metric)
}

/// Leads an address out by an interface, whoever sends there and with whatever mark: the table of local addresses is
/// asked before all routing rules, as long as [`super::rules::is_local_table_first`].
///
/// # Errors
/// As those of [`add_route`].
pub fn add_route_for_all(name: &str, addr: IpAddr) -> io::Result<()> {
    let bits = if addr.is_ipv4() { 32 } else { 128 };
    add_route_to(RT_TABLE_LOCAL, name, addr, bits, 0)
}

fn add_route_to(table: u8, name: &str, network: IpAddr, prefix: u8, metric: u32) -> io::Result<()> {
    let (family, octets) = octets(masked(network, prefix));
    let index = if_nametoindex(name)?.to_ne_bytes();
    let scope = if network.is_ipv4() { RT_SCOPE_LINK } else { 0 };
    let header = [family, prefix, 0, 0, table, RTPROT_STATIC, scope, RTN_UNICAST, 0, 0, 0, 0];
    let attributes: [(u16, &[u8]); 3] =
        [(RTA_DST, &octets), (RTA_OIF, &index), (RTA_PRIORITY, &metric.to_ne_bytes())];
    Ok(change(&Request::new(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &header, &attributes))?)
}

/// The length of the prefix of the route that leads to an address now; `None` where none does.
///
/// # Errors
/// The kernel's.
pub fn route_to(addr: IpAddr) -> io::Result<Option<u8>> {
    Ok(route(addr)?.map(|(prefix, _)| prefix))
}

/// The length of its prefix, and its type.
fn route(addr: IpAddr) -> io::Result<Option<(u8, u8)>> {
    let (family, octets) = octets(addr);
    let bits = u8::try_from(octets.len() * 8).unwrap_or(u8::MAX);
    let mut header = vec![family, bits, 0, 0, 0, 0, 0, 0];
    header.extend(RTM_F_FIB_MATCH.to_ne_bytes());
    let request = Request::new(RTM_GETROUTE, NLM_F_ACK, &header, &[(RTA_DST, &octets)]);
    let mut found = None;
    let asked =
        ask(SockProtocol::NetlinkRoute, &request, |message| found = found.or(prefix_and_type(message)));
    match asked {
        Ok(()) => Ok(found),
        Err(Errno::ENETUNREACH | Errno::EHOSTUNREACH) => Ok(None),
        Err(errno) if absent(errno) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// `struct rtmsg` has the length of the destination in its second byte, and the type in its eighth.
fn prefix_and_type(message: &Message<'_>) -> Option<(u8, u8)> {
    let header = message.payload.get(..8).filter(|_| message.kind == RTM_NEWROUTE)?;
    Some((header[1], header[7]))
}

fn masked(network: IpAddr, prefix: u8) -> IpAddr {
    ipnet::IpNet::new(network, prefix).map_or(network, |net| net.network())
}

fn octets(addr: IpAddr) -> (u8, Vec<u8>) {
    match addr {
        IpAddr::V4(four) => (2, four.octets().to_vec()),
        IpAddr::V6(six) => (10, six.octets().to_vec()),
    }
}

fn change(request: &Request) -> Result<(), Errno> {
    ask(SockProtocol::NetlinkRoute, request, |_| ())
}

#[cfg(test)]
mod tests {
    use super::super::message::attributes;
    use super::*;

    #[test]
    fn a_pair_names_both_ends() {
        let request = pair("here", "there", 7, [2, 0, 0, 0, 0, 1]);
        let top = attributes(&request.bytes()[32..]).collect::<Vec<_>>();
        assert_eq!(top[0], (IFLA_IFNAME, &b"here\0"[..]));
        let info = attributes(top[2].1).collect::<Vec<_>>();
        assert_eq!(info[0], (IFLA_INFO_KIND, &b"veth"[..]));
        let data = attributes(info[1].1).next().unwrap();
        let peer = attributes(&data.1[16..]).collect::<Vec<_>>();
        assert_eq!(peer[0], (IFLA_IFNAME, &b"there\0"[..]));
        assert_eq!(peer[2], (IFLA_NET_NS_FD, &7i32.to_ne_bytes()[..]));
    }

    #[test]
    fn a_pair_its_addresses_and_routes() {
        if !crate::host::is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI must run these tests as root");
            eprintln!("skipped: making a network namespace needs root");
            return;
        }
        let other = crate::sys::netns::Namespace::make().unwrap();
        let here = crate::sys::netns::Namespace::make().unwrap();
        here.run(|| {
            use std::os::fd::AsFd as _;
            add_pair("tpvtest0", "tpvtest1", other.as_fd(), [2, 0, 0, 0, 0, 1]).unwrap();
            loosen_source_check("tpvtest0").unwrap();
            std::fs::write("/proc/sys/net/ipv4/conf/tpvtest0/forwarding", "1").unwrap();
            without_forwarding("tpvtest0").unwrap();
            without_link_local("tpvtest0").unwrap();
            other.run(|| bring_up("tpvtest1").unwrap()).unwrap();
            bring_up("tpvtest0").unwrap();
            wait_until_running("tpvtest0", Instant::now() + Duration::from_secs(60)).unwrap();
            add_address("tpvtest0", "192.0.2.1".parse().unwrap()).unwrap();
            add_address("tpvtest0", "2001:db8::1".parse().unwrap()).unwrap();
            for (addr, prefix) in [("198.51.100.0", 24), ("2001:db8:1::", 64)] {
                let network: IpAddr = addr.parse().unwrap();
                assert_eq!(route_to(network).unwrap(), None, "{addr}");
                add_route("tpvtest0", network, prefix, LAST_RESORT).unwrap();
            }
            for addr in ["192.0.2.1", "2001:db8::1"] {
                assert!(is_local(addr.parse().unwrap()), "{addr}");
            }
            assert!(!is_local("198.51.100.9".parse().unwrap()) && !is_local("192.0.2.9".parse().unwrap()));
            assert_eq!(route_to("198.51.100.9".parse().unwrap()).unwrap(), Some(24));
            assert_eq!(route_to("2001:db8:1::9".parse().unwrap()).unwrap(), Some(64));
            let setting =
                |name| std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/tpvtest0/{name}")).unwrap();
            assert_eq!([setting("rp_filter"), setting("forwarding")], ["2\n", "0\n"]);
            let addresses = nix::ifaddrs::getifaddrs().unwrap();
            assert!(!addresses.filter(|i| i.interface_name == "tpvtest0").any(|i| {
                i.address
                    .and_then(|a| a.as_sockaddr_in6().map(|six| six.ip().is_unicast_link_local()))
                    .unwrap_or(false)
            }));
            assert!(!wait_until_gone([2, 0, 0], Instant::now()).unwrap());
            assert!(wait_until_gone([2, 0, 1], Instant::now()).unwrap());
            std::thread::scope(|scope| {
                let removing = scope.spawn(|| remove("tpvtest0").unwrap());
                assert!(wait_until_gone([2, 0, 0], Instant::now() + Duration::from_secs(60)).unwrap());
                removing.join().unwrap();
            });
            assert!(remove("tpvtest0").is_err());
        })
        .unwrap();
        other.run(|| assert!(if_nametoindex("tpvtest1").is_err(), "both ends are gone")).unwrap();
    }
}
