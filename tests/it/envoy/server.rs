//! A web server with three pages: whom it sees, many bytes, and a conversation.

use std::io::{self, Read as _, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::socket::{Backlog, Shutdown, SockType, listen, shutdown};

use crate::support::listener::bound;

/// Answers a request that changes the protocol; from then on everything is said back.
pub const UPGRADED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Small, because there can be thousands of threads.
const STACK: usize = 128 * 1024;

/// A server with a thread for each connection; ends with the value.
pub struct Server {
    socket: OwnedFd,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens in the namespace of the caller, as its user.
    #[track_caller]
    pub fn start(name: &'static str, ip: IpAddr, port: u16) -> Self {
        let socket = bound(ip, port, SockType::Stream);
        listen(&socket, Backlog::new(4096).expect("a backlog")).expect("listens");
        let accepting: TcpListener = socket.try_clone().expect("a second descriptor").into();
        let ended = Arc::<AtomicBool>::default();
        let end = ended.clone();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            for stream in accepting.incoming() {
                if end.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let serving = thread::Builder::new().name(name.to_owned()).stack_size(STACK);
                // What goes wrong here the client sees, and the client is a test.
                let serving = serving.spawn(move || serve(name, stream));
                serving.expect("a thread for each connection");
            }
        });
        Self { socket, ended, thread: Some(thread.expect("a thread")) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread from accept.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Read);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(name: &str, mut stream: TcpStream) -> io::Result<()> {
    let request = request(&mut stream)?;
    let path = request.split(' ').nth(1).unwrap_or_default();
    if let Some(length) = path.strip_prefix("/bytes/").and_then(|length| length.parse().ok()) {
        stream.write_all(head(length).as_bytes())?;
        return write_bytes(&mut stream, length);
    }
    if request.contains("Upgrade: websocket") {
        stream.write_all(UPGRADED.as_bytes())?;
        return say_back(stream);
    }
    let seen = serde_json::json!([name, stream.local_addr()?, stream.peer_addr()?]).to_string();
    stream.write_all(format!("{}{seen}", head(seen.len() as u64)).as_bytes())
}

fn request(stream: &mut TcpStream) -> io::Result<String> {
    let mut text = Vec::new();
    let mut part = [0; 1024];
    while !text.ends_with(b"\r\n\r\n") {
        let length = stream.read(&mut part)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text.extend_from_slice(&part[..length]);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// What precedes a body of so many bytes.
pub fn head(length: u64) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
}

/// So many bytes in which every page has its number, so that lost, repeated or swapped pieces change the checksum.
pub fn write_bytes(to: &mut impl Write, mut length: u64) -> io::Result<()> {
    const PAGE: usize = 4096;
    let mut block: Vec<u8> = (0..=255).cycle().take(256 * PAGE).collect();
    let mut number = 0_u64;
    while length > 0 {
        for page in block.chunks_exact_mut(PAGE) {
            page[..8].copy_from_slice(&number.to_be_bytes());
            number += 1;
        }
        let now = usize::try_from(length).unwrap_or(usize::MAX).min(block.len());
        to.write_all(&block[..now])?;
        length -= now as u64;
    }
    Ok(())
}

fn say_back(mut stream: TcpStream) -> io::Result<()> {
    let mut text = [0; 4096];
    loop {
        match stream.read(&mut text)? {
            0 => return Ok(()),
            length => stream.write_all(&text[..length])?,
        }
    }
}

/// Whom a server saw: its name, its own address, and the client's.
pub type Seen = (String, SocketAddr, SocketAddr);

/// Reads the first page.
#[track_caller]
pub fn seen(body: &str) -> Seen {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {body:?}"))
}
