//! Addresses, ports and users for probes: of the documentation ranges (RFC 5737, RFC 3849), in nobody's way, and in
//! no exclusion. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::config::Config;
use crate::config::values::{Cidr, Port, PortRange, Protocol};
use crate::plan::{Family, is_link_local};

/// How the name of the temporary interface begins.
pub const TEMPORARY: &str = "tpv";

/// What the host has already.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// Networks it has an interface in.
    pub networks: Vec<IpNet>,
    /// TCP ports that somebody listens on.
    pub ports: BTreeSet<u16>,
}

/// Addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// This host's on the temporary interface.
    pub here: IpAddr,
    /// The other end's.
    pub there: IpAddr,
    /// Somewhere behind it: an address as good as any.
    pub far: IpAddr,
}

impl Ends {
    /// Each of them as a network of its own.
    pub fn networks(&self) -> [IpNet; 3] {
        [self.here, self.there, self.far].map(IpNet::from)
    }
}

/// Numbers that nobody can foresee but that a test can.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `limit` (xorshift; it only has to be another one every time).
    pub fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((self.0 >> 16) % u64::from(limit.max(1))).unwrap_or_default()
    }
}

/// The documentation networks of IPv4.
const NETWORKS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 0, 2, 0), Ipv4Addr::new(198, 51, 100, 0), Ipv4Addr::new(203, 0, 113, 0)];
const TRIES: usize = 200;

/// Picks addresses. `None`: every documentation address is the host's own or left alone by the configuration.
pub fn ends(config: &Config, taken: &Taken, family: Family, dice: &mut Dice) -> Option<Ends> {
    let outbound: Vec<IpNet> = config.redirect.outbound.exclude_ports_for_ips.iter().map(Cidr::net).collect();
    let free = |addr: &IpAddr| {
        !outbound.iter().any(|net| net.contains(addr)) && !taken.networks.iter().any(|net| net.contains(addr))
    };
    let mut found: Vec<IpAddr> = Vec::new();
    // One that inbound traffic is redirected from, if there is one.
    let mut there = None;
    for _ in 0..TRIES {
        let addr = match family {
            Family::V4 => {
                let [a, b, c, _] = NETWORKS[usize::try_from(dice.below(3)).unwrap_or_default()].octets();
                Ipv4Addr::new(a, b, c, u8::try_from(dice.below(254) + 1).unwrap_or(1)).into()
            }
            Family::V6 => {
                let mut part = || u16::try_from(dice.below(0x1_0000)).unwrap_or_default();
                Ipv6Addr::new(0x2001, 0xdb8, part(), part(), 0, 0, 0, part() | 1).into()
            }
        };
        if !free(&addr) || found.contains(&addr) || there == Some(addr) {
            continue;
        }
        if there.is_none() && !is_excluded_inbound(config, addr) {
            there = Some(addr);
        } else if found.len() < 3 {
            found.push(addr);
        }
        if let ([here, far, ..], Some(there)) = (&found[..], there) {
            return Some(Ends { here: *here, there, far: *far });
        }
    }
    match found[..] {
        [here, far, there] => Some(Ends { here, there, far }),
        _ => None,
    }
}

/// Whether what comes from an address is left alone.
pub fn is_excluded_inbound(config: &Config, addr: IpAddr) -> bool {
    config.redirect.inbound.exclude_ports_for_ips.iter().any(|cidr| cidr.net().contains(&addr))
}

/// Whether what goes to an address is left alone.
pub fn is_excluded_outbound(config: &Config, addr: IpAddr) -> bool {
    config.redirect.outbound.exclude_ports_for_ips.iter().any(|cidr| cidr.net().contains(&addr))
}

/// A link-local address as good as any (RFC 4291, section 2.5.6).
pub fn link_local(dice: &mut Dice) -> Ipv6Addr {
    let mut part = || u16::try_from(dice.below(0x1_0000)).unwrap_or_default();
    Ipv6Addr::new(0xfe80, 0, 0, 0, part(), part(), part(), part() | 1)
}

/// Ports that nobody uses or leaves alone.
pub struct Ports<'a> {
    config: &'a Config,
    /// Those that the configuration names or somebody uses.
    named: BTreeSet<u16>,
}

impl<'a> Ports<'a> {
    /// For this configuration and host.
    pub fn new(config: &'a Config, taken: &Taken) -> Self {
        let redirect = &config.redirect;
        let lists = [
            &redirect.outbound.exclude_ports,
            &redirect.outbound.include_ports,
            &redirect.inbound.exclude_ports,
            &redirect.inbound.include_ports,
        ];
        let own = [redirect.outbound.port, redirect.inbound.port, redirect.dns.port];
        let named = lists.into_iter().flatten().chain(&own).map(|port| port.get());
        Self { config, named: named.chain(taken.ports.iter().copied()).collect() }
    }

    /// One that rules treat as any other.
    pub fn any(&self, dice: &mut Dice) -> u16 {
        // Where nearly every port is named, one that is has to do; the check then says what it finds.
        let mut tries = (0..TRIES).map(|_| 20_000 + u16::try_from(dice.below(40_000)).unwrap_or_default());
        let first = 20_000;
        tries.find(|port| !self.named.contains(port)).unwrap_or(first)
    }

    /// One to which applications' connections are redirected.
    pub fn outbound(&self, dice: &mut Dice) -> u16 {
        self.first_of(&self.config.redirect.outbound.include_ports, dice)
    }

    /// One at which connections from outside are redirected.
    pub fn inbound(&self, dice: &mut Dice) -> u16 {
        self.first_of(&self.config.redirect.inbound.include_ports, dice)
    }

    /// All of those if they are listed, each once; else one that stands for all.
    pub fn all_outbound(&self, dice: &mut Dice) -> BTreeSet<u16> {
        self.all_of(&self.config.redirect.outbound.include_ports, dice)
    }

    /// The same of those from outside.
    pub fn all_inbound(&self, dice: &mut Dice) -> BTreeSet<u16> {
        self.all_of(&self.config.redirect.inbound.include_ports, dice)
    }

    fn first_of(&self, only: &[Port], dice: &mut Dice) -> u16 {
        only.first().map_or_else(|| self.any(dice), |port| port.get())
    }

    fn all_of(&self, only: &[Port], dice: &mut Dice) -> BTreeSet<u16> {
        if only.is_empty() {
            return [self.any(dice)].into();
        }
        only.iter().map(|port| port.get()).collect()
    }
}

/// A port of a range.
pub fn within(range: PortRange, dice: &mut Dice) -> u16 {
    let (first, last) = (range.first.get(), range.last.get());
    let more = u32::from(last) - u32::from(first) + 1;
    first.saturating_add(u16::try_from(dice.below(more)).unwrap_or_default())
}

/// An address of a network that can be sent to or from; not one of this host's.
pub fn member(net: IpNet, taken: &Taken) -> Option<IpAddr> {
    net.hosts().chain([net.addr()]).take(TRIES).find(|addr| {
        !taken.addresses.contains(addr)
            && !addr.is_multicast()
            && !addr.is_unspecified()
            && !is_link_local(*addr)
    })
}

/// A user whose traffic is an ordinary application's: not the sidecar's, in no exclusion, not root if possible.
pub fn app_uid(config: &Config, sidecar: u32, exists: impl Fn(u32) -> bool) -> Option<u32> {
    const NOBODY: u32 = 65534;
    let excluded = &config.redirect.outbound.exclude_ports_for_uids;
    let beside = |uid: u32| [uid.wrapping_sub(1), uid.wrapping_add(1)];
    let mut candidates = vec![NOBODY, 1];
    candidates.extend(beside(sidecar));
    for exclusion in excluded {
        candidates.extend([exclusion.uids.first.wrapping_sub(1), exclusion.uids.last.wrapping_add(1)]);
    }
    candidates.push(0);
    candidates.into_iter().find(|uid| {
        *uid != sidecar
            && *uid != u32::MAX
            && !excluded.iter().any(|exclusion| (exclusion.uids.first..=exclusion.uids.last).contains(uid))
            && exists(*uid)
    })
}

/// Whether a user's packets to some port are left alone.
pub fn is_excluded(config: &Config, uid: u32, protocol: Protocol, port: u16) -> bool {
    config.redirect.outbound.exclude_ports_for_uids.iter().any(|exclusion| {
        (exclusion.uids.first..=exclusion.uids.last).contains(&uid)
            && exclusion.protocols.contains(&protocol)
            && exclusion.ports.iter().any(|range| (range.first.get()..=range.last.get()).contains(&port))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        change(&mut config);
        config
    }

    #[test]
    fn addresses_are_of_the_documentation_ranges_and_free() {
        let config = config(|c| {
            c.redirect.outbound.exclude_ports_for_ips = vec!["192.0.2.0/24".parse().unwrap()];
            c.redirect.inbound.exclude_ports_for_ips = vec!["2001:db8::/33".parse().unwrap()];
        });
        let taken = Taken { networks: vec!["203.0.113.0/24".parse().unwrap()], ..Taken::default() };
        let (four, six) =
            ("198.51.100.0/24".parse::<IpNet>().unwrap(), "2001:db8:8000::/33".parse().unwrap());
        for seed in 0..200 {
            for (family, net) in [(Family::V4, four), (Family::V6, six)] {
                let ends = ends(&config, &taken, family, &mut Dice::new(seed)).unwrap();
                let all = BTreeSet::from([ends.here, ends.there, ends.far]);
                assert_eq!(all.len(), 3);
                let sent_to = if family == Family::V4 { net } else { "2001:db8::/32".parse().unwrap() };
                assert!([ends.here, ends.far].iter().all(|addr| sent_to.contains(addr)), "{all:?}");
                assert!(net.contains(&ends.there), "{all:?}");
            }
        }
    }

    #[test]
    fn there_may_be_no_address_left() {
        let config =
            config(|c| c.redirect.outbound.exclude_ports_for_ips = vec!["0.0.0.0/0".parse().unwrap()]);
        assert_eq!(ends(&config, &Taken::default(), Family::V4, &mut Dice::new(1)), None);
        assert!(ends(&config, &Taken::default(), Family::V6, &mut Dice::new(1)).is_some());
    }

    #[test]
    fn who_is_outside_may_have_to_be_excluded() {
        let config =
            self::config(|c| c.redirect.inbound.exclude_ports_for_ips = vec!["0.0.0.0/0".parse().unwrap()]);
        let ends = ends(&config, &Taken::default(), Family::V4, &mut Dice::new(1)).unwrap();
        assert!(is_excluded_inbound(&config, ends.there) && !is_excluded_outbound(&config, ends.there));
    }

    #[test]
    fn ports_are_fresh_or_included() {
        let mut config =
            config(|c| c.redirect.outbound.exclude_ports = (20_000..59_000).map(Port::of).collect());
        let taken = Taken { ports: (59_000..59_900).collect(), ..Taken::default() };
        for seed in 0..5 {
            let port = Ports::new(&config, &taken).outbound(&mut Dice::new(seed));
            assert!(port == 20_000 || (59_900..60_000).contains(&port), "{port}");
        }
        config.redirect.outbound.include_ports = vec![Port::of(80)];
        assert_eq!(Ports::new(&config, &taken).outbound(&mut Dice::new(1)), 80);
    }

    #[test]
    fn applications_are_neither_sidecar_nor_excluded() {
        let nobody = config(|_| ());
        assert_eq!(app_uid(&nobody, 5678, |_| true), Some(65534));
        assert_eq!(app_uid(&nobody, 65534, |_| true), Some(1));
        assert_eq!(app_uid(&nobody, 0, |uid| uid == 0), None, "only one user exists");
        let most = config(|c| c.redirect.outbound.exclude_ports_for_uids = vec!["0-70000".parse().unwrap()]);
        assert_eq!(app_uid(&most, 5678, |_| true), Some(70001));
        assert!(is_excluded(&most, 70000, Protocol::Udp, 53));
        assert!(!is_excluded(&most, 70001, Protocol::Udp, 53));
    }

    #[test]
    fn members_are_not_the_hosts_own() {
        let taken = Taken { addresses: vec!["10.0.0.1".parse().unwrap()], ..Taken::default() };
        let of = |net: &str| member(net.parse().unwrap(), &taken).map(|addr| addr.to_string());
        assert_eq!(of("10.0.0.0/8").as_deref(), Some("10.0.0.2"));
        assert_eq!(of("10.0.0.7/32").as_deref(), Some("10.0.0.7"));
        assert_eq!(of("10.0.0.1/32"), None);
        assert_eq!(of("224.0.0.0/4"), None);
        assert!(of("fd00::/8").is_some());
    }
}
