//! What applications do: connect somewhere, ask a DNS server, and look who answers.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

/// Nothing here takes longer unless it never comes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who answered, and what it knew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The listener's name.
    pub by: String,
    /// The address the client meant (TCP), or the question (UDP).
    pub about: String,
    /// The client's address as the listener saw it.
    pub from: SocketAddr,
}

impl Answer {
    fn parse(text: &str) -> io::Result<Self> {
        let parts: Vec<&str> = text.trim_end().split('|').collect();
        let [by, about, from] = parts[..] else {
            return Err(io::Error::other(format!("an answer cut short: {text:?}")));
        };
        let from = from.parse().map_err(|_| io::Error::other(format!("not an address: {from}")))?;
        Ok(Self { by: by.to_owned(), about: about.to_owned(), from })
    }
}

/// Connects to `to` and reads who is there.
pub fn connect_to(to: SocketAddr) -> io::Result<Answer> {
    connect_from(None, to)
}

/// The same from a source address of one's choice.
pub fn connect_from(source: Option<IpAddr>, to: SocketAddr) -> io::Result<Answer> {
    let mut stream = match source {
        None => TcpStream::connect_timeout(&to, PATIENCE)?,
        Some(source) => {
            let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))?;
            setsockopt(&socket, sockopt::SendTimeout, &nix::sys::time::TimeVal::new(5, 0))?;
            connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
            socket.into()
        }
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Answer::parse(&text)
}

/// A UDP client that takes answers from the server it asked and from nobody else.
pub struct Asker {
    socket: UdpSocket,
}

impl Asker {
    /// One that will talk to `server`, from a port of the kernel's choice or a given one.
    pub fn to(server: SocketAddr, port: Option<u16>) -> io::Result<Self> {
        let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        if let Some(port) = port {
            // Two users ask from the same port, one after the other.
            setsockopt(&socket, sockopt::ReuseAddr, &true)?;
            let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, port)))?;
        }
        connect(socket.as_raw_fd(), &SockaddrStorage::from(server))?;
        let socket: UdpSocket = socket.into();
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket })
    }

    /// Asks, and waits for the answer.
    pub fn ask(&self, question: &str) -> io::Result<Answer> {
        self.socket.send(question.as_bytes())?;
        let mut answer = [0; 1024];
        let length = self.socket.recv(&mut answer)?;
        Answer::parse(&String::from_utf8_lossy(&answer[..length]))
    }
}

/// Asks `server` on port 53.
pub fn ask(server: IpAddr) -> io::Result<Answer> {
    Asker::to(SocketAddr::new(server, 53), None)?.ask("svc.mesh")
}
