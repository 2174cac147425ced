//! A place for probes to go to: a pair of interfaces, of which one is here and the other in a network namespace of
//! its own that leads nowhere. What is sent there stays on this host, and when this process ends, however it ends,
//! the namespace ends with it, and the interface with the namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::time::Duration;

use super::budget::{Budget, Stage};
use super::ground::{Dice, Ends};
use crate::plan::{Family, is_link_local};
use crate::sys::netlink::{link, rules};
use crate::sys::netns::Namespace;

/// The pair, and who is at its ends.
#[derive(Debug)]
pub struct Lab {
    /// This end's name.
    pub device: String,
    /// This end's number.
    pub index: u32,
    /// Where the other end is.
    pub outside: Namespace,
    /// Families in which routing rules may lead packets elsewhere that are meant for the other end.
    overruled: Vec<Family>,
    /// The families' addresses; for a family without any, why.
    pub ends: BTreeMap<Family, Result<Ends, String>>,
}

/// How long the interfaces may take to get ready; it is milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// The longest name of an interface, in bytes (`IFNAMSIZ`, without the final zero).
const NAME_BYTES: usize = 15;

/// How the hardware address of this end begins: locally administered, and then "tp".
const HARDWARE: [u8; 3] = [2, 0x74, 0x70];

/// How long the interfaces of a proof that was killed may take to go. The kernel removes a network namespace that
/// nobody has any more on the side, mostly within milliseconds.
const GOING: Duration = Duration::from_secs(2);

/// The other end's name; it is alone there.
const OTHER: &str = "eth0";

impl Lab {
    /// Makes it, on an interface whose name begins so. `wanted` are the addresses, or why there are none.
    ///
    /// # Errors
    /// There can be no such interfaces here; the sentence says why.
    pub fn make(
        name: &str,
        wanted: BTreeMap<Family, Result<Ends, String>>,
        dice: &mut Dice,
        budget: &Budget,
    ) -> Result<Self, String> {
        budget.check(Stage::Preparing).map_err(|error| error.to_string())?;
        let outside =
            Namespace::make().map_err(|error| format!("no network namespace can be made: {error}"))?;
        let mut device = format!("{name}{:08x}", dice.below(u32::MAX));
        device.truncate(NAME_BYTES);
        let [first, second, third] = HARDWARE;
        let mut hardware_address = [first, second, third, 0, 0, 0];
        for byte in &mut hardware_address[3..] {
            *byte = u8::try_from(dice.below(256)).unwrap_or_default();
        }
        link::add_pair(&device, OTHER, outside.as_fd(), hardware_address)
            .map_err(|error| format!("no pair of interfaces can be made: {error}"))?;
        let mut lab = Self { device, index: 0, outside, overruled: Vec::new(), ends: BTreeMap::new() };
        lab.furnish(wanted, budget)
            .map_err(|error| format!("the pair of interfaces cannot be set up: {error}"))?;
        Ok(lab)
    }

    /// Lets nobody outside get farther than to this host, wherever rules lead, nor hear from it that this is so: the
    /// sender may be an address to which a route of the host's leads.
    ///
    /// # Errors
    /// The kernel's.
    pub fn without_passage(self) -> Result<Self, String> {
        link::without_forwarding(&self.device)
            .map_err(|error| format!("the temporary interface would forward packets: {error}"))?;
        Ok(self)
    }

    fn furnish(&mut self, wanted: BTreeMap<Family, Result<Ends, String>>, budget: &Budget) -> io::Result<()> {
        self.index = nix::net::if_::if_nametoindex(self.device.as_str())?;
        link::loosen_source_check(&self.device)?;
        // A host without IPv6 needs none of this.
        let _ = link::enable_ipv6(&self.device);
        let _ = link::without_link_local(&self.device);
        self.outside.run(|| {
            let _ = link::enable_ipv6(OTHER);
            let _ = link::without_link_local(OTHER);
            link::bring_up("lo")?;
            link::bring_up(OTHER)
        })??;
        link::bring_up(&self.device)?;
        // The kernel gets a link ready on the side. Until then packets are lost, and an address has no local route,
        // so answers to it would leave by another interface. What takes its lock afterwards comes after all of that.
        let deadline = budget.until(Stage::Preparing, PATIENCE);
        link::wait_until_running(&self.device, deadline)?;
        self.outside.run(|| link::wait_until_running(OTHER, deadline))??;
        for (family, ends) in wanted {
            let ends = ends.and_then(|ends| {
                let address =
                    |error| format!("the temporary interface cannot have an {family} address: {error}");
                self.connect(ends).map_err(address).map(|()| ends)
            });
            if !rules::is_local_table_first(family)? {
                self.overruled.push(family);
            }
            self.ends.insert(family, ends);
        }
        Ok(())
    }

    fn connect(&self, ends: Ends) -> io::Result<()> {
        let bits = if ends.here.is_ipv4() { 32 } else { 128 };
        link::add_address(&self.device, ends.here)?;
        for addr in [ends.there, ends.far] {
            link::add_route_for_all(&self.device, addr)?;
        }
        if ends.here.is_ipv6() {
            // Where a redirection leads, a bound socket would have no route to, and the packet would be gone before
            // connection tracking knew of it. The local route to it comes first for everybody else.
            let _ = link::add_route(&self.device, Ipv6Addr::LOCALHOST.into(), bits, link::LAST_RESORT);
        }
        self.outside.run(|| {
            link::add_address(OTHER, ends.there)?;
            link::add_address(OTHER, ends.far)?;
            link::add_route(OTHER, ends.here, bits, 0)
        })?
    }

    /// The addresses of one's family.
    pub fn ends_of(&self, family_of: IpAddr) -> Option<Ends> {
        self.ends.values().flatten().find(|ends| ends.here.is_ipv4() == family_of.is_ipv4()).copied()
    }

    /// Whether packets to an address come to the other end by themselves.
    pub fn is_there(&self, addr: IpAddr) -> bool {
        self.ends.values().flatten().any(|ends| [ends.there, ends.far].contains(&addr))
    }

    /// Whether everybody's packets to the other end go there, whatever routing rules, marks and users there are.
    pub fn is_first_route(&self, addr: IpAddr) -> bool {
        let family = if addr.is_ipv4() { Family::V4 } else { Family::V6 };
        !self.overruled.contains(&family)
    }

    /// Lets the other end send to an address by way of this host.
    ///
    /// # Errors
    /// The kernel's.
    pub fn reach(&self, addr: IpAddr) -> io::Result<()> {
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        self.outside.run(|| exists_already(link::add_route(OTHER, addr, bits, 0)))?
    }

    /// Lets somebody outside have these addresses too; for those that cannot be had, why. Nothing changes for anybody
    /// else on this host: packets go there only from sockets that are bound to the interface, or where until now they
    /// could not go at all.
    pub fn invite(
        &self,
        addresses: &BTreeSet<IpAddr>,
        budget: &Budget,
    ) -> BTreeMap<IpAddr, Result<(), String>> {
        let wanted = addresses.iter().filter(|addr| !self.is_there(**addr));
        let routes = wanted
            .clone()
            .map(|&addr| (addr, budget.check(Stage::Preparing).and_then(|()| self.add_worse_route(addr))));
        let routes: Vec<(IpAddr, io::Result<()>)> = routes.collect();
        // Entering the namespace takes a thread, so it is done once.
        let invited = self.outside.run(|| {
            let have = |(addr, route): (IpAddr, io::Result<()>)| {
                let had = route
                    .and_then(|()| budget.check(Stage::Preparing))
                    .and_then(|()| exists_already(link::add_address(OTHER, addr)));
                (addr, had.map_err(|error| error.to_string()))
            };
            routes.into_iter().map(have).collect()
        });
        let no_thread = |error: io::Error| wanted.map(|addr| (*addr, Err(error.to_string()))).collect();
        invited.unwrap_or_else(no_thread)
    }

    /// Lets bound sockets get to an address, and its answers come back.
    ///
    /// IPv6 needs a route for the one: as long as the one that leads there now, and worse, it is taken by bound sockets
    /// alone. IPv4 takes an address for a neighbour then, but drops what comes from an address that no route at all
    /// leads to, on a host without a default route; where there is one, any will do.
    fn add_worse_route(&self, addr: IpAddr) -> io::Result<()> {
        let present = link::route_to(addr)?;
        let prefix = match (addr, present) {
            (IpAddr::V4(_), Some(_)) => return Ok(()),
            (IpAddr::V4(_), None) => 32,
            (IpAddr::V6(_), present) => present.unwrap_or(128),
        };
        exists_already(link::add_route(&self.device, addr, prefix, link::LAST_RESORT))
    }
}

/// Waits until the interfaces of a proof that was killed are gone: their addresses and routes would be taken for the
/// host's own, and vanish while they are used. Those of another proof that is alive, where somebody keeps both from
/// knowing of each other, stay.
pub fn wait_for_the_last_one(budget: &Budget) {
    match link::wait_until_gone(HARDWARE, budget.until(Stage::Preparing, GOING)) {
        Ok(true) => {}
        Ok(false) => tracing::debug!("interfaces of another proof are still there"),
        Err(error) => tracing::debug!("cannot look for interfaces of another proof: {error}"),
    }
}

/// The interface at the other end that a listener has to be bound to, as link-local addresses need it.
pub(super) fn link_of(addr: IpAddr) -> Option<&'static str> {
    is_link_local(addr).then_some(OTHER)
}

fn exists_already(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // If this fails it goes with its other end, only a moment later.
        let _ = link::remove(&self.device);
    }
}
