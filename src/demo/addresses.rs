//! Where everybody is. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::plan::Family;

/// What host A calls its end of the cable to its container.
pub const GUEST: &str = "guest0";

/// Of a host in one of the networks.
pub fn address(family: Family, network: u8, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 0, network, host).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, network.into(), 0, 0, 0, 0, 0, host.into()).into(),
    }
}

/// The length of the prefix of each network.
pub const fn bits(family: Family) -> u8 {
    match family {
        Family::V4 => 24,
        Family::V6 => 64,
    }
}

/// Of host A.
pub fn near(family: Family) -> IpAddr {
    address(family, 0, 1)
}

/// Of host B.
pub fn far(family: Family) -> IpAddr {
    address(family, 0, 2)
}

/// Of host A, as its containers know it.
pub fn gate(family: Family) -> IpAddr {
    address(family, 1, 1)
}

/// Where containers of host A are, as `--vnet` takes it.
pub fn guests(family: Family) -> String {
    format!("{GUEST}:{}/{}", address(family, 1, 0), bits(family))
}
