//! A running sidecar that takes its time.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{Backlog, SockType, SockaddrStorage, getsockopt, listen, setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::verify;
use crate::support::capture::Capture;
use crate::support::firewall::Family;
use crate::support::lab::each_backend;
use crate::support::listener::bound;
use crate::support::mesh::Mesh;
use crate::support::{SIDECAR, as_user};

/// Goes on to where connections were to go, but not before it has to: when the temporary interface is gone, or else
/// after a few seconds.
struct Slow {
    ended: Arc<AtomicBool>,
    busy: Arc<AtomicUsize>,
    served: Arc<AtomicUsize>,
    threads: Vec<(SocketAddr, JoinHandle<()>)>,
}

const SLOW: Duration = Duration::from_secs(4);

fn original(stream: &TcpStream) -> SocketAddr {
    if stream.local_addr().expect("an address").is_ipv4() {
        let addr = getsockopt(stream, sockopt::OriginalDst).expect("an original destination");
        std::net::SocketAddrV4::from(nix::sys::socket::SockaddrIn::from(addr)).into()
    } else {
        let addr = getsockopt(stream, sockopt::Ip6tOriginalDst).expect("an original destination");
        std::net::SocketAddrV6::from(nix::sys::socket::SockaddrIn6::from(addr)).into()
    }
}

fn is_made() -> bool {
    nix::ifaddrs::getifaddrs().expect("interfaces").any(|i| i.interface_name.starts_with("tpv"))
}

/// Connects from any address, or to a local application as a sidecar does.
fn connect(to: SocketAddr, inbound: bool) -> nix::Result<TcpStream> {
    let any = if to.is_ipv4() { Family::V4.any() } else { Family::V6.any() };
    let passthrough = if to.is_ipv4() { "127.0.0.6" } else { "::6" };
    let from = if inbound { passthrough.parse().expect("an address") } else { any };
    let fd = bound(from, 0, SockType::Stream);
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::new(2, 0))?;
    nix::sys::socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(fd.into())
}

fn go_on(mut stream: TcpStream, inbound: bool) {
    let to = original(&stream);
    let late = Instant::now() + SLOW;
    while is_made() && Instant::now() < late {
        thread::sleep(Duration::from_millis(20));
    }
    let patience = Some(Duration::from_secs(1));
    if let Ok(mut onward) = connect(to, inbound) {
        onward.set_read_timeout(patience).expect("patience");
        let _ = onward.read(&mut [0; 16]);
    }
    stream.set_read_timeout(patience).expect("patience");
    let _ = stream.read(&mut [0; 16]);
}

impl Slow {
    fn start() -> Self {
        let (ended, busy, served) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let places =
            Family::BOTH.into_iter().flat_map(|family| [(family.any(), 15001), (family.any(), 15006)]);
        let threads = places.map(|place: (IpAddr, u16)| {
            let (ended, busy, served) = (ended.clone(), busy.clone(), served.clone());
            let serve = move || {
                let fd = bound(place.0, place.1, SockType::Stream);
                listen(&fd, Backlog::MAXALLOWABLE).expect("listens");
                let listener = TcpListener::from(fd);
                thread::spawn(move || {
                    for stream in listener.incoming() {
                        if ended.load(Ordering::SeqCst) {
                            break;
                        }
                        let Ok(stream) = stream else { continue };
                        served.fetch_add(1, Ordering::SeqCst);
                        busy.fetch_add(1, Ordering::SeqCst);
                        let busy = busy.clone();
                        thread::spawn(move || {
                            go_on(stream, place.1 == 15006);
                            busy.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                })
            };
            (SocketAddr::from(place), as_user(SIDECAR, serve))
        });
        let threads = threads.collect();
        Self { ended, busy, served, threads }
    }

    /// Waits until it has done all it will, and tells how many came to it.
    fn end(self) -> usize {
        while self.busy.load(Ordering::SeqCst) > 0 {
            thread::yield_now();
        }
        let served = self.served.load(Ordering::SeqCst);
        self.ended.store(true, Ordering::SeqCst);
        for (place, thread) in self.threads {
            let here: IpAddr =
                if place.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
            drop(TcpStream::connect((here, place.port())));
            thread.join().expect("it ends");
        }
        served
    }
}

each_backend! {
    /// The interface stays until the sidecar has let go.
    fn a_slow_sidecar_leads_nothing_out(lab, backend) {
        lab.install(backend, &[]).succeeds();
        let sidecar = Slow::start();
        let capture = Capture::begin(lab);
        let said = verify(lab, &[]);
        assert_eq!((said.run.code, said.method()), (Some(0), "counters"), "{:#}", said.json);
        assert!(sidecar.end() >= 6, "outbound, inbound and own, of each family");
        capture.assert_nothing();
    }

    /// It would go on to itself, and never end.
    fn a_sidecar_is_not_led_to_itself(lab, backend) {
        lab.install(backend, &["--exclude-inbound-ports", "15006"]).succeeds();
        let sidecar = [Mesh::new(lab, Family::V4), Mesh::new(lab, Family::V6)];
        let said = verify(lab, &[]);
        assert_eq!(said.run.code, Some(0), "{:#}", said.json);
        assert_eq!(said.with_status("not-tested"), ["ipv4 exclusion", "ipv6 exclusion"]);
        drop(sidecar);
    }
}
