//! Probes over TCP.

use std::io::{self, Read as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::check::{Method, Reached, Way};
use super::lab::link_of;
use super::probe::{BRIEFLY, Field, lock, named, unspecified};
use crate::config::values::Protocol;
use crate::plan::Family;
use crate::sys::netlink::{conntrack, route, sockets};
use crate::sys::{socket, user};

/// Bytes that are taken of one connection from a program that was not asked anything. One that has more to say sends
/// without end.
const MOST: usize = 1 << 16;

const ELSEWHERE: &str = "this host's routing rules lead it elsewhere than to the temporary interface";

impl Field<'_> {
    pub(super) fn connect(
        &self,
        uid: u32,
        to: SocketAddr,
        way: Way,
        from: Option<IpAddr>,
    ) -> io::Result<Reached> {
        let place = self.place(to);
        let _alone = self.alone(&place)?;
        let listen = |device| socket::listen_on(socket::tcp(to.ip())?, to, device);
        let listener = match way {
            Way::Loopback => listen(None),
            Way::Route | Way::Device => self.lab()?.outside.run(|| listen(link_of(to.ip())))?,
        }
        .map_err(|error| named("nobody can be put at its destination", &error))?;
        match way {
            Way::Loopback if to.ip().is_loopback() => {
                let fd = self.begin(uid, to, Some(self.loopback), None)?;
                self.meet(fd, to, Some(&listener))
            }
            Way::Loopback => self.connect_here(uid, to, None, &listener),
            Way::Device => {
                let fd = self.begin(uid, to, Some(&self.lab()?.device), None)?;
                self.meet_bound(fd, to, &listener)
            }
            Way::Route => self.connect_freely(uid, to, from, &listener),
        }
    }

    fn connect_freely(
        &self,
        uid: u32,
        to: SocketAddr,
        from: Option<IpAddr>,
        listener: &TcpListener,
    ) -> io::Result<Reached> {
        if let Some(from) = from {
            // Else one that is not redirected would seem to get lost.
            self.lab()?.reach(from)?;
        }
        let scout = self.begin(uid, to, Some(&self.lab()?.device), from)?;
        match self.meet_bound(scout, to, listener)? {
            Reached::Tracked { .. } => {}
            // It has been seen what becomes of it, and a real one might leave.
            reached => return Ok(reached),
        }
        // A real sidecar goes on to the destination, as its own user.
        let users = if self.method == Method::Counters { vec![uid, self.sidecar] } else { vec![uid] };
        if let Some(why) = self.leaves(&users, to)? {
            return Ok(Reached::Unknown(why));
        }
        if from.is_some() && !self.is_led_out_from(uid, to.ip(), from)? {
            return Ok(Reached::Unknown(ELSEWHERE.to_owned()));
        }
        let fd = self.begin(uid, to, None, from)?;
        self.meet(fd, to, Some(listener))
    }

    /// Why packets of some users to a destination would not stay on this host, if they would not.
    pub(super) fn leaves(&self, users: &[u32], to: SocketAddr) -> io::Result<Option<String>> {
        if let Some(why) = self.is_overruled(to.ip())? {
            return Ok(Some(why));
        }
        for user in users {
            if !self.is_led_out(*user, to)? {
                return Ok(Some(ELSEWHERE.to_owned()));
            }
        }
        if users.contains(&self.sidecar) {
            let onward = self.begin(self.sidecar, to, Some(&self.lab()?.device), None)?;
            if let Some(Reached::Astray(away)) = self.led_to(local(&onward)?, to)? {
                return Ok(Some(format!(
                    "what the sidecar makes of it would leave this host: a NAT rule leads it to {away}"
                )));
            }
        }
        Ok(None)
    }

    /// Why what a running sidecar sends there could take another way. Where routing rules come before the temporary
    /// interface's routes, nobody can tell: they may go by marks that other rules give to packets.
    fn is_overruled(&self, there: IpAddr) -> io::Result<Option<String>> {
        let overruled = self.method == Method::Counters && !self.lab()?.is_first_route(there);
        let why = "this host's routing rules come before its table of local addresses, and may lead what the sidecar \
                   sends elsewhere than to the temporary interface";
        Ok(overruled.then(|| why.to_owned()))
    }

    /// Whether a user's packets would take the temporary interface. Connecting a UDP socket asks for the route and
    /// sends nothing.
    fn is_led_out(&self, uid: u32, to: SocketAddr) -> io::Result<bool> {
        let local = user::run_as(uid, || {
            let udp = UdpSocket::bind(SocketAddr::new(unspecified(to.ip()), 0))?;
            udp.connect(to)?;
            udp.local_addr()
        })??;
        Ok(self.lab()?.ends.values().flatten().any(|ends| ends.here == local.ip()))
    }

    /// The same of packets with a source address of their own, by which routing rules may go.
    fn is_led_out_from(&self, uid: u32, to: IpAddr, from: Option<IpAddr>) -> io::Result<bool> {
        let way = route::way(to, from, uid)?;
        Ok(way.is_some_and(|way| Some(way.interface) == self.lab.map(|lab| lab.index)))
    }

    pub(super) fn arrive(&self, from: IpAddr, to: SocketAddr) -> io::Result<Reached> {
        let place = self.place(to);
        let _alone = self.alone(&place)?;
        if let Some(why) = self.is_overruled(to.ip())? {
            return Ok(Reached::Unknown(why));
        }
        if self.is_sidecars(to) {
            let why = "the sidecar listens there itself, and would connect to itself without end";
            return Ok(Reached::Unknown(why.to_owned()));
        }
        let mut all = self.lab()?.ends.values().flatten();
        let there = all.find(|ends| ends.here == to.ip()).map_or(from, |ends| ends.there);
        if there != from {
            // Only sockets on the temporary interface answer by it. Anybody else's answer, also a refusal, would leave
            // by the route to this source, so it must be sure that there will be none.
            if self.method == Method::Counters && !self.sound {
                let why =
                    format!("the rules are not as wanted, so that answers to {from} could leave this host");
                return Ok(Reached::Unknown(why));
            }
            match self.arrive_from(there, to, false)? {
                Reached::Port(..) | Reached::Destination { .. } | Reached::Tracked { .. } => {}
                refused => return Ok(refused),
            }
        }
        self.arrive_from(from, to, there != from)
    }

    /// Whether a running sidecar listens on this port of the host.
    fn is_sidecars(&self, to: SocketAddr) -> bool {
        let of_family = |of: Family| {
            let all = sockets::waiting(of, Protocol::Tcp).unwrap_or_default();
            let own = to.is_ipv4() == (of == Family::V4);
            all.into_iter()
                .any(|at| at.uid == self.sidecar && at.port == to.port() && (own || at.both_families))
        };
        self.method == Method::Counters && Family::BOTH.into_iter().any(of_family)
    }

    /// `far`: no route to the source leads by the temporary interface.
    fn arrive_from(&self, from: IpAddr, to: SocketAddr, far: bool) -> io::Result<Reached> {
        let lab = self.lab()?;
        // Answers to a listener on the device go back by it, whatever the routes say of their destination.
        let listener = match socket::listen_on(socket::tcp(to.ip())?, to, Some(&lab.device)) {
            Ok(listener) => Some(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && far => {
                let why =
                    format!("a program listens at {to}, and its answer to {from} would leave this host");
                return Ok(Reached::Unknown(why));
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if let Some(reached) = self.knock_from_outside(from, to)? {
                    return Ok(reached);
                }
                None
            }
            Err(error) => return Err(error),
        };
        let fd = lab.outside.run(|| {
            let fd = socket::tcp(to.ip())?;
            // A host that a NAT rule makes forward it does not.
            socket::stay_near(&fd, to.ip())?;
            socket::bind_to(&fd, SocketAddr::new(from, 0))?;
            socket::begin_connect(&fd, to)?;
            Ok::<_, io::Error>(fd)
        })??;
        self.began(Protocol::Tcp, local(&fd)?, to);
        self.meet(fd, to, listener.as_ref())
    }

    pub(super) fn pass_on(&self, uid: u32, source: IpAddr, to: SocketAddr) -> io::Result<Reached> {
        let place = self.place(to);
        let _alone = self.alone(&place)?;
        let listener = socket::listen_on(socket::tcp(to.ip())?, to, None)?;
        self.connect_here(uid, to, Some(source), &listener)
    }

    /// To this host's own address on the temporary interface, which leads over loopback.
    fn connect_here(
        &self,
        uid: u32,
        to: SocketAddr,
        source: Option<IpAddr>,
        listener: &TcpListener,
    ) -> io::Result<Reached> {
        let scout = self.begin(uid, to, Some(&self.lab()?.device), source)?;
        match conntrack::flow(Protocol::Tcp, local(&scout)?, to, 0)? {
            Some(flow) if !self.is_here(flow.answers_from.ip()) => {
                return Ok(Reached::Astray(flow.answers_from));
            }
            // Connection tracking forgets a connection that is refused at once; here nobody refuses it.
            None if was_refused(&scout)? => return Ok(Reached::Refused),
            // Where no route leads to, IPv6 loses a packet before connection tracking knows of it. Only where it knows
            // of none, nothing leads anywhere else.
            None if to.is_ipv6() && self.is_tracked(uid, to)? => return Ok(Reached::Nowhere),
            _ => {}
        }
        drop(scout);
        self.meet(self.begin(uid, to, None, source)?, to, Some(listener))
    }

    /// Begins a connection as a user, bound to an interface or else only with packets that live to the next host.
    fn begin(
        &self,
        uid: u32,
        to: SocketAddr,
        device: Option<&str>,
        source: Option<IpAddr>,
    ) -> io::Result<OwnedFd> {
        let fd = user::run_as(uid, || socket::tcp(to.ip()))??;
        match device {
            Some(device) => socket::bind_to_device(&fd, device)?,
            None => socket::stay_near(&fd, to.ip())?,
        }
        user::run_as(uid, || {
            if let Some(source) = source {
                socket::bind_to(&fd, SocketAddr::new(source, 0))
                    .map_err(|error| named(&format!("{source} cannot be bound"), &error))?;
            }
            socket::begin_connect(&fd, to)
        })??;
        self.began(Protocol::Tcp, local(&fd)?, to);
        Ok(fd)
    }

    /// Whether connections to elsewhere are tracked.
    fn is_tracked(&self, uid: u32, to: SocketAddr) -> io::Result<bool> {
        let lab = self.lab()?;
        let mut all = lab.ends.values().flatten();
        let Some(ends) = all.find(|ends| ends.here == to.ip()) else { return Ok(true) };
        let far = SocketAddr::new(ends.far, to.port());
        let scout = self.begin(uid, far, Some(&lab.device), None)?;
        Ok(conntrack::flow(Protocol::Tcp, local(&scout)?, far, 0)?.is_some())
    }

    /// Who a connection meets that is bound to the temporary interface. One that is redirected does not get far.
    fn meet_bound(&self, fd: OwnedFd, to: SocketAddr, listener: &TcpListener) -> io::Result<Reached> {
        match self.led_to(local(&fd)?, to)? {
            Some(reached) => Ok(reached),
            None => self.meet(fd, to, Some(listener)),
        }
    }

    /// Who a connection under way meets.
    pub(super) fn meet(
        &self,
        fd: OwnedFd,
        to: SocketAddr,
        listener: Option<&TcpListener>,
    ) -> io::Result<Reached> {
        let deadline = self.patience.until();
        let local = local(&fd)?;
        let stream = socket::connected(fd, deadline)?;
        // Nobody has to say good-bye to it later, when there is no way to here any more.
        socket::reset_on_close(&stream)?;
        if self.method == Method::Counters {
            match self.led_to(local, to) {
                Ok(Some(reached)) => {
                    self.see_off(stream, listener)?;
                    return Ok(reached);
                }
                // A listener of our own tells as well.
                Err(error) if listener.is_none() => return Ok(Reached::Unknown(error.to_string())),
                _ => {}
            }
        }
        loop {
            let mut fds: Vec<&dyn AsFd> = vec![&stream];
            if let Some(listener) = listener {
                fds.push(listener);
            }
            let patience = if listener.is_some() { deadline } else { self.patience.at_most(BRIEFLY) };
            let ready = socket::readable(&fds, Some(patience))?;
            if ready.is_empty() {
                // The handshake is done, so somebody listens there.
                return Ok(Reached::Somebody);
            }
            if let (true, Some(listener)) = (ready.contains(&1), listener) {
                match listener.accept() {
                    Ok((_, peer)) if peer == local => return Ok(Reached::Destination { answered: true }),
                    // Another program's. One that connects without end does not keep this here.
                    _ if self.patience.goes_on(deadline) => continue,
                    _ => return Ok(Reached::Somebody),
                }
            }
            return Ok(self.greeting(&stream)?.unwrap_or(Reached::Somebody));
        }
    }

    /// Lets a real sidecar finish. It goes on to the destination, perhaps a moment later, and has to get there while
    /// there is one; and it has done what it will when it lets go of the connection. One that takes long is told that
    /// nothing more comes, and is waited for at the end.
    fn see_off(&self, stream: TcpStream, listener: Option<&TcpListener>) -> io::Result<()> {
        let mut held = Held { stream, heard: 0 };
        let deadline = self.patience.until_let_go(lock(&self.unfinished).len());
        while !held.is_over() {
            let mut fds: Vec<&dyn AsFd> = vec![&held.stream];
            if let Some(listener) = listener {
                fds.push(listener);
            }
            let ready = socket::readable(&fds, Some(deadline))?;
            // One that always has something to say is not heard out either.
            if ready.is_empty() || !self.patience.goes_on(deadline) {
                held.stream.shutdown(Shutdown::Write)?;
                lock(&self.unfinished).push(held);
                return Ok(());
            }
            if let (true, Some(listener)) = (ready.contains(&1), listener)
                && let Ok((onward, _)) = listener.accept()
            {
                socket::reset_on_close(&onward)?;
            }
        }
        Ok(())
    }

    /// What the sidecar's line says, if the connection is with it.
    fn greeting(&self, stream: &TcpStream) -> io::Result<Option<Reached>> {
        let mut text = [0; 128];
        let size = match socket::read_until(stream, &mut text, Instant::now() + BRIEFLY) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(error),
            other => other.unwrap_or(0),
        };
        let line = self.token.read_line(&String::from_utf8_lossy(&text[..size]));
        Ok(line.map(|(channel, original)| Reached::Port(channel, original)))
    }
}

/// Whether somebody refused a connection that was begun.
fn was_refused(fd: &OwnedFd) -> io::Result<bool> {
    Ok(TcpStream::from(fd.try_clone()?).take_error()?.is_some())
}

/// A connection that the program at its other end, a sidecar, has not let go of. It does not block; to close it resets it.
pub struct Held {
    pub(super) stream: TcpStream,
    /// How many bytes it said. They are lost.
    heard: usize,
}

impl Held {
    /// Whether the sidecar has let go of it, or is not to be heard out.
    pub(super) fn is_over(&mut self) -> bool {
        let mut bytes = [0; 4096];
        while self.heard < MOST {
            match self.stream.read(&mut bytes) {
                Ok(0) => return true,
                Ok(more) => self.heard += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
        true
    }
}

pub(super) fn local(fd: &OwnedFd) -> io::Result<SocketAddr> {
    TcpStream::from(fd.try_clone()?).local_addr()
}
