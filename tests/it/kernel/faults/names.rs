//! Somebody else has taken the names by which runs keep apart. No more than a short delay comes of it.

use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};

use crate::support::command::pid;
use crate::support::lab::each_backend;
use crate::support::names::{
    How, INSTALLATION, VERIFICATION, as_root_without_capabilities, fill, take, take_as_a_run,
};
use crate::support::{APP, Backend, Family, Lab, Run, SIDECAR, as_user};

/// A run that waits for other runs would wait longer: 30 s for each installation, 60 s for each verification.
const NO_LONG_WAIT: Duration = Duration::from_secs(25);

fn strangers(how: How) -> Vec<std::os::fd::OwnedFd> {
    as_user(APP, move || [INSTALLATION, VERIFICATION].iter().flat_map(|name| take(name, how)).collect())
}

#[track_caller]
fn says_once(run: Run, text: &str) -> Run {
    assert_eq!(run.stderr.matches(text).count(), 1, "{text:?} in {run}");
    run
}

each_backend! {
    /// Whatever they do with it, they are known at once.
    fn a_stranger_is_not_waited_for(lab, backend) {
        for how in How::ALL {
            let taken = strangers(how);
            let run = lab.install(backend, &["--wait", "0"]).succeeds();
            says_once(run, &format!("user {APP} has taken its name"));
            assert!(backend.has_ours(Family::V4), "{how:?}");
            says_once(lab.uninstall(backend, &[]).succeeds(), &format!("user {APP} has taken its name"));
            drop(taken);
        }
        let run = lab.uninstall(backend, &[]).succeeds();
        assert!(!run.stderr.contains("taken"), "{run}");
    }
}

#[test]
fn a_proof_does_not_wait_for_a_stranger_either() {
    Lab::enter(|lab| {
        let _taken = strangers(How::Full);
        lab.install(Backend::Nftables, &["--verify"])
            .succeeds()
            .says("another verification at the same time");
    });
}

/// Many sockets, of several users, with names that are nearly the same.
#[test]
fn similar_names_mean_nothing() {
    Lab::enter(|lab| {
        let mut taken = Vec::new();
        for uid in [SIDECAR, APP] {
            taken.extend(as_user(uid, move || {
                let similar = |number: u32| {
                    format!("{INSTALLATION}{}{uid} {number}", if uid == APP { "\0" } else { "" })
                };
                (0..200).flat_map(|number| take(&similar(number), How::Listening)).collect::<Vec<_>>()
            }));
        }
        for kind in [SockType::Datagram, SockType::SeqPacket] {
            taken.push(as_user(APP, move || {
                let socket =
                    socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
                let address = UnixAddr::new_abstract(INSTALLATION.as_bytes()).expect("a name");
                bind(socket.as_raw_fd(), &address).expect("another kind of name");
                socket
            }));
        }
        let run = lab.install(Backend::Nftables, &[]).succeeds();
        assert!(!run.stderr.contains("at the same time"), "{run}");
        let _real = strangers(How::Bound);
        says_once(
            lab.uninstall(Backend::Nftables, &[]).succeeds(),
            &format!("user {APP} has taken its name"),
        );
    });
}

/// Another container of the pod.
#[test]
fn root_without_capabilities_delays_a_run_and_no_more() {
    Lab::enter(|lab| {
        for how in How::ALL {
            let taken = as_root_without_capabilities(move || {
                [INSTALLATION, VERIFICATION].map(|name| take(name, how))
            });
            let start = Instant::now();
            let run = lab.install(Backend::Nftables, &["--verify"]).succeeds();
            // Both names together; the rest of this time is the proof's, on a machine that is busy.
            assert!(start.elapsed() < NO_LONG_WAIT, "{how:?} {run}");
            let run =
                says_once(run, "another run at the same time in another container would not be noticed");
            assert_eq!(
                run.stderr.matches("has taken its name without proof of being a run of tproxy").count(),
                2,
                "{run}"
            );
            drop(taken);
            lab.uninstall(Backend::Nftables, &[]).succeeds();
        }
    });
}

/// It does not help the one who waits that there is a place in the queue, and no stranger can take that help away.
#[test]
fn a_run_is_waited_for_although_a_stranger_fills_its_queue() {
    Lab::enter(|lab| {
        let Some(holder) = take_as_a_run(VERIFICATION) else { return };
        let stranger = as_user(APP, || fill(VERIFICATION));
        assert!(!stranger.is_empty());
        lab.install(Backend::Nftables, &[]).succeeds();
        let run = lab.program().arg("verify").run().exits(4);
        let run = run.says("another verification is under way in this network namespace");
        let _ = run.says(&format!("process {}", std::process::id()));
        let verifying = lab.program().arg("verify").start();
        drop((holder, stranger));
        verifying.finish().exits(0);
    });
}

#[test]
fn a_wait_for_a_name_ends_with_a_signal() {
    Lab::enter(|lab| {
        for how in [How::Listening, How::Full] {
            let _taken = take(INSTALLATION, how);
            let run = lab.installing(Backend::Nftables, &[]).start();
            // The file is locked first.
            let locked = |link: std::path::PathBuf| link.extension().is_some_and(|e| e == "lock");
            let files = || std::fs::read_dir(format!("/proc/{}/fd", run.pid)).into_iter().flatten();
            while !files().filter_map(|file| std::fs::read_link(file.ok()?.path()).ok()).any(locked) {
                std::thread::yield_now();
            }
            kill(pid(run.pid), Signal::SIGTERM).expect("it is there");
            run.finish().exits(1).says("SIGTERM");
            assert_eq!(Backend::installed(), []);
        }
    });
}
