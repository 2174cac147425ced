//! A DNS server of the world outside: it knows an address for every name, and remembers who asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use nix::sys::socket::{Shutdown, SockType, shutdown};

use crate::support::listener::bound;

const A: u16 = 1;
const AAAA: u16 = 28;

/// A server on a thread; ends with the value.
pub struct Resolver {
    socket: OwnedFd,
    asked: Arc<Mutex<Vec<(String, IpAddr)>>>,
    ended: Arc<Mutex<bool>>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    /// Says that every name has addresses ending in `number`. Listens in the namespace of the caller.
    #[track_caller]
    pub fn start(ip: IpAddr, port: u16, number: u8) -> Self {
        let socket = bound(ip, port, SockType::Datagram);
        let receiving: UdpSocket = socket.try_clone().expect("a second descriptor").into();
        let (asked, ended) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<bool>>::default());
        let (list, end) = (asked.clone(), ended.clone());
        let thread = thread::Builder::new().name("resolver".to_owned()).spawn(move || {
            let mut question = [0; 1500];
            while let Ok((length, from)) = receiving.recv_from(&mut question) {
                if *end.lock().expect("no panic") {
                    break;
                }
                let Some((name, answer)) = answer(&question[..length], number) else { continue };
                list.lock().expect("no panic").push((name, from.ip()));
                // Who went away does not hear it.
                let _ = receiving.send_to(&answer, from);
            }
        });
        Self { socket, asked, ended, thread: Some(thread.expect("a thread")) }
    }

    /// The names asked for since the last call, in order, and by whom.
    pub fn asked(&self) -> Vec<(String, IpAddr)> {
        std::mem::take(&mut self.asked.lock().expect("no panic"))
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        *self.ended.lock().expect("no panic") = true;
        // Wakes the thread from its call, though it reports that there is no connection.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Read);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The address of every name, of the kind that a server with this number knows.
pub fn address(kind: &str, number: u8) -> IpAddr {
    match kind {
        "A" => Ipv4Addr::new(198, 51, 100, number).into(),
        "AAAA" => Ipv6Addr::new(0x2001, 0xdb8, 0x53, 0, 0, 0, 0, number.into()).into(),
        _ => panic!("no addresses of kind {kind}"),
    }
}

/// Reads a question (RFC 1035, section 4) and gives its name and a whole answer.
fn answer(question: &[u8], number: u8) -> Option<(String, Vec<u8>)> {
    const HEADER: usize = 12;
    let word = |at: usize| Some(u16::from_be_bytes(question.get(at..at + 2)?.try_into().ok()?));
    let (mut at, mut labels) = (HEADER, Vec::new());
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let (kind, end) = (word(at)?, at + 4);
    let data = match kind {
        A => address("A", number),
        AAAA => address("AAAA", number),
        _ => return None,
    };
    let data: Vec<u8> = match data {
        IpAddr::V4(ip) => ip.octets().into(),
        IpAddr::V6(ip) => ip.octets().into(),
    };
    let mut answer = question.get(..2)?.to_vec();
    // A response without error, recursion available; one question, one answer, nothing else.
    answer.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    answer.extend(question.get(HEADER..end)?);
    // The name of the question, its kind, class IN, and a minute to live.
    answer.extend([0xc0, 0x0c]);
    answer.extend(kind.to_be_bytes());
    answer.extend([0, 1, 0, 0, 0, 60]);
    answer.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
    answer.extend(data);
    Some((labels.join("."), answer))
}
