//! Servers that say who they are and whom they were meant to be.

use std::io::{IoSlice, IoSliceMut, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType,
    SockaddrStorage, bind, getsockopt, listen, recvmsg, sendmsg, setsockopt, shutdown, socket, sockopt,
};

/// A server on a thread; ends with the value. Its socket belongs to the namespace and the user of the thread that
/// made it.
pub struct Listener {
    socket: OwnedFd,
    ended: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Answers each connection with one line and closes it.
    #[track_caller]
    pub fn tcp(name: &'static str, ip: IpAddr, port: u16) -> Self {
        let socket = bound(ip, port, SockType::Stream);
        listen(&socket, Backlog::MAXALLOWABLE).expect("listens");
        let accepting: TcpListener = socket.try_clone().expect("a second descriptor").into();
        Self::serve(name, socket, move |ended, served| {
            for stream in accepting.incoming() {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(mut stream) = stream else { continue };
                served.fetch_add(1, Ordering::SeqCst);
                // A client that is gone already gets no answer, which is its own affair.
                if let Some((original, from)) = ends_of(&stream) {
                    let _ = stream.write_all(format!("{name}|{original}|{from}\n").as_bytes());
                }
            }
        })
    }

    /// Answers each datagram with who got it.
    #[track_caller]
    pub fn udp(name: &'static str, ip: IpAddr, port: u16) -> Self {
        let socket = bound(ip, port, SockType::Datagram);
        if ip.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).expect("the address a question came to");
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true).expect("the address a question came to");
        }
        let receiving = socket.try_clone().expect("a second descriptor");
        Self::serve(name, socket, move |ended, served| {
            while let Some(Datagram { text, from, to }) = receive(&receiving) {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                served.fetch_add(1, Ordering::SeqCst);
                reply(&receiving, to.as_ref(), from, &format!("{name}|{text}|{from}"));
            }
        })
    }

    fn serve(
        name: &'static str,
        socket: OwnedFd,
        body: impl FnOnce(&AtomicBool, &AtomicUsize) + Send + 'static,
    ) -> Self {
        let (ended, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (end, count) = (ended.clone(), served.clone());
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || body(&end, &count));
        Self { socket, ended, served, thread: Some(thread.expect("a thread")) }
    }

    /// How many connections or datagrams arrived.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread from accept or recv; for UDP the call reports that there is no connection, and wakes all
        // the same.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Read);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A socket bound to this address alone: IPv6 without IPv4.
#[track_caller]
pub fn bound(ip: IpAddr, port: u16, kind: SockType) -> OwnedFd {
    let family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    setsockopt(&socket, sockopt::ReuseAddr, &true).expect("an address that can be had again");
    if ip.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true).expect("IPv6 alone");
    }
    let addr = SocketAddr::new(ip, port);
    // A process that another test forks has a copy of every socket until it becomes another program, also of one that
    // has just been closed here.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match bind(socket.as_raw_fd(), &SockaddrStorage::from(addr)) {
            Ok(()) => return socket,
            Err(Errno::EADDRINUSE) if Instant::now() < deadline => thread::yield_now(),
            Err(error) => panic!("cannot listen on {addr}: {error}"),
        }
    }
}

/// The same beside copies of a socket that was made so; `None` where another one has the port.
pub fn bound_beside_copies(ip: IpAddr, port: u16, kind: SockType) -> Option<OwnedFd> {
    let family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    setsockopt(&socket, sockopt::ReusePort, &true).expect("a port that can be had twice");
    if ip.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true).expect("IPv6 alone");
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(ip, port))).ok()?;
    if kind == SockType::Stream {
        listen(&socket, Backlog::MAXALLOWABLE).ok()?;
    }
    Some(socket)
}

fn ends_of(stream: &TcpStream) -> Option<(SocketAddr, SocketAddr)> {
    let from = stream.peer_addr().ok()?;
    let local = stream.local_addr().ok()?;
    // Without a connection that was redirected there is nothing to say but the address itself.
    let original = original_destination(stream, local.is_ipv4()).unwrap_or(local);
    Some((original, from))
}

fn original_destination(stream: &impl AsFd, v4: bool) -> Option<SocketAddr> {
    if v4 {
        let addr = getsockopt(stream, sockopt::OriginalDst).ok()?;
        let ip = IpAddr::from(u32::from_be(addr.sin_addr.s_addr).to_be_bytes());
        Some(SocketAddr::new(ip, u16::from_be(addr.sin_port)))
    } else {
        let addr = getsockopt(stream, sockopt::Ip6tOriginalDst).ok()?;
        Some(SocketAddr::new(IpAddr::from(addr.sin6_addr.s6_addr), u16::from_be(addr.sin6_port)))
    }
}

/// A question, its sender, and the address it was sent to: the only one from which an answer is worth anything.
struct Datagram {
    text: String,
    from: SockaddrStorage,
    to: Option<ControlMessageOwned>,
}

fn receive(socket: &OwnedFd) -> Option<Datagram> {
    let mut text = [0; 512];
    let mut space = cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(&mut text)];
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())
            .ok()?;
    let (length, from) = (message.bytes, message.address?);
    let to = message.cmsgs().ok()?.next();
    Some(Datagram { text: String::from_utf8_lossy(&text[..length]).into_owned(), from, to })
}

fn reply(socket: &OwnedFd, source: Option<&ControlMessageOwned>, to: SockaddrStorage, text: &str) {
    let parts = [IoSlice::new(text.as_bytes())];
    let send = |control: &[ControlMessage]| {
        // Somebody who does not wait for the answer closes the port, which comes back as an error of the next call.
        let _ = sendmsg(socket.as_raw_fd(), &parts, control, MsgFlags::empty(), Some(&to));
    };
    match source {
        Some(ControlMessageOwned::Ipv4PacketInfo(info)) => {
            let mut info = *info;
            (info.ipi_ifindex, info.ipi_spec_dst) = (0, info.ipi_addr);
            send(&[ControlMessage::Ipv4PacketInfo(&info)]);
        }
        Some(ControlMessageOwned::Ipv6PacketInfo(info)) => {
            let mut info = *info;
            info.ipi6_ifindex = 0;
            send(&[ControlMessage::Ipv6PacketInfo(&info)]);
        }
        _ => send(&[]),
    }
}
