//! Probes over UDP.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::check::{Method, Reached};
use super::lab::link_of;
use super::probe::{BRIEFLY, Field, ZONES, localhost, same, unspecified};
use super::quiet::{Came, answer_for};
use crate::config::values::Protocol;
use crate::sys::netlink::conntrack;
use crate::sys::{socket, user};

/// What the other end of a datagram answers.
const ECHO: &[u8] = b"seen";

/// How a datagram gets on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tie {
    /// Bound to the temporary interface.
    Device,
    /// Bound to loopback.
    Loopback,
    /// By the temporary interface, or wherever a redirection leads.
    Free,
}

/// Ports tried before it is given up to find one that no earlier flow had.
const TRIES: usize = 16;

/// A socket to ask from.
pub(super) struct Asker {
    udp: UdpSocket,
    /// The address and port that packets carry.
    pub(super) source: SocketAddr,
    pub(super) uid: u32,
    tie: Tie,
}

impl Field<'_> {
    pub(super) fn datagram(&self, uid: u32, to: SocketAddr, from: Option<IpAddr>) -> io::Result<Reached> {
        let place = self.place(to);
        let _alone = self.alone(&place)?;
        let server = self.server(to)?;
        let from = from.filter(|_| self.tie(to) == Tie::Device);
        if let Some(from) = from {
            self.lab()?.reach(from)?;
        }
        self.ask_freely(uid, to, from, server.as_ref()).map(|(reached, _)| reached)
    }

    pub(super) fn again(&self, first: u32, then: u32, to: SocketAddr) -> io::Result<Reached> {
        let place = self.place(to);
        let _alone = self.alone(&place)?;
        let server = self.server(to)?;
        let (_, port) = self.ask_freely(first, to, None, server.as_ref())?;
        self.tokens.forget(port);
        let tie = self.tie(to);
        let asker = self.asker(then, to.ip(), (None, port), tie)?;
        let reached = self.ask(&asker, to, server.as_ref())?;
        if let (Reached::Astray(away), true) = (&reached, self.follows()) {
            return self.follow(&asker, to, *away);
        }
        // Where no rule gives an answer a zone it is in the one without a number. An answer made on this host was
        // tracked before it could come from anywhere.
        let answered = reached == (Reached::Destination { answered: true });
        let apart = || conntrack::flow(Protocol::Udp, to, asker.source, 0);
        if tie == Tie::Device && answered && apart()?.is_some() {
            return Ok(Reached::Apart);
        }
        Ok(reached)
    }

    /// Who the sidecar's question meets that somebody's rule leads on: bound to the temporary interface, it comes to
    /// the other end, whoever it is for, so there is somebody there for this once. What counts is the way back. Not
    /// while other probes are under way: whatever is led there too would be refused, and forgotten at once by
    /// connection tracking, which then could not tell that it was led there.
    fn follow(&self, asker: &Asker, to: SocketAddr, away: SocketAddr) -> io::Result<Reached> {
        let lab = self.lab()?;
        let place = self.place(away);
        let _alone = self.alone(&place)?;
        let invited = lab.invite(&[away.ip()].into(), self.patience.budget());
        if let Some(Err(why)) = invited.get(&away.ip()) {
            return Ok(Reached::Unknown(format!(
                "another rule leads it on to {away}, where nobody can be put: {why}"
            )));
        }
        let server = lab.outside.run(|| socket::udp_at(socket::udp(away.ip())?, away))??;
        asker.udp.send_to(&self.token.question(), to)?;
        let reached = self.await_answer(asker, to, Some(&server), None, self.patience.until())?;
        let answered = reached == Some(Reached::Destination { answered: true });
        // As above: an answer that begins a flow of its own is dropped where only answers are let in.
        if answered && conntrack::flow(Protocol::Udp, away, asker.source, 0)?.is_some() {
            return Ok(Reached::Apart);
        }
        Ok(Reached::LedOn { to: away, answered })
    }

    fn follows(&self) -> bool {
        self.following.load(Ordering::Relaxed)
    }

    /// How a question to a server has to be sent to stay on this host.
    fn tie(&self, to: SocketAddr) -> Tie {
        if self.own.contains(&to.ip()) || to.ip().is_loopback() { Tie::Loopback } else { Tie::Device }
    }

    /// Somebody at a datagram's destination; on this host there may be a real server already.
    fn server(&self, to: SocketAddr) -> io::Result<Option<UdpSocket>> {
        let listen = |device: Option<&str>| {
            let fd = socket::udp(to.ip())?;
            if let Some(device) = device {
                socket::bind_to_device(&fd, device)?;
            }
            socket::udp_at(fd, to)
        };
        if self.tie(to) == Tie::Device {
            return self.lab()?.outside.run(|| listen(link_of(to.ip())))?.map(Some);
        }
        match listen(None) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            other => other.map(Some),
        }
    }

    /// Who a user's datagram meets, and from which port it was sent.
    fn ask_freely(
        &self,
        uid: u32,
        to: SocketAddr,
        from: Option<IpAddr>,
        server: Option<&UdpSocket>,
    ) -> io::Result<(Reached, u16)> {
        let tie = self.tie(to);
        let asker = self.fresh_asker(uid, to, from, tie)?;
        let reached = self.ask(&asker, to, server)?;
        if let Reached::Astray(away) = reached
            && uid == self.sidecar
            && self.follows()
        {
            let reached = self.follow(&asker, to, away)?;
            return Ok((reached, asker.source.port()));
        }
        // The sidecar's own is to leave, and what is bound did that, or did not.
        let redirected = tie == Tie::Device && matches!(reached, Reached::Tracked { .. });
        if !redirected || uid == self.sidecar {
            return Ok((reached, asker.source.port()));
        }
        let asker = self.fresh_asker(uid, to, from, Tie::Free)?;
        Ok((self.ask(&asker, to, server)?, asker.source.port()))
    }

    /// One whose port has no flow to there yet, of anybody's: what follows an old flow says nothing of today's rules.
    fn fresh_asker(&self, uid: u32, to: SocketAddr, from: Option<IpAddr>, tie: Tie) -> io::Result<Asker> {
        // Whoever has one keeps it, so that the kernel does not give it again.
        let mut stale = Vec::new();
        while stale.len() < TRIES {
            let asker = self.asker(uid, to.ip(), (from, 0), tie)?;
            if !had_before(asker.source, to)? {
                return Ok(asker);
            }
            stale.push(asker);
        }
        let why = "connection tracking still knows earlier questions from every port that was tried";
        Err(io::Error::new(io::ErrorKind::WouldBlock, why))
    }

    fn asker(
        &self,
        uid: u32,
        to: IpAddr,
        (from, port): (Option<IpAddr>, u16),
        tie: Tie,
    ) -> io::Result<Asker> {
        let fd = user::run_as(uid, || socket::udp(to))??;
        match tie {
            Tie::Device => socket::bind_to_device(&fd, &self.lab()?.device)?,
            Tie::Loopback => socket::bind_to_device(&fd, self.loopback)?,
            Tie::Free => socket::stay_near(&fd, to)?,
        }
        let udp = socket::udp_at(fd, SocketAddr::new(from.unwrap_or(unspecified(to)), port))?;
        let ip = if let Some(from) = from {
            from
        } else if tie == Tie::Loopback {
            // What is asked at an address of this host is asked from it.
            if to.is_loopback() { localhost(to) } else { to }
        } else {
            let mut ends = self.lab()?.ends.values().flatten().map(|ends| ends.here);
            ends.find(|here| here.is_ipv4() == to.is_ipv4()).unwrap_or(unspecified(to))
        };
        let source = SocketAddr::new(ip, udp.local_addr()?.port());
        Ok(Asker { udp, source, uid, tie })
    }

    /// Who a datagram meets.
    fn ask(&self, asker: &Asker, to: SocketAddr, server: Option<&UdpSocket>) -> io::Result<Reached> {
        let question = self.token.question();
        self.began(Protocol::Udp, asker.source, to);
        // A real server of this host might pass on whatever it gets.
        if asker.tie == Tie::Loopback
            && server.is_none()
            && let Some(reached) = self.ask_silently(asker, to)?
        {
            return Ok(reached);
        }
        match asker.tie {
            Tie::Free => socket::send_by(&asker.udp, &question, to, (self.lab()?.index, asker.source.ip()))?,
            Tie::Device | Tie::Loopback => asker.udp.send_to(&question, to)?,
        };
        let led = self.led(asker, to)?;
        if let Some(from) = led {
            let reached = self.elsewhere(from);
            if asker.tie == Tie::Device || matches!(reached, Reached::Astray(_)) {
                return Ok(reached);
            }
        }
        let counted = led.is_some() && self.method == Method::Counters;
        let until = if counted { self.patience.at_most(BRIEFLY) } else { self.patience.until() };
        if let Some(reached) = self.await_answer(asker, to, server, led, until)? {
            return Ok(reached);
        }
        if self.tokens.heard(asker.source.port()) {
            return Ok(Reached::Dns { answered: false });
        }
        match (led, server) {
            (Some(from), _) => {
                let lost = self.was_answered(asker, to, from)?;
                Ok(Reached::Tracked { port: from.port(), answered: lost.then_some(false) })
            }
            (None, _) => Ok(Reached::Nowhere),
        }
    }

    /// Who a datagram would meet, without a program that gets it. `None`: the sidecar, or tproxy in its place, which may
    /// be asked aloud.
    fn ask_silently(&self, asker: &Asker, to: SocketAddr) -> io::Result<Option<Reached>> {
        let (holder, came) = match self.knock(asker, to)? {
            Came::To(holder) => (holder, true),
            Came::Dropped(holder) => (holder, false),
            Came::Unknown => {
                let why =
                    "connection tracking does not know of it, so nobody sees which program would get it";
                return Ok(Some(Reached::Unknown(why.to_owned())));
            }
        };
        let led = Some(holder).filter(|holder| !same(*holder, to));
        if led.is_some_and(|led| led.port() == self.dns_port && self.is_here(led.ip())) {
            return Ok(None);
        }
        let elsewhere = led.map(|led| self.elsewhere(led));
        if let Some(Reached::Astray(away)) = elsewhere {
            return Ok(Some(Reached::Astray(away)));
        }
        if !came {
            return Ok(Some(Reached::Nowhere));
        }
        if !answer_for(holder, asker)? {
            let nobody = Reached::Tracked { port: holder.port(), answered: None };
            return Ok(Some(nobody));
        }
        let answered = match self.await_answer(asker, to, None, led, self.patience.until())? {
            Some(Reached::Tracked { answered, .. }) => answered == Some(true),
            Some(Reached::Destination { answered }) => answered,
            _ => false,
        };
        Ok(Some(match led {
            Some(led) => Reached::Tracked { port: led.port(), answered: Some(answered) },
            None => Reached::Program { answered },
        }))
    }

    fn await_answer(
        &self,
        asker: &Asker,
        to: SocketAddr,
        server: Option<&UdpSocket>,
        led: Option<SocketAddr>,
        deadline: Instant,
    ) -> io::Result<Option<Reached>> {
        let mut seen = false;
        loop {
            let mut fds: Vec<&dyn AsFd> = vec![&asker.udp];
            if let Some(server) = server {
                fds.push(server);
            }
            let ready = socket::readable(&fds, Some(deadline))?;
            let mut bytes = [0; 64];
            if ready.contains(&0) {
                let (size, from) = asker.udp.recv_from(&mut bytes)?;
                let answered = same(from, to);
                return Ok(Some(match led {
                    _ if bytes[..size] == self.token.answer() => Reached::Dns { answered },
                    Some(led) if bytes[..size] != *ECHO => {
                        Reached::Tracked { port: led.port(), answered: Some(answered) }
                    }
                    _ => Reached::Destination { answered },
                }));
            } else if let (true, Some(server)) = (ready.contains(&1), server) {
                let (size, from) = server.recv_from(&mut bytes)?;
                if bytes[..size] == self.token.question() && from.port() == asker.source.port() {
                    seen = true;
                    // If this is lost, that is what is told.
                    let _ = server.send_to(ECHO, from);
                }
            }
            // Others' questions do not keep this here.
            if ready.is_empty() || !self.patience.goes_on(deadline) {
                return Ok(seen.then_some(Reached::Destination { answered: false }));
            }
        }
    }

    /// Where else than to the server a question was led, if it was.
    fn led(&self, asker: &Asker, to: SocketAddr) -> io::Result<Option<SocketAddr>> {
        for zone in self.zones(asker.uid) {
            if let Some(flow) = conntrack::flow(Protocol::Udp, asker.source, to, zone)? {
                return Ok(Some(flow.answers_from).filter(|from| !same(*from, to)));
            }
        }
        Ok(None)
    }

    /// Whether somebody answered, although nothing came back: connection tracking has seen it, or has taken the
    /// answer for a flow of its own.
    fn was_answered(&self, asker: &Asker, to: SocketAddr, from: SocketAddr) -> io::Result<bool> {
        for zone in self.zones(asker.uid) {
            let flow = conntrack::flow(Protocol::Udp, asker.source, to, zone)?;
            if flow.is_some_and(|flow| flow.answered) {
                return Ok(true);
            }
        }
        for zone in ZONES {
            if conntrack::flow(Protocol::Udp, from, asker.source, zone)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether connection tracking knows a flow with these ends in any zone that rules put one into.
fn had_before(from: SocketAddr, to: SocketAddr) -> io::Result<bool> {
    for zone in ZONES {
        if conntrack::flow(Protocol::Udp, from, to, zone)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
