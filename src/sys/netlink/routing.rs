//! Which interfaces there are, and where the main routing table leads.
//!
//! Layouts are those of the kernel's `include/uapi/linux/{rtnetlink,if_link}.h`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::sys::socket::SockProtocol;

use super::message::{Message, NLM_F_DUMP, Request, attributes, number};
use super::{absent, ask};
use crate::plan::Family;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// `struct ifinfomsg`
const LINK: usize = 16;
/// `struct ifaddrmsg`
const ADDRESS: usize = 8;
/// `struct rtmsg`
const ROUTE: usize = 12;
/// `struct rtnexthop`
const HOP: usize = 8;

const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_EXT_MASK: u16 = 29;
/// Since Linux 4.4; before, the kernel passes it over.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFLA_INFO_KIND: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;
const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;

const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What sort of virtual interface it is, such as `bridge`; `None` for hardware.
    pub kind: Option<String>,
    /// The bridge or the like that it is a port of.
    pub master: Option<u32>,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it leads back to this host.
    pub loopback: bool,
}

/// A route of the main table to other hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to; everything for a default route.
    pub network: IpNet,
    /// The numbers of the interfaces by which it leads.
    pub links: Vec<u32>,
}

/// The interfaces of the calling thread's network namespace.
///
/// # Errors
/// The kernel's.
pub fn links() -> io::Result<Vec<Link>> {
    let without_counters = RTEXT_FILTER_SKIP_STATS.to_ne_bytes();
    let request = Request::new(RTM_GETLINK, NLM_F_DUMP, &[0; LINK], &[(IFLA_EXT_MASK, &without_counters)]);
    let mut found = Vec::new();
    ask(SockProtocol::NetlinkRoute, &request, |message| found.extend(link(message)))?;
    Ok(found)
}

/// The routes of a family in the main table. None where the kernel does not know the family.
///
/// # Errors
/// The kernel's.
pub fn routes(family: Family) -> io::Result<Vec<Route>> {
    let mut header = [0; ROUTE];
    header[0] = number(family);
    let request = Request::new(RTM_GETROUTE, NLM_F_DUMP, &header, &[]);
    let mut found = Vec::new();
    match ask(SockProtocol::NetlinkRoute, &request, |message| found.extend(route(message))) {
        Ok(()) => Ok(found),
        Err(errno) if absent(errno) => Ok(Vec::new()),
        Err(errno) => Err(errno.into()),
    }
}

/// The addresses of all interfaces of the calling thread's network namespace. Interfaces themselves, of which the kernel
/// has a lot to tell, are not asked for.
///
/// # Errors
/// The kernel's.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let request = Request::new(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS], &[]);
    let mut found = Vec::new();
    ask(SockProtocol::NetlinkRoute, &request, |message| found.extend(address(message)))?;
    Ok(found)
}

fn address(message: &Message<'_>) -> Option<IpAddr> {
    let (_, rest) = message.payload.split_at_checked(ADDRESS).filter(|_| message.kind == RTM_NEWADDR)?;
    // Where the two differ, the other one is that of the other end.
    let of = |wanted: u16| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let bytes = of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS))?;
    match *bytes {
        [a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d).into()),
        _ => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
    }
}

fn link(message: &Message<'_>) -> Option<Link> {
    let (header, rest) = message.payload.split_at_checked(LINK).filter(|_| message.kind == RTM_NEWLINK)?;
    let (index, flags) = (word(&header[4..])?, word(&header[8..])?);
    let mut link = Link {
        index,
        name: String::new(),
        kind: None,
        master: None,
        up: flags & IFF_UP != 0,
        loopback: flags & IFF_LOOPBACK != 0,
    };
    for (kind, value) in attributes(rest) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MASTER => link.master = word(value),
            IFLA_LINKINFO => {
                let kind = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = kind.map(|(_, kind)| text(kind));
            }
            _ => {}
        }
    }
    Some(link)
}

fn route(message: &Message<'_>) -> Option<Route> {
    let (header, rest) = message.payload.split_at_checked(ROUTE).filter(|_| message.kind == RTM_NEWROUTE)?;
    let [family, bits, _, _, table, _, _, kind, ..] = *header else { return None };
    if table != RT_TABLE_MAIN || kind != RTN_UNICAST {
        return None;
    }
    let six = family == number(Family::V6);
    let mut to = if six { Ipv6Addr::UNSPECIFIED.into() } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let mut links = Vec::new();
    for (kind, value) in attributes(rest) {
        match kind {
            RTA_DST if six => to = IpAddr::from(*value.first_chunk::<16>()?),
            RTA_DST => to = IpAddr::from(*value.first_chunk::<4>()?),
            RTA_OIF => links.extend(word(value)),
            RTA_MULTIPATH => links.extend(hops(value)),
            _ => {}
        }
    }
    Some(Route { network: IpNet::new(to, bits).ok()?, links })
}

/// The interfaces of a route with several. `struct rtnexthop`: length (2), flags, hops, interface (4).
fn hops(mut rest: &[u8]) -> Vec<u32> {
    let mut links = Vec::new();
    while let Some(header) = rest.first_chunk::<HOP>() {
        links.extend(word(&header[4..]));
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]])).max(HOP);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    links
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}
