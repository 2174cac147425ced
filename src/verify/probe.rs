//! Sends one probe and sees where it arrives.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::check::{Method, Probe, Reached, Way};
use super::lab::Lab;
use crate::config::values::Protocol;
use crate::sidecar::token::{Token, Tokens};
use crate::sys::netlink::conntrack;
use crate::sys::{socket, user};

/// How long a probe may take. Nothing leaves this host, so an answer takes well under a millisecond; what is lost is
/// sent again after a second.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How long is waited for something that need not come.
const BRIEFLY: Duration = Duration::from_millis(300);

/// What the other end of a datagram answers.
const ECHO: &[u8] = b"seen";

/// Zones that rules put the sidecar's own DNS flows into and everybody else's, and the one without a number.
const SIDECAR_ZONES: [u16; 2] = [1, 0];
const APP_ZONES: [u16; 2] = [2, 0];

/// Where probes are sent.
pub struct Field<'a> {
    /// Where they go to, where that can be made.
    pub lab: Option<&'a Lab>,
    /// What ends of our own answer with.
    pub token: Token,
    /// The sidecar's user.
    pub sidecar: u32,
    /// The sidecar of our own.
    pub tokens: &'a Tokens,
    /// How it is seen where they arrive.
    pub method: Method,
    /// One probe at a time to the same destination: each has a listener there.
    pub busy: Mutex<HashMap<SocketAddr, Arc<Mutex<()>>>>,
}

impl Field<'_> {
    /// Sends a probe, and once more from another port if it got lost: on a busy host that happens by itself.
    pub fn send(&self, probe: &Probe) -> Reached {
        let lost = |reached: &Reached| match reached {
            Reached::Nowhere | Reached::Unsent(_) | Reached::Dns { answered: false } => true,
            Reached::Tracked(_) => self.method == Method::Listeners,
            _ => false,
        };
        let first = self.send_once(probe);
        if lost(&first) { self.send_once(probe) } else { first }
    }

    fn send_once(&self, probe: &Probe) -> Reached {
        let sent = match probe {
            Probe::Connect { uid, to, way } => self.connect(*uid, *to, *way),
            Probe::Arrive { from, to } => self.arrive(*from, *to),
            Probe::Datagram { uid, to } => self.datagram(*uid, *to),
            Probe::Again { first, then, to } => self.again(*first, *then, *to),
            Probe::Passthrough { uid, source, to } => self.pass_on(*uid, *source, *to),
            Probe::Nothing(why) => Ok(Reached::Unknown(why.clone())),
        };
        sent.unwrap_or_else(|error| failed(&error))
    }

    fn lab(&self) -> io::Result<&Lab> {
        self.lab.ok_or_else(|| io::Error::other("there is no temporary interface"))
    }

    fn place(&self, to: SocketAddr) -> Arc<Mutex<()>> {
        lock(&self.busy).entry(to).or_default().clone()
    }

    fn connect(&self, uid: u32, to: SocketAddr, way: Way) -> io::Result<Reached> {
        let place = self.place(to);
        let _alone = lock(&place);
        let listen = || socket::listen_on(socket::tcp(to.ip())?, to, None);
        let listener = match way {
            Way::Loopback => listen(),
            Way::Route | Way::Device => self.lab()?.outside.run(listen)?,
        }
        .map_err(|error| named("nobody can be put at its destination", &error))?;

        if way == Way::Route && !self.is_led_out(uid, to)? {
            let why = "this host's routing rules lead it elsewhere than to the temporary interface";
            return Ok(Reached::Unknown(why.to_owned()));
        }
        let fd = user::run_as(uid, || socket::tcp(to.ip()))??;
        match way {
            Way::Route => socket::stay_near(&fd, to.ip())?,
            Way::Device => socket::bind_to_device(&fd, &self.lab()?.device)?,
            Way::Loopback => {}
        }
        user::run_as(uid, || socket::begin_connect(&fd, to))??;
        self.meet(fd, to, Some(&listener))
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

    fn arrive(&self, from: IpAddr, to: SocketAddr) -> io::Result<Reached> {
        let place = self.place(to);
        let _alone = lock(&place);
        let lab = self.lab()?;
        // Answers to a listener on the device go back by it, whatever the routes say of their destination. A port
        // that is left alone may have a listener already.
        let listener = match socket::listen_on(socket::tcp(to.ip())?, to, Some(&lab.device)) {
            Ok(listener) => Some(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
            Err(error) => return Err(error),
        };
        let fd = lab.outside.run(|| {
            let fd = socket::tcp(to.ip())?;
            socket::bind_to(&fd, SocketAddr::new(from, 0))?;
            socket::begin_connect(&fd, to)?;
            Ok::<_, io::Error>(fd)
        })??;
        self.meet(fd, to, listener.as_ref())
    }

    fn pass_on(&self, uid: u32, source: IpAddr, to: SocketAddr) -> io::Result<Reached> {
        let place = self.place(to);
        let _alone = lock(&place);
        let listener = socket::listen_on(socket::tcp(to.ip())?, to, None)?;
        let fd = user::run_as(uid, || {
            let fd = socket::tcp(to.ip())?;
            socket::bind_to(&fd, SocketAddr::new(source, 0))
                .map_err(|error| named(&format!("{source} cannot be bound"), &error))?;
            socket::begin_connect(&fd, to)?;
            Ok::<_, io::Error>(fd)
        })??;
        self.meet(fd, to, Some(&listener))
    }

    /// Who a connection under way meets.
    fn meet(&self, fd: OwnedFd, to: SocketAddr, listener: Option<&TcpListener>) -> io::Result<Reached> {
        let deadline = Instant::now() + PATIENCE;
        let stream = TcpStream::from(fd);
        let local = stream.local_addr()?;
        // A socket that is bound to the interface does not get far when it is redirected.
        if !socket::is_settled(&stream, Instant::now() + BRIEFLY)? {
            match conntrack::answers_from(Protocol::Tcp, local, to, 0) {
                Ok(Some(from)) if from != to => return Ok(Reached::Tracked(from.port())),
                _ => {}
            }
        }
        let stream = socket::connected(stream.into(), deadline)?;
        if self.method == Method::Counters {
            match conntrack::answers_from(Protocol::Tcp, local, to, 0) {
                Ok(Some(from)) if from != to => {
                    // A real sidecar goes on to the destination. It has to get there while there is one.
                    if let Some(listener) = listener {
                        socket::readable(&[listener], Some(Instant::now() + BRIEFLY))?;
                    }
                    return Ok(Reached::Tracked(from.port()));
                }
                Err(error) if listener.is_none() => return Ok(Reached::Unknown(error.to_string())),
                _ => {}
            }
        }
        loop {
            let mut fds: Vec<&dyn AsFd> = vec![&stream];
            if let Some(listener) = listener {
                fds.push(listener);
            }
            let patience = if listener.is_some() { deadline } else { Instant::now() + BRIEFLY };
            let ready = socket::readable(&fds, Some(patience))?;
            if ready.is_empty() {
                // The handshake is done, so somebody listens there.
                return Ok(Reached::Somebody);
            }
            if let (true, Some(listener)) = (ready.contains(&1), listener) {
                match listener.accept() {
                    Ok((_, peer)) if peer == local => return Ok(Reached::Destination { answered: true }),
                    // Somebody else's.
                    _ => continue,
                }
            }
            return Ok(self.greeting(&stream)?.unwrap_or(Reached::Somebody));
        }
    }

    /// What the sidecar's line says, if the connection is with it.
    fn greeting(&self, stream: &TcpStream) -> io::Result<Option<Reached>> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(BRIEFLY))?;
        let mut text = Vec::new();
        match stream.take(128).read_to_end(&mut text) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(error),
            _ => {}
        }
        let line = self.token.read_line(&String::from_utf8_lossy(&text));
        Ok(line.map(|(channel, original)| Reached::Port(channel, original)))
    }

    fn datagram(&self, uid: u32, to: SocketAddr) -> io::Result<Reached> {
        let place = self.place(to);
        let _alone = lock(&place);
        let server = self.server(to)?;
        let asker = Self::asker(uid, to.ip(), 0)?;
        self.ask(&asker, uid, to, server.as_ref())
    }

    fn again(&self, first: u32, then: u32, to: SocketAddr) -> io::Result<Reached> {
        let place = self.place(to);
        let _alone = lock(&place);
        let server = self.server(to)?;
        let asker = Self::asker(first, to.ip(), 0)?;
        let port = asker.local_addr()?.port();
        self.ask(&asker, first, to, server.as_ref())?;
        drop(asker);
        self.tokens.forget(port);
        let asker = Self::asker(then, to.ip(), port)?;
        self.ask(&asker, then, to, server.as_ref())
    }

    /// Somebody at a datagram's destination; on this host there may be a real server already.
    fn server(&self, to: SocketAddr) -> io::Result<Option<UdpSocket>> {
        let listen = || socket::udp_at(socket::udp(to.ip())?, to);
        if !to.ip().is_loopback() {
            return self.lab()?.outside.run(listen)?.map(Some);
        }
        match listen() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            other => other.map(Some),
        }
    }

    fn asker(uid: u32, to: IpAddr, port: u16) -> io::Result<UdpSocket> {
        let fd = user::run_as(uid, || socket::udp(to))??;
        socket::udp_at(fd, SocketAddr::new(unspecified(to), port))
    }

    /// Who a datagram meets.
    fn ask(
        &self,
        asker: &UdpSocket,
        uid: u32,
        to: SocketAddr,
        server: Option<&UdpSocket>,
    ) -> io::Result<Reached> {
        let mut deadline = Instant::now() + PATIENCE;
        let port = asker.local_addr()?.port();
        let source = if to.ip().is_loopback() {
            asker.send_to(&self.token.question(), to)?;
            localhost(to.ip())
        } else {
            let lab = self.lab()?;
            socket::send_by(asker, &self.token.question(), to, lab.index)?;
            let mut ends = lab.ends.values().flatten().map(|ends| ends.here);
            ends.find(|here| here.is_ipv4() == to.is_ipv4()).unwrap_or(unspecified(to.ip()))
        };
        let tracked = || {
            let zones = if uid == self.sidecar { SIDECAR_ZONES } else { APP_ZONES };
            let mut found = zones
                .iter()
                .map(|zone| conntrack::answers_from(Protocol::Udp, SocketAddr::new(source, port), to, *zone));
            found.find_map(|answer| answer.ok().flatten()).filter(|from| *from != to)
        };
        if let Some(from) = (self.method == Method::Counters).then(tracked).flatten() {
            return Ok(Reached::Tracked(from.port()));
        }
        let mut seen = false;
        loop {
            let mut fds: Vec<&dyn AsFd> = vec![asker];
            if let Some(server) = server {
                fds.push(server);
            }
            let ready = socket::readable(&fds, Some(deadline))?;
            let mut bytes = [0; 64];
            if ready.contains(&0) {
                let (size, from) = asker.recv_from(&mut bytes)?;
                if bytes[..size] == self.token.answer() {
                    return Ok(Reached::Dns { answered: same(from, to) });
                }
                if bytes[..size] == *ECHO {
                    return Ok(Reached::Destination { answered: same(from, to) });
                }
            } else if let (true, Some(server)) = (ready.contains(&1), server) {
                let (size, from) = server.recv_from(&mut bytes)?;
                if bytes[..size] == self.token.question() && from.port() == port {
                    seen = true;
                    deadline = deadline.min(Instant::now() + BRIEFLY);
                    // If this is lost, that is what is told.
                    let _ = server.send_to(ECHO, from);
                }
            } else if seen {
                return Ok(Reached::Destination { answered: false });
            } else if self.tokens.heard(port) {
                return Ok(Reached::Dns { answered: false });
            } else if server.is_none() {
                let why = "the server on this host gives no sign of what it gets";
                return Ok(Reached::Unknown(why.to_owned()));
            } else {
                return Ok(Reached::Nowhere);
            }
        }
    }
}

/// Whether two addresses are the same but for what IPv6 adds to them.
fn same(a: SocketAddr, b: SocketAddr) -> bool {
    a.ip() == b.ip() && a.port() == b.port()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn failed(error: &io::Error) -> Reached {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Reached::Refused,
        io::ErrorKind::TimedOut => Reached::Nowhere,
        _ => Reached::Unsent(error.to_string()),
    }
}

fn unspecified(family_of: IpAddr) -> IpAddr {
    if family_of.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn localhost(family_of: IpAddr) -> IpAddr {
    if family_of.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}
