//! A minimal sidecar: takes redirected connections and DNS questions as a real one does, and knows what they were
//! before. `verify` has it answer with a token, `demo` has it forward and answer names.

pub mod dns;
pub mod forward;
pub mod token;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};

use nix::fcntl::OFlag;

use crate::sys::{socket, threads, user};

/// The largest question that is read, in bytes; DNS over UDP rarely has more than 512.
const QUESTION: usize = 4096;

/// Which of the sidecar's TCP ports a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// From a process of this host to somewhere.
    Outbound,
    /// To a process of this host.
    Inbound,
}

/// A connection that came to one of the ports.
#[derive(Debug)]
pub struct Connection {
    /// Which port.
    pub channel: Channel,
    /// It.
    pub stream: TcpStream,
    /// Who began it.
    pub peer: SocketAddr,
    /// Where it was to go before it was redirected.
    pub original: io::Result<SocketAddr>,
}

/// What is done with what comes.
pub trait Service: Send + Sync {
    /// A connection came. While this runs nothing else is accepted.
    fn connection(&self, connection: Connection);

    /// A DNS question came; the answer, if there is one.
    fn question(&self, question: &[u8], from: SocketAddr) -> Option<Vec<u8>>;
}

/// One of the sidecar's ports.
#[derive(Debug)]
pub enum Port {
    /// Takes connections.
    Tcp(Channel, TcpListener),
    /// Takes DNS questions.
    Dns(UdpSocket),
}

impl Port {
    /// Listens at an address as the sidecar's user, whose sockets the conntrack zones know; at a device alone, if
    /// one is named.
    ///
    /// # Errors
    /// The kernel's: the port is taken, or there is no such user.
    pub fn tcp(channel: Channel, uid: u32, addr: SocketAddr, device: Option<&str>) -> io::Result<Self> {
        // Whose a socket is was decided when it was made; where it is bound is root's to decide.
        let fd = user::run_as(uid, || socket::tcp(addr.ip()))??;
        Ok(Self::Tcp(channel, socket::listen_on(fd, addr, device)?))
    }

    /// Takes DNS questions at an address. It must not be the unspecified one: answers come from it.
    ///
    /// # Errors
    /// As above.
    pub fn dns(uid: u32, addr: SocketAddr) -> io::Result<Self> {
        let fd = user::run_as(uid, || socket::udp(addr.ip()))??;
        Ok(Self::Dns(socket::udp_at(fd, addr)?))
    }
}

/// A sidecar at work; it stops when this goes.
#[derive(Debug)]
pub struct Sidecar {
    stop: Option<OwnedFd>,
    /// Says nothing, and ends with the thread.
    end: Mutex<Receiver<()>>,
}

impl Sidecar {
    /// Lets a service serve some ports.
    ///
    /// # Errors
    /// No more file descriptors or threads.
    pub fn start(ports: Vec<Port>, service: Arc<dyn Service>) -> io::Result<Self> {
        for port in &ports {
            match port {
                Port::Tcp(_, listener) => listener.set_nonblocking(true)?,
                Port::Dns(udp) => udp.set_nonblocking(true)?,
            }
        }
        let (stopped, stop) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (ended, end) = mpsc::channel();
        threads::detached(move || {
            // The ports are closed before it counts as ended.
            let _ended: mpsc::Sender<()> = ended;
            let (stopped, ports, service) = (stopped, ports, service);
            serve(&stopped, &ports, service.as_ref());
        })?;
        Ok(Self { stop: Some(stop), end: Mutex::new(end) })
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // The other end of the pipe becomes readable.
        drop(self.stop.take());
        if let Ok(end) = self.end.get_mut() {
            let _ = end.recv();
        }
    }
}

fn serve(stopped: &OwnedFd, ports: &[Port], service: &dyn Service) {
    let mut fds: Vec<&dyn AsFd> = vec![stopped];
    for port in ports {
        fds.push(match port {
            Port::Tcp(_, listener) => listener,
            Port::Dns(udp) => udp,
        });
    }
    // Only a lack of memory ends a wait without a deadline.
    while let Ok(ready) = socket::readable(&fds, None) {
        for index in ready {
            match index.checked_sub(1).and_then(|index| ports.get(index)) {
                None => return,
                Some(Port::Tcp(channel, listener)) => accept(*channel, listener, service),
                Some(Port::Dns(udp)) => answer(udp, service),
            }
        }
    }
}

fn accept(channel: Channel, listener: &TcpListener, service: &dyn Service) {
    // Somebody who connected and is gone already is nobody's concern.
    let Ok((stream, peer)) = listener.accept() else { return };
    if stream.set_nonblocking(false).is_ok() {
        let original = socket::original_destination(&stream);
        service.connection(Connection { channel, stream, peer, original });
    }
}

fn answer(udp: &UdpSocket, service: &dyn Service) {
    let mut bytes = [0; QUESTION];
    let Ok((size, from)) = udp.recv_from(&mut bytes) else { return };
    if let Some(answer) = service.question(&bytes[..size], from) {
        // Whoever asked asks again if this is lost.
        let _ = udp.send_to(&answer, from);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[derive(Default)]
    struct Notes(Mutex<Vec<(Channel, SocketAddr)>>);

    impl Service for Notes {
        fn connection(&self, connection: Connection) {
            self.0.lock().unwrap().push((connection.channel, connection.peer));
        }

        fn question(&self, question: &[u8], _: SocketAddr) -> Option<Vec<u8>> {
            (question != b"?").then(|| question.to_ascii_uppercase())
        }
    }

    #[test]
    fn ports_are_served_until_it_stops() {
        let any = "127.0.0.1:0".parse().unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        let tcp = Port::tcp(Channel::Inbound, uid, any, None).unwrap();
        let dns = Port::dns(uid, any).unwrap();
        let (Port::Tcp(_, listener), Port::Dns(udp)) = (&tcp, &dns) else { unreachable!() };
        let (tcp_addr, dns_addr) = (listener.local_addr().unwrap(), udp.local_addr().unwrap());
        let notes = Arc::new(Notes::default());
        let sidecar = Sidecar::start(vec![tcp, dns], notes.clone()).unwrap();

        let mut client = TcpStream::connect(tcp_addr).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "the service dropped it");
        assert_eq!(*notes.0.lock().unwrap(), [(Channel::Inbound, client.local_addr().unwrap())]);
        let asker = UdpSocket::bind(any).unwrap();
        asker.send_to(b"?", dns_addr).unwrap();
        asker.send_to(b"who", dns_addr).unwrap();
        let mut answer = [0; 8];
        assert_eq!(asker.recv_from(&mut answer).unwrap(), (3, dns_addr));
        assert_eq!(&answer[..3], b"WHO");

        drop(sidecar);
        assert!(TcpStream::connect(tcp_addr).is_err(), "nobody listens any more");
    }
}
