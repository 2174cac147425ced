//! A program of the sidecar's user that sends without end.

use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::socket::{Backlog, SockType, listen};

use super::verify;
use crate::support::firewall::Family;
use crate::support::lab::each_backend;
use crate::support::listener::bound;
use crate::support::{SIDECAR, as_user};

/// Has more to send on each connection for as long as the other end takes it.
struct Endless {
    ended: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    ports: Vec<(SocketAddr, JoinHandle<()>)>,
}

impl Endless {
    fn start() -> Self {
        let (ended, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let places = Family::BOTH.into_iter().flat_map(|of| [15001, 15006].map(|port| (of.any(), port)));
        let ports = places.map(|(addr, port)| {
            let (ended, served) = (ended.clone(), served.clone());
            let serve = move || {
                let fd = bound(addr, port, SockType::Stream);
                listen(&fd, Backlog::MAXALLOWABLE).expect("listens");
                let listener = TcpListener::from(fd);
                thread::spawn(move || {
                    for mut stream in listener.incoming().flatten() {
                        if ended.load(Ordering::SeqCst) {
                            break;
                        }
                        served.fetch_add(1, Ordering::SeqCst);
                        let chunk = vec![b'x'; 1 << 16];
                        thread::spawn(move || while stream.write_all(&chunk).is_ok() {});
                    }
                })
            };
            (SocketAddr::new(addr, port), as_user(SIDECAR, serve))
        });
        let ports = ports.collect();
        Self { ended, served, ports }
    }

    /// How many connections it had.
    fn end(self) -> usize {
        self.ended.store(true, Ordering::SeqCst);
        for (place, thread) in self.ports {
            let here: IpAddr =
                if place.is_ipv4() { [127, 0, 0, 1].into() } else { Ipv6Addr::LOCALHOST.into() };
            drop(TcpStream::connect((here, place.port())));
            thread.join().expect("it ends");
        }
        self.served.load(Ordering::SeqCst)
    }
}

each_backend! {
    /// Where it is heard out, neither ever ends, which the limit to each run of a program shows.
    fn a_program_that_sends_without_end_is_not_heard_out(lab, backend) {
        let program = Endless::start();
        let run = lab.install(backend, &["--verify"]);
        assert!(run.code.is_some(), "{run}");
        let said = verify(lab, &[]);
        assert_eq!(said.method(), "counters", "{:#}", said.json);
        assert!(program.end() > 0, "none of the probes came to it");
    }
}
