//! The lock of the legacy programs in another user's hands.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;

use super::{FIRST, SECOND, their_rules};
use crate::kernel::trial::{wait_for_the_end, waiter};
use crate::support::command::{Program, pid};
use crate::support::lab::each_iptables_variant;
use crate::support::snapshot::Snapshot;
use crate::support::{APP, Backend, Lab, Variant};

const LOCK: &str = "/run/xtables.lock";
const PASSED_OVER: &str = "warning: the xtables lock /run/xtables.lock is passed over";

/// What an ordinary user can put in its place.
const SQUATS: [&str; 6] = ["a FIFO", "a link", "a dangling link", "a directory", "a file", "a locked file"];

fn squat(what: &str) -> Option<Keeper> {
    let _ = fs::remove_dir(LOCK).or_else(|_| fs::remove_file(LOCK));
    match what {
        "a FIFO" => nix::unistd::mkfifo(LOCK, Mode::S_IRWXU).expect("a private /run"),
        "a link" => symlink("/etc/passwd", LOCK).expect("a private /run"),
        "a dangling link" => symlink("/run/lab/made", LOCK).expect("a private /run"),
        "a directory" => fs::create_dir(LOCK).expect("a private /run"),
        _ => fs::write(LOCK, "").expect("a private /run"),
    }
    lchown(LOCK, Some(APP), Some(APP)).expect("root may");
    (what == "a locked file").then(|| Keeper::new(APP))
}

/// A process of a user that keeps the lock until the value goes.
struct Keeper(Child);

impl Keeper {
    fn new(user: u32) -> Self {
        let user = user.to_string();
        let child = Command::new("setpriv")
            .args(["--reuid", &user, "--regid", &user, "--clear-groups", "--", "flock", LOCK])
            .args(["sh", "-c", "echo held; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv and flock run");
        let mut keeper = Self(child);
        let mut line = [0; 5];
        std::io::Read::read_exact(keeper.0.stdout.as_mut().expect("a pipe"), &mut line).expect("it says so");
        keeper
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

each_iptables_variant! {
    fn nothing_that_a_user_puts_in_its_place_stops_a_run(lab, variant) {
        their_rules(variant);
        fs::set_permissions("/run", Permissions::from_mode(0o1777)).expect("a private /run");
        let clean = Snapshot::take();
        // The nft variant has no such lock.
        let warned = variant == Variant::Legacy;
        for what in SQUATS {
            let _kept = squat(what);
            for flags in [&FIRST[..], &SECOND] {
                let run = lab.install(variant, &[flags, &["--max-retries", "0"]].concat()).succeeds();
                assert_eq!(run.stderr.contains(PASSED_OVER), warned, "{what}: {run}");
                assert_eq!(run.stderr.matches("xtables lock").count(), usize::from(warned), "{what}: {run}");
            }
            let installed = Snapshot::take();
            lab.install(variant, &[&FIRST[..], &["--confirm", "600s"]].concat()).succeeds();
            kill(pid(waiter(lab)), Signal::SIGTERM).expect("it waits");
            wait_for_the_end();
            Snapshot::take().assert_put_back_since(&installed);
            lab.uninstall(variant, &["--max-retries", "0"]).succeeds();
            Snapshot::take().assert_unchanged_since(&clean);
        }
        assert!(!Path::new("/run/lab/made").exists());
    }

    fn the_lock_where_there_is_none_is_made_before_a_user_can_make_it(lab, variant) {
        fs::set_permissions("/run", Permissions::from_mode(0o1777)).expect("a private /run");
        let run = lab.install(variant, &FIRST).succeeds();
        assert!(!run.stderr.contains("xtables lock"), "{run}");
        let made = fs::symlink_metadata(LOCK).ok();
        assert_eq!(made.is_some(), variant == Variant::Legacy);
        if let Some(made) = made {
            assert_eq!(made.permissions().mode() & 0o7777, 0o600);
        }
    }
}

/// Containers' runtimes make the file so that everybody can open it, and so lock it.
#[test]
fn a_file_that_everybody_can_lock_is_waited_for_only_where_root_has_locked_it() {
    Lab::enter(|lab| {
        their_rules(Variant::Legacy);
        fs::write(LOCK, "").expect("a private /run");
        fs::set_permissions(LOCK, Permissions::from_mode(0o644)).expect("ours");
        let few = ["--wait", "1", "--max-retries", "1", "--sleep-between-retries", "1ms"];
        let kept = Keeper::new(APP);
        let run = lab.install(Variant::Legacy, &[&FIRST[..], &few].concat()).succeeds().says(PASSED_OVER);
        let _ = run.says(&kept.0.id().to_string()).says("not by root alone");
        drop(kept);
        let run = lab.install(Variant::Legacy, &[&SECOND[..], &few].concat()).succeeds();
        assert!(!run.stderr.contains("xtables lock"), "{run}");
        let before = Snapshot::take();
        let kept = Keeper::new(0);
        let run = lab.install(Variant::Legacy, &[&FIRST[..], &few].concat()).exits(4);
        let _ = run.says(&kept.0.id().to_string());
        Snapshot::take().assert_unchanged_since(&before);
    });
}

/// The list of locks leaves out those of other PID namespaces, and those that a process left to its children. Where such a
/// lock is waited for as `--wait` says, the limit to each run of a program ends this.
#[test]
fn nor_is_it_waited_for_where_nobody_sees_who_has_locked_it() {
    Lab::enter(|lab| {
        their_rules(Variant::Legacy);
        fs::write(LOCK, "").expect("a private /run");
        fs::set_permissions(LOCK, Permissions::from_mode(0o644)).expect("ours");
        let install = || {
            let room = ["--pid", "--fork", "--mount-proc", "--"];
            let program = Program::new("unshare").args(room).arg(lab.program_path());
            let program = program.args(["install", "--kuma-dp-user", "kuma-dp", "--wait", "600"]);
            program.args(Backend::from(Variant::Legacy).flags()).args(FIRST).run().succeeds()
        };
        let kept = Keeper::new(APP);
        let _ = install().says(PASSED_OVER).says("not visible here");
        drop(kept);
        lab.uninstall(Variant::Legacy, &[]).succeeds();
        let run = install();
        assert!(!run.stderr.contains("xtables lock"), "{run}");
    });
}
