//! A sidecar that listens and accepts nothing, as one that was stopped does, and runs that are asked to stop meanwhile.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

use super::verify;
use crate::support::command::pid;
use crate::support::firewall::{self, Family};
use crate::support::lab::each_backend;
use crate::support::snapshot::Snapshot;
use crate::support::{SIDECAR, as_user};

/// So many sockets for each port and family.
const MANY: usize = 500;

/// One more socket at an address and port, whose queue has place for one connection.
fn beside_others(to: SocketAddr) -> OwnedFd {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    if to.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true).expect("IPv6 alone");
    }
    setsockopt(&fd, sockopt::ReusePort, &true).expect("shared with the others");
    bind(fd.as_raw_fd(), &SockaddrStorage::from(to)).expect("it is free");
    listen(&fd, Backlog::new(1).expect("a number")).expect("it listens");
    fd
}

/// Listeners of the sidecar's user at both of its ports, of both families, so many at each.
fn listeners(count: usize) -> Vec<OwnedFd> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(16_384).max(soft), hard).expect("more files");
    as_user(SIDECAR, move || {
        let places = Family::BOTH
            .into_iter()
            .flat_map(|family| [15001, 15006].map(|port| (family.any(), port).into()));
        places.flat_map(|place| (0..count).map(move |_| beside_others(place))).collect()
    })
}

fn is_probing() -> bool {
    nix::ifaddrs::getifaddrs().expect("interfaces").any(|it| it.interface_name.starts_with("tpv"))
}

each_backend! {
    /// Nobody waits for it to let go of what it never took: there is time left for everything else.
    fn listeners_that_accept_nothing_take_no_time_from_the_rest(lab, backend) {
        lab.install(backend, &[]).succeeds();
        for count in [1, MANY] {
            let stuck = listeners(count);
            let said = verify(lab, &[]);
            assert_eq!(said.method(), "counters");
            assert!(!said.json.to_string().contains("no time left"), "{:#}", said.json);
            assert!(!said.run.stderr.contains("has not let go"), "{}", said.run.stderr);
            // Nobody accepts them later with a destination.
            for fd in stuck {
                let listener = TcpListener::from(fd);
                listener.set_nonblocking(true).expect("it does not wait");
                while let Ok((stream, _)) = listener.accept() {
                    assert!(tproxy::sys::socket::original_destination(&stream).is_err(), "{stream:?}");
                }
            }
        }
    }

    /// Whatever it waits for: a sidecar that does not let go, and packets that get lost.
    fn a_signal_ends_the_proof_and_everything_goes_back(lab, backend) {
        for (signal, lost) in [(Signal::SIGINT, false), (Signal::SIGTERM, true)] {
            let stuck = if lost { Vec::new() } else { listeners(1) };
            if lost {
                firewall::nft("table inet theirs { chain o { type filter hook input priority 0; tcp dport 15001 drop; }; }");
            }
            let before = Snapshot::take().without_counters();
            let run = lab.installing(backend, &["--redirect-dns", "--verify"]).start();
            while !is_probing() {
                std::thread::yield_now();
            }
            kill(pid(run.pid), signal).expect("it proves");
            let run = run.finish().exits(1);
            let _ = run.says(&format!("stopped by {signal} before it was verified")).says("the host is as it was before");
            Snapshot::take().without_counters().assert_unchanged_since(&before);
            drop(stuck);
        }
    }
}
