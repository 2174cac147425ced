//! Stands in for a sidecar in `tests/try`: takes what is redirected to it and tells each client where it wanted to go.

use std::io::{self, Write};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::thread;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{Ip6tOriginalDst, OriginalDst};
use nix::sys::socket::{SockaddrIn, SockaddrIn6};

/// The destination before the redirection.
fn wanted(stream: &TcpStream) -> io::Result<SocketAddr> {
    Ok(if stream.peer_addr()?.is_ipv4() {
        SocketAddrV4::from(SockaddrIn::from(getsockopt(stream, OriginalDst)?)).into()
    } else {
        SocketAddrV6::from(SockaddrIn6::from(getsockopt(stream, Ip6tOriginalDst)?)).into()
    })
}

fn answer(mut stream: &TcpStream) -> io::Result<()> {
    writeln!(stream, "the sidecar took this connection; it was meant for {}", wanted(stream)?)
}

fn main() -> io::Result<()> {
    for address in ["127.0.0.1:15001", "[::1]:15001", "127.0.0.1:15006", "[::1]:15006"] {
        let listener = TcpListener::bind(address)?;
        thread::spawn(move || {
            for stream in listener.incoming() {
                if let Err(error) = stream.and_then(|stream| answer(&stream)) {
                    eprintln!("{address}: {error}");
                }
            }
        });
    }
    let dns = UdpSocket::bind("127.0.0.1:15053")?;
    println!("ready");
    let mut question = [0; 512];
    loop {
        let (_, client) = dns.recv_from(&mut question)?;
        dns.send_to(b"the sidecar took this question\n", client)?;
    }
}
