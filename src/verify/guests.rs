//! Guests of virtual networks: each on an interface of its own whose name begins as the configuration says.
//!
//! Only where the configuration names the beginning of names can there be one: an interface that is named in full is
//! the host's, and tproxy connects nobody to that.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::budget::{Budget, NO_TIME, Stage};
use super::check::{Check, Method, Probe, Reached};
use super::connect::local;
use super::ground::{self, Dice, Ends, Taken};
use super::lab::Lab;
use super::probe::{BRIEFLY, Field, same};
use crate::config::Config;
use crate::config::values::Protocol;
use crate::plan::Family;
use crate::sys::netlink::conntrack;
use crate::sys::socket;

/// For how long guests are made: to remove them takes twice that again.
const MAKING: Duration = Duration::from_millis(800);

/// Makes those that checks need; a check without one says why.
pub fn make(
    config: &Config,
    taken: &Taken,
    families: &[Family],
    checks: &mut [Check],
    dice: &mut Dice,
    budget: &Budget,
) -> BTreeMap<String, Lab> {
    let mut taken = taken.clone();
    let until = budget.until(Stage::Preparing, MAKING);
    let mut guests: BTreeMap<String, Result<Lab, String>> = BTreeMap::new();
    for check in checks {
        let Probe::Guest { interface, to, .. } = &check.probe else { continue };
        let guest = guests.entry(interface.clone()).or_insert_with(|| {
            if !budget.is_before(until) {
                return Err(NO_TIME.to_owned());
            }
            let ends = |family: &Family| {
                let none = || format!("every {family} documentation address is in use here, or excluded");
                let ends = ground::ends(config, &taken, *family, dice).ok_or_else(none);
                // No two of them can have the same.
                taken.networks.extend(ends.iter().flat_map(Ends::networks));
                (*family, ends)
            };
            let wanted = families.iter().map(ends).collect();
            Lab::make(interface.trim_end_matches('+'), wanted, dice, budget)
        });
        let reached = match guest {
            Ok(guest) => guest.reach(to.ip()).map_err(|error| format!("no guest can send to {to}: {error}")),
            Err(why) => Err(why.clone()),
        };
        if let Err(why) = reached {
            check.probe = Probe::Nothing(why);
        }
    }
    guests.into_iter().filter_map(|(interface, guest)| Some((interface, guest.ok()?))).collect()
}

impl Field<'_> {
    /// Whom a guest meets. Its packets live to the next host only, so what is not for this one goes no farther.
    pub(super) fn visit(&self, interface: &str, protocol: Protocol, to: SocketAddr) -> io::Result<Reached> {
        let place = self.place(to);
        let _alone = self.alone(&place)?;
        let missing = || io::Error::other("there is no such guest");
        let guest = self.guests.get(interface).ok_or_else(missing)?;
        let ends = guest.ends_of(to.ip()).ok_or_else(missing)?;
        if protocol == Protocol::Udp {
            return self.ask_as_guest(guest, ends, to);
        }
        if let Some(why) = self.would_go_on(to)? {
            return Ok(Reached::Unknown(why));
        }
        let fd = guest.outside.run(|| {
            let fd = socket::tcp(to.ip())?;
            socket::stay_near(&fd, to.ip())?;
            socket::bind_to(&fd, SocketAddr::new(ends.there, 0))?;
            socket::begin_connect(&fd, to)?;
            Ok::<_, io::Error>(fd)
        })??;
        self.began(Protocol::Tcp, local(&fd)?, to);
        self.meet(fd, to, None)
    }

    /// Why a connection must not come about: a sidecar that is at work would go on to its destination, and by ways
    /// that lead off this host.
    fn would_go_on(&self, to: SocketAddr) -> io::Result<Option<String>> {
        if self.method == Method::Listeners {
            return Ok(None);
        }
        if !self.lab()?.is_there(to.ip()) {
            return Ok(Some(format!(
                "the sidecar is at work and would go on to {to}, which may leave this host"
            )));
        }
        if !self.sound {
            return Ok(Some(
                "the rules are not as wanted, so that a guest's packets could leave this host".to_owned(),
            ));
        }
        self.leaves(&[self.sidecar], to)
    }

    fn ask_as_guest(&self, guest: &Lab, ends: Ends, to: SocketAddr) -> io::Result<Reached> {
        let question = self.token.question();
        let udp = guest.outside.run(|| {
            let fd = socket::udp(to.ip())?;
            socket::stay_near(&fd, to.ip())?;
            let udp = socket::udp_at(fd, SocketAddr::new(ends.there, 0))?;
            udp.send_to(&question, to)?;
            Ok::<UdpSocket, io::Error>(udp)
        })??;
        let source = udp.local_addr()?;
        self.began(Protocol::Udp, source, to);
        let patience = self.patience;
        let until =
            if self.method == Method::Counters { patience.at_most(BRIEFLY) } else { patience.until() };
        let mut answered = None;
        if !socket::readable(&[&udp], Some(until))?.is_empty() {
            let mut bytes = [0; 64];
            let (size, from) = udp.recv_from(&mut bytes)?;
            answered = Some(same(from, to));
            if bytes[..size] == self.token.answer() {
                return Ok(Reached::Dns { answered: same(from, to) });
            }
        }
        if self.tokens.heard(source.port()) {
            return Ok(Reached::Dns { answered: false });
        }
        for zone in (0..=2).rev() {
            let flow = conntrack::flow(Protocol::Udp, source, to, zone)?.map(|flow| flow.answers_from);
            if let Some(from) = flow.filter(|from| !same(*from, to)) {
                return Ok(match self.elsewhere(from) {
                    Reached::Tracked { port, .. } => Reached::Tracked { port, answered },
                    astray => astray,
                });
            }
        }
        Ok(Reached::Nowhere)
    }
}

/// Everybody's addresses on this host.
pub fn addresses(guests: &BTreeMap<String, Lab>) -> impl Iterator<Item = IpAddr> {
    guests.values().flat_map(|guest| guest.ends.values().flatten()).map(|ends| ends.here)
}
