//! Forwards connections to where they were to go, as a sidecar without any policy does.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{Channel, Connection, Service, dns};
use crate::sys::{socket, user};

/// How long a destination may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The address from which inbound connections are passed on. Rules know it and leave it alone.
pub const fn passthrough(v4: bool) -> IpAddr {
    if v4 {
        IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6))
    } else {
        IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6))
    }
}

/// What the sidecar saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A connection, forwarded.
    Connection {
        /// Which port it came to.
        channel: Channel,
        /// Who began it.
        peer: SocketAddr,
        /// Where it was to go.
        original: SocketAddr,
    },
    /// A DNS question.
    Question {
        /// The name, without the last dot.
        name: String,
        /// Who asked.
        from: SocketAddr,
    },
}

/// The service. `seen` hears of everything; `names` knows the addresses of names.
pub struct Forwarder<S, N> {
    /// The sidecar's user; its connections are not redirected again.
    pub uid: u32,
    /// Hears of everything.
    pub seen: S,
    /// Knows the addresses of names.
    pub names: N,
}

impl<S, N> Service for Forwarder<S, N>
where
    S: Fn(Seen) + Send + Sync,
    N: Fn(&str) -> Vec<IpAddr> + Send + Sync,
{
    fn connection(&self, connection: Connection) {
        let Connection { channel, stream, peer, original } = connection;
        let Ok(original) = original else { return };
        (self.seen)(Seen::Connection { channel, peer, original });
        let uid = self.uid;
        // Without a thread to serve it the connection ends, which whoever began it sees.
        let _ = std::thread::Builder::new().name("forward".into()).spawn(move || {
            if let Ok(onward) = open(channel, uid, original) {
                relay(&stream, &onward);
            } else {
                let _ = socket::reset_on_close(&stream);
            }
        });
    }

    fn question(&self, question: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
        let (name, answer) = dns::answer(question, &self.names)?;
        (self.seen)(Seen::Question { name, from });
        Some(answer)
    }
}

fn open(channel: Channel, uid: u32, to: SocketAddr) -> io::Result<TcpStream> {
    let fd = user::run_as(uid, || {
        let fd = socket::tcp(to.ip())?;
        if channel == Channel::Inbound {
            socket::bind_to(&fd, SocketAddr::new(passthrough(to.is_ipv4()), 0))?;
        }
        socket::begin_connect(&fd, to)?;
        Ok::<_, io::Error>(fd)
    })??;
    let stream = socket::connected(fd, Instant::now() + PATIENCE)?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Copies both ways until both sides have said all.
fn relay(near: &TcpStream, far: &TcpStream) {
    std::thread::scope(|scope| {
        scope.spawn(|| pour(near, far));
        pour(far, near);
    });
}

fn pour(mut from: &TcpStream, mut to: &TcpStream) {
    // An error and an end are the same to the other side: nothing more comes.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn both_directions_are_copied_to_their_end() {
        let app = TcpListener::bind("127.0.0.1:0").unwrap();
        let original = app.local_addr().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(port.local_addr().unwrap()).unwrap();
        let (stream, peer) = port.accept().unwrap();
        let (tell, told) = mpsc::channel();
        let seen = move |seen| tell.send(seen).unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        let forwarder = Forwarder { uid, seen, names: |_: &str| Vec::new() };
        let channel = Channel::Inbound;
        forwarder.connection(Connection { channel, stream, peer, original: Ok(original) });

        let (mut served, from) = app.accept().unwrap();
        assert_eq!(from.ip(), passthrough(true));
        assert_eq!(told.recv().unwrap(), Seen::Connection { channel, peer, original });
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        served.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        served.write_all(b"answer").unwrap();
        drop(served);
        text.clear();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
    }
}
