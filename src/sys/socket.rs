//! What the standard library does not do with sockets.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn,
    SockaddrIn6, SockaddrStorage, bind, connect, getsockopt, listen, sendmsg, setsockopt, socket, sockopt,
};

use super::{poll, signal};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;

/// The destination that a redirected connection had at first (`SO_ORIGINAL_DST`, and `IP6T_SO_ORIGINAL_DST` for
/// IPv6), as connection tracking knows it. For a connection that was not redirected that is its own one.
///
/// # Errors
/// The kernel's: the connection is not tracked.
pub fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    if stream.local_addr()?.is_ipv4() {
        let addr = getsockopt(stream, sockopt::OriginalDst)?;
        Ok(SocketAddrV4::from(SockaddrIn::from(addr)).into())
    } else {
        let addr = getsockopt(stream, sockopt::Ip6tOriginalDst)?;
        Ok(SocketAddrV6::from(SockaddrIn6::from(addr)).into())
    }
}

fn new(addr: IpAddr, kind: SockType, protocol: SockProtocol) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol)?;
    if addr.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    Ok(fd)
}

/// A TCP socket that is neither bound nor connected and does not block, of an address's family. For IPv6 it, and the
/// UDP one, take nothing but IPv6.
///
/// # Errors
/// The kernel's.
pub fn tcp(family_of: IpAddr) -> io::Result<OwnedFd> {
    let fd = new(family_of, SockType::Stream, SockProtocol::Tcp)?;
    TcpStream::from(fd.try_clone()?).set_nonblocking(true)?;
    Ok(fd)
}

/// Binds a socket. TCP ports that an earlier connection left behind can be used again.
///
/// # Errors
/// The kernel's: the address is not this host's, or the port is taken.
pub fn bind_to(fd: &OwnedFd, addr: SocketAddr) -> io::Result<()> {
    setsockopt(fd, sockopt::ReuseAddr, &true)?;
    Ok(bind(fd.as_raw_fd(), &SockaddrStorage::from(addr))?)
}

/// A socket that listens and does not block; on a device only, if one is named.
///
/// # Errors
/// The kernel's: the address is not this host's, or the port is taken.
pub fn listen_on(fd: OwnedFd, addr: SocketAddr, device: Option<&str>) -> io::Result<TcpListener> {
    if let Some(device) = device {
        bind_to_device(&fd, device)?;
    }
    bind_to(&fd, addr)?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(fd.into())
}

/// A UDP socket that is not bound, of an address's family.
///
/// # Errors
/// The kernel's.
pub fn udp(family_of: IpAddr) -> io::Result<OwnedFd> {
    new(family_of, SockType::Datagram, SockProtocol::Udp)
}

/// A UDP socket at an address. Its port is taken by nobody else.
///
/// # Errors
/// The kernel's: the address is not this host's, or the port is taken.
pub fn udp_at(fd: OwnedFd, addr: SocketAddr) -> io::Result<UdpSocket> {
    bind(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;
    Ok(fd.into())
}

/// Lets a socket send and receive by one interface alone.
///
/// # Errors
/// The kernel's: not permitted, no such interface.
pub fn bind_to_device(socket: &impl AsFd, device: &str) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::BindToDevice, &device.into())?)
}

/// Lets the packets of a socket live no longer than to their next host.
///
/// # Errors
/// The kernel's.
pub fn stay_near(socket: &impl AsFd, addr: IpAddr) -> io::Result<()> {
    match addr {
        IpAddr::V4(_) => setsockopt(socket, sockopt::Ipv4Ttl, &1)?,
        IpAddr::V6(_) => setsockopt(socket, sockopt::Ipv6Ttl, &1)?,
    }
    Ok(())
}

/// Makes closing a connection reset it.
///
/// # Errors
/// The kernel's.
pub fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    Ok(setsockopt(stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?)
}

/// Begins to connect; [`connected`] tells how that went.
///
/// # Errors
/// The kernel's, as far as it knows at once.
pub fn begin_connect(fd: &OwnedFd, addr: SocketAddr) -> io::Result<()> {
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(addr)) {
        Err(Errno::EINPROGRESS) => Ok(()),
        other => Ok(other?),
    }
}

/// Waits until a connection that was begun has come about or failed (`true`), or the deadline has passed or a signal has
/// arrived.
///
/// # Errors
/// The kernel's.
pub fn is_settled(stream: &TcpStream, deadline: Instant) -> io::Result<bool> {
    let mut waiting = vec![PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
    waiting.extend(signal::wakes().map(|wakes| PollFd::new(wakes, PollFlags::POLLIN)));
    poll::wait(&mut waiting, Some(deadline))?;
    Ok(waiting.first().is_some_and(|fd| fd.any() == Some(true)))
}

/// Waits for a connection that was begun.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::TimedOut`] at the deadline.
pub fn connected(fd: OwnedFd, deadline: Instant) -> io::Result<TcpStream> {
    let stream = TcpStream::from(fd);
    if !is_settled(&stream, deadline)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

/// Waits until one of some descriptors can be read, and tells which; an empty list at the deadline, if there is one, or when
/// a signal has arrived until then.
///
/// # Errors
/// The kernel's.
pub fn readable(fds: &[&dyn AsFd], deadline: Option<Instant>) -> io::Result<Vec<usize>> {
    let mut waiting: Vec<_> = fds.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
    // Who waits for ever is told to stop in another way.
    let wakes = signal::wakes().filter(|_| deadline.is_some());
    waiting.extend(wakes.map(|wakes| PollFd::new(wakes, PollFlags::POLLIN)));
    poll::wait(&mut waiting, deadline)?;
    let waiting = waiting.iter().take(fds.len());
    Ok(waiting.enumerate().filter(|(_, fd)| fd.any() == Some(true)).map(|(index, _)| index).collect())
}

/// Reads from a stream until it has ended, the room is full, a deadline has passed or a signal has arrived. However
/// slowly the other end sends, this ends. Returns how many bytes came.
///
/// # Errors
/// The kernel's.
pub fn read_until(mut stream: impl io::Read + AsFd, room: &mut [u8], deadline: Instant) -> io::Result<usize> {
    let mut size = 0;
    while size < room.len() && signal::interrupted().is_none() {
        if readable(&[&stream], Some(deadline))?.is_empty() {
            break;
        }
        match stream.read(&mut room[size..]) {
            Ok(0) => break,
            Ok(more) => size += more,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        if Instant::now() >= deadline {
            break;
        }
    }
    Ok(size)
}

/// Sends a datagram by an interface, without binding the socket to it: what netfilter makes of the datagram may
/// still leave by another one. Its source is `source`, which is an address of this host.
///
/// # Errors
/// The kernel's.
pub fn send_by(
    udp: &UdpSocket,
    bytes: &[u8],
    to: SocketAddr,
    (interface, source): (u32, IpAddr),
) -> io::Result<usize> {
    let any = std::io::IoSlice::new(bytes);
    let to = SockaddrStorage::from(to);
    let fd = udp.as_raw_fd();
    let none = MsgFlags::empty();
    let size = if udp.local_addr()?.is_ipv4() {
        let by = libc::in_pktinfo {
            ipi_ifindex: i32::try_from(interface).unwrap_or_default(),
            ipi_spec_dst: libc::in_addr { s_addr: four(source) },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        sendmsg(fd, &[any], &[ControlMessage::Ipv4PacketInfo(&by)], none, Some(&to))
    } else {
        let by =
            libc::in6_pktinfo { ipi6_ifindex: interface, ipi6_addr: libc::in6_addr { s6_addr: six(source) } };
        sendmsg(fd, &[any], &[ControlMessage::Ipv6PacketInfo(&by)], none, Some(&to))
    };
    Ok(size?)
}

fn four(addr: IpAddr) -> u32 {
    match addr {
        IpAddr::V4(four) => u32::from_ne_bytes(four.octets()),
        IpAddr::V6(_) => 0,
    }
}

fn six(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(_) => [0; 16],
        IpAddr::V6(six) => six.octets(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A stream whose other end sends for as long as this one is open.
    fn endless() -> (UnixStream, std::thread::JoinHandle<()>) {
        let (near, mut far) = UnixStream::pair().unwrap();
        (near, std::thread::spawn(move || while far.write_all(&[b'x'; 4096]).is_ok() {}))
    }

    #[test]
    fn reading_ends_where_the_other_end_does_not() {
        let (stream, far) = endless();
        let mut little = [0; 64];
        let late = Instant::now() + std::time::Duration::from_secs(60);
        assert_eq!(read_until(&stream, &mut little, late).unwrap(), 64, "the room is full");
        // More than a socket keeps, so that it takes more than one turn.
        let mut much = vec![0; 64 << 20];
        assert!(read_until(&stream, &mut much, Instant::now()).unwrap() < much.len(), "it is too late");
        drop(stream);
        far.join().unwrap();
    }

    #[test]
    fn what_came_before_the_end_is_read() {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"word").unwrap();
        drop(far);
        let mut room = [0; 64];
        let late = Instant::now() + std::time::Duration::from_secs(60);
        assert_eq!(read_until(&near, &mut room, late).unwrap(), 4);
    }
}
