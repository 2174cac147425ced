//! Servers that tell each client who it is to them, clients that ask, and how to know from both which way a
//! connection took.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::question;
use crate::plan::Family;
use crate::present::demo::Way;
use crate::sidecar::forward::Seen;
use crate::sidecar::{Channel, Connection, Service, dns};
use crate::sys::socket;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest greeting, in bytes: an IPv6 address, a port and the end of the line.
const GREETING: usize = 64;

/// A server: says to each client what its address is as seen from here. As a DNS server it knows no name at all.
#[derive(Debug)]
pub struct Greeter;

impl Service for Greeter {
    fn connection(&self, connection: Connection) {
        let Connection { mut stream, peer, .. } = connection;
        // A client that is gone already has no use for it.
        let _ = stream.write_all(format!("{peer}\n").as_bytes());
    }

    fn question(&self, question: &[u8], _: SocketAddr) -> Option<Vec<u8>> {
        dns::answer(question, |_| Vec::new()).map(|(_, answer)| answer)
    }
}

/// What a client knows when it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Its own address.
    pub own: SocketAddr,
    /// Where it connected to.
    pub to: SocketAddr,
    /// With whom the server thinks it talks.
    pub told: SocketAddr,
}

/// Connects to a [`Greeter`].
///
/// # Errors
/// The kernel's, or the answer is no address.
pub fn call(to: SocketAddr) -> io::Result<Call> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    let own = stream.local_addr()?;
    let mut text = [0; GREETING];
    let size = socket::read_until(&stream, &mut text, Instant::now() + PATIENCE)?;
    Ok(Call { own, to, told: read_greeting(&String::from_utf8_lossy(&text[..size]))? })
}

/// The address in a greeting.
///
/// # Errors
/// There is none.
pub fn read_greeting(text: &str) -> io::Result<SocketAddr> {
    text.trim_end().parse().map_err(|_| io::Error::other("closed without an answer"))
}

/// Asks a DNS server for the address of a name. `None`: there is no such name.
///
/// # Errors
/// The kernel's; nobody answered.
pub fn look_up(name: &str, server: SocketAddr, family: Family) -> io::Result<(SocketAddr, Option<IpAddr>)> {
    let udp = UdpSocket::bind((if server.is_ipv4() { "0.0.0.0" } else { "::" }, 0))?;
    // From here on only what comes from that server's address is received.
    udp.connect(server)?;
    udp.set_read_timeout(Some(PATIENCE))?;
    udp.send(&question::ask(name, family))?;
    let mut answer = [0; 512];
    let size = udp.recv(&mut answer)?;
    Ok((udp.local_addr()?, question::read(&answer[..size], family)))
}

/// What the sidecar noted.
#[derive(Debug, Default)]
pub struct Notes(Mutex<Vec<Seen>>);

impl Notes {
    /// One more.
    pub fn add(&self, seen: Seen) {
        if let Ok(mut notes) = self.0.lock() {
            notes.push(seen);
        }
    }

    /// All since the last time.
    pub fn take(&self) -> Vec<Seen> {
        self.0.lock().map(|mut notes| std::mem::take(&mut *notes)).unwrap_or_default()
    }
}

/// Which way a connection took. Whoever answered tells with whom it talked: with the client itself, or with somebody
/// between. That this was the sidecar is known by the sidecar's note of the client and of where it wanted to go.
pub fn way(call: &Call, noted: Option<&(Channel, SocketAddr)>) -> Way {
    match noted {
        None if call.told == call.own => Way::Straight,
        Some((channel, original)) if call.told != call.own && *original == call.to => Way::Sidecar(*channel),
        _ => Way::Lost(format!("answered to {}, and nobody knows why", call.told)),
    }
}

/// A note about a connection as client and the rest.
pub fn connection(seen: &Seen) -> Option<(SocketAddr, (Channel, SocketAddr))> {
    match seen {
        Seen::Connection { channel, peer, original } => Some((*peer, (*channel, *original))),
        Seen::Question { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sidecar::{Port, Sidecar};

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_way_needs_two_witnesses() {
        let (own, to, other) = (addr("10.0.0.1:4"), addr("10.0.0.2:80"), addr("10.0.0.1:5"));
        let straight = Call { own, to, told: own };
        let between = Call { own, to, told: other };
        let noted = (Channel::Outbound, to);
        assert_eq!(way(&straight, None), Way::Straight);
        assert_eq!(way(&between, Some(&noted)), Way::Sidecar(Channel::Outbound));
        for (call, noted) in
            [(straight, Some(noted)), (between, None), (between, Some((Channel::Outbound, other)))]
        {
            assert!(matches!(way(&call, noted.as_ref()), Way::Lost(_)), "{call:?} {noted:?}");
        }
    }

    #[test]
    fn servers_tell_clients_who_they_are() {
        let any = addr("127.0.0.1:0");
        let uid = nix::unistd::geteuid().as_raw();
        let tcp = Port::tcp(Channel::Inbound, uid, any, None).unwrap();
        let udp = Port::dns(uid, any).unwrap();
        let (Port::Tcp(_, listener), Port::Dns(socket)) = (&tcp, &udp) else { unreachable!() };
        let (to, server) = (listener.local_addr().unwrap(), socket.local_addr().unwrap());
        let _running = Sidecar::start(vec![tcp, udp], Arc::new(Greeter)).unwrap();
        let call = call(to).unwrap();
        assert_eq!((call.own, call.to), (call.told, to));
        assert_eq!(look_up("shop.mesh", server, Family::V4).unwrap().1, None);
    }
}
