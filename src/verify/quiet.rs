//! Probes that would come to a program of the host: every rule sees them, and no program ever does.
//!
//! A datagram has a wrong checksum, so the kernel counts it and drops it where it would look for the socket. Connection
//! tracking tells where that is, and the way back is proven with an answer that tproxy sends in the program's place. A
//! connection is asked for, and the one who asks, a namespace without sockets, takes it back as soon as it is granted.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::check::{Method, Reached};
use super::datagram::Asker;
use super::probe::{BRIEFLY, Field, lock, same};
use crate::config::values::Protocol;
use crate::plan::Family;
use crate::sys::netlink::{conntrack, sockets};
use crate::sys::raw::{self, Knocked, Raw};
use crate::sys::rights::{self, Right};
use crate::sys::{socket, user};

/// What tproxy answers in a program's place.
const ANSWER: &[u8] = b"answered";

/// Between two looks at what the kernel has counted; the first one is nearly always enough.
const PAUSE: Duration = Duration::from_millis(2);

/// Where a datagram would have gone that no program got.
pub(super) enum Came {
    /// To the socket of whoever has this port.
    To(SocketAddr),
    /// It was led there, and dropped before.
    Dropped(SocketAddr),
    /// Connection tracking knows nothing of it.
    Unknown,
}

impl Field<'_> {
    /// Sends what is no datagram to a program, bound to loopback.
    pub(super) fn knock(&self, asker: &Asker, to: SocketAddr) -> io::Result<Came> {
        let raw = raw_as(Protocol::Udp, asker.uid, asker.source.ip())?;
        socket::bind_to_device(&raw, self.loopback)?;
        let packet = raw::spoiled_udp(asker.source, to, &self.token.question());
        // Others' would be taken for this one.
        let _alone = lock(&self.knocking);
        let before = raw::spoiled_so_far(to.ip())?;
        raw.send(&packet, to.ip())?;
        let mut led = None;
        for zone in self.zones(asker.uid) {
            if let Some(flow) = conntrack::flow(Protocol::Udp, asker.source, to, zone)? {
                led = Some(flow.answers_from);
                break;
            }
        }
        let Some(led) = led else { return Ok(Came::Unknown) };
        let deadline = self.patience.at_most(BRIEFLY);
        while raw::spoiled_so_far(to.ip())? == before {
            if Instant::now() >= deadline || !self.is_here(led.ip()) {
                return Ok(Came::Dropped(led));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(Came::To(led))
    }

    /// Asks for a connection from outside with a program that listens, which never hears of it. `None`: it would be
    /// redirected to tproxy itself, which may be asked aloud.
    pub(super) fn knock_from_outside(&self, from: IpAddr, to: SocketAddr) -> io::Result<Option<Reached>> {
        let lab = self.lab()?;
        let (raw, from) = lab.outside.run(|| {
            let raw = Raw::open(Protocol::Tcp, from).map_err(|error| not_permitted(&error))?;
            socket::stay_near(&raw, to.ip())?;
            // A port that no socket there has, so that the kernel takes back what was granted.
            let reserved = socket::tcp(from)?;
            socket::bind_to(&reserved, SocketAddr::new(from, 0))?;
            let from = std::net::TcpStream::from(reserved).local_addr()?;
            Ok::<_, io::Error>((raw, from))
        })??;
        self.began(Protocol::Tcp, from, to);
        let sequence = u32::try_from(self.token.seed() & u64::from(u32::MAX)).unwrap_or_default();
        raw.send(&raw::syn(from, to, sequence), to.ip())?;
        let deadline = self.patience.until();
        let answer = loop {
            match raw.answer(from, to) {
                Ok(Some(answer)) => break Some(answer),
                // Others' packets do not keep this here.
                Ok(None) if self.patience.goes_on(deadline) => {}
                Ok(None) => break None,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if socket::readable(&[&raw], Some(deadline))?.is_empty() {
                        break None;
                    }
                }
                Err(error) => return Err(error),
            }
        };
        let flow = conntrack::flow(Protocol::Tcp, from, to, 0)?;
        let led = flow.map(|flow| flow.answers_from);
        Ok(Some(match (led, answer) {
            (Some(led), _) if !same(led, to) && !self.is_here(led.ip()) => Reached::Astray(led),
            (_, Some(Knocked::Refused)) => Reached::Refused,
            (_, None) => Reached::Nowhere,
            (Some(led), _) if same(led, to) => Reached::Program { answered: true },
            (Some(led), _) if self.method == Method::Listeners && led.port() == self.inbound_port => {
                return Ok(None);
            }
            (Some(led), _) => self.elsewhere(led),
            (None, _) => Reached::Unknown(
                "a program answers, and connection tracking does not tell whether it is the one it was sent to".to_owned(),
            ),
        }))
    }
}

/// Answers to an asker as the one who has the port at which its datagram would have come in; `false` if nobody has.
pub(super) fn answer_for(holder: SocketAddr, asker: &Asker) -> io::Result<bool> {
    let Some(uid) = holder_of(holder) else { return Ok(false) };
    let raw = raw_as(Protocol::Udp, uid, holder.ip())?;
    raw.send(&raw::udp(holder, asker.source, ANSWER), asker.source.ip())?;
    Ok(true)
}

/// A raw socket that is a user's to every rule.
fn raw_as(protocol: Protocol, uid: u32, from: IpAddr) -> io::Result<Raw> {
    user::own_as(uid, || Raw::open(protocol, from))?.map_err(|error| not_permitted(&error))
}

fn not_permitted(error: &io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return io::Error::new(error.kind(), error.to_string());
    }
    let remedy = rights::remedy(&[Right::NetRaw]);
    let why =
        format!("a program of this host would get it, and what no program gets takes a raw socket: {remedy}");
    io::Error::new(io::ErrorKind::Unsupported, why)
}

/// Who has a UDP port.
fn holder_of(at: SocketAddr) -> Option<u32> {
    let of = |family: Family| {
        let all = sockets::waiting(family, Protocol::Udp).unwrap_or_default();
        let own = at.is_ipv4() == (family == Family::V4);
        all.into_iter().find(|socket| {
            let any = socket.address.is_unspecified() && (own || socket.both_families);
            socket.port == at.port() && (any || socket.address == at.ip())
        })
    };
    Family::BOTH.into_iter().find_map(of).map(|socket| socket.uid)
}
