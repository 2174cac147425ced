//! Runs that do not see each other's files, such as those of a pod's init containers: mount namespaces of their own, one
//! network namespace, and so the same rules.

use std::io::{Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Command, Stdio};

use tproxy::sys::lock::holder;

use crate::kernel::trial::file;
use crate::support::firewall;
use crate::support::snapshot::Snapshot;
use crate::support::{Backend, Lab, Variant};

/// A run in a room of its own, ready to start.
struct Room(Child);

impl Room {
    /// `prepare` is done in the room's own /run.
    fn new(lab: &Lab, prepare: &str, args: &[&str]) -> Self {
        let script = format!(
            "exec 9<\"$0\"; mount -t tmpfs tmpfs /run && {prepare} && echo && read go && exec /proc/self/fd/9 \"$@\""
        );
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--", "sh", "-c", &script])
            .arg(lab.program_path())
            .args(["install", "--kuma-dp-user", "kuma-dp"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        child.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("it is ready");
        Self(child)
    }

    fn go(&mut self) {
        self.0.stdin.take().expect("a pipe").write_all(b"\n").expect("it reads");
    }

    #[track_caller]
    fn succeeds(self) {
        let output = self.0.wait_with_output().expect("an end");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn one_at_a_time(lab: &Lab, prepare: &str, first: &[&str], second: &[&str]) {
    let before = Snapshot::take().without_counters();
    for round in 0..10 {
        let mut rooms = [first, second].map(|args| Room::new(lab, prepare, args));
        for room in &mut rooms {
            room.go();
        }
        rooms.into_iter().for_each(Room::succeeds);
        assert_eq!(Backend::installed().len(), 1, "round {round}");
        lab.program().arg("uninstall").run().succeeds();
        Snapshot::take().without_counters().assert_foreign_unchanged_since(&before);
    }
}

#[test]
fn two_backends_at_once_end_as_one_of_them() {
    Lab::enter(|lab| one_at_a_time(lab, "true", &["--backend", "iptables"], &["--backend", "nftables"]));
}

#[test]
fn two_variants_at_once_end_as_one_of_them() {
    Lab::enter(|lab| {
        let programs = Variant::BOTH.map(firewall::executables);
        let [nft, legacy] = programs.each_ref().map(|programs| ["--iptables-executables", programs.as_str()]);
        one_at_a_time(lab, "true", &nft, &legacy);
    });
}

/// Where no file can be locked.
#[test]
fn two_backends_at_once_on_a_read_only_run() {
    Lab::enter(|lab| {
        let read_only = "mount -o remount,ro /run";
        one_at_a_time(lab, read_only, &["--backend", "nftables"], &["--backend", "iptables"]);
    });
}

fn listen() -> UnixListener {
    let name = SocketAddr::from_abstract_name("tproxy lock").expect("a name");
    UnixListener::bind_addr(&name).expect("nobody has it")
}

#[test]
fn whoever_has_the_name_as_root_is_waited_for() {
    Lab::enter(|lab| {
        let name = listen();
        name.set_nonblocking(true).expect("a flag");
        let install = lab.program().args(["install", "--kuma-dp-user", "kuma-dp"]).start();
        // It has the lock file, and stands at the name.
        while file("lock").and_then(|lock| holder(&lock)).is_none_or(|holder| holder.pid != install.pid) {
            std::thread::yield_now();
        }
        assert_eq!(Backend::installed(), []);
        // Whoever connected there would have to close what the other end sends along.
        assert_eq!(name.accept().expect_err("nobody connects").kind(), std::io::ErrorKind::WouldBlock);
        drop(name);
        install.finish().succeeds();
        assert_eq!(Backend::installed(), [Backend::NFT]);
    });
}
