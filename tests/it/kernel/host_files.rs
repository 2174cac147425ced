//! direct.xml is about the network namespace of firewalld: runs in others leave it alone, and so does a demonstration.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use crate::kernel::trial::{wait_for_the_end, waiter};
use crate::support::command::{self, Program};
use crate::support::firewalld::DIRECT_XML;
use crate::support::lab::{each_iptables_variant, skip};
use crate::support::snapshot::Snapshot;
use crate::support::wrappers::Wrappers;
use crate::support::{APP, Backend, Lab, Run};

const PID_FILE: &str = "/run/firewalld.pid";
pub const THEIRS: &str = "<direct>\n</direct>\n";
pub const STORED: &[&str] = &["--store-firewalld", "--redirect-dns"];

/// Gives the lab an /etc of its own, where firewalld is installed.
pub fn own_etc(lab: &Lab) {
    let own = lab.dir().join("etc");
    fs::create_dir(&own).expect("a directory in the private /run");
    command::must("cp", &["-a", "/etc/.", &own.to_string_lossy()]);
    command::must("mount", &["--bind", &own.to_string_lossy(), "/etc"]);
    lab.replace_again();
    let _ = fs::remove_dir_all("/etc/firewalld");
    fs::create_dir("/etc/firewalld").expect("a private /etc");
    fs::set_permissions("/etc/firewalld", fs::Permissions::from_mode(0o750)).expect("ours");
    fs::write(DIRECT_XML, THEIRS).expect("a private /etc");
}

/// The lab's thread, whose network namespace is the lab's, stands for firewalld.
pub fn firewalld_is_here() {
    fs::write(PID_FILE, nix::unistd::gettid().to_string()).expect("a private /run");
}

fn stored() -> bool {
    fs::read_to_string(DIRECT_XML).expect("a direct.xml").contains("KUMA_MESH")
}

/// tproxy in another network namespace, with the lab's files.
fn elsewhere(lab: &Lab, args: &[&str]) -> Run {
    Program::new("unshare").arg("--net").arg("--").arg(lab.program_path()).args(args).run()
}

/// tproxy as PID 1 of a container with the lab's network.
fn as_pid_1(lab: &Lab, args: &[&str]) -> Run {
    let room = ["--pid", "--fork", "--mount-proc", "--"];
    Program::new("unshare").args(room).arg(lab.program_path()).args(args).run()
}

/// Everything of a directory that a run could change, and what is in it.
fn everything(root: &str) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![PathBuf::from(root)];
    while let Some(path) = left.pop() {
        // What belongs to the harness.
        if path == Path::new("/run/lab") {
            continue;
        }
        let about = fs::symlink_metadata(&path).expect("a file");
        if about.is_dir() {
            left.extend(
                fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()),
            );
        }
        let content = if about.is_file() { fs::read(&path).expect("a file") } else { Vec::new() };
        let times = (about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec());
        let owner = (about.mode(), about.uid(), about.gid());
        found.insert(path, format!("{} {owner:?} {times:?} {content:?}", about.ino()));
    }
    found
}

#[track_caller]
fn assert_same(before: &BTreeMap<PathBuf, String>, after: &BTreeMap<PathBuf, String>) {
    let paths = before.keys().chain(after.keys());
    let changed: Vec<_> = paths.filter(|path| before.get(*path) != after.get(*path)).collect();
    assert!(changed.is_empty(), "changed: {changed:?}");
}

/// Lets an installation on trial go back now.
fn end(lab: &Lab) {
    let waiter = command::pid(waiter(lab));
    nix::sys::signal::kill(waiter, nix::sys::signal::Signal::SIGTERM).expect("it waits");
    wait_for_the_end();
}

each_iptables_variant! {
    fn what_others_put_into_it_during_a_trial_stays(lab, variant) {
        own_etc(lab);
        firewalld_is_here();
        let added = "  <rule ipv=\"ipv4\" table=\"filter\" chain=\"INPUT\" priority=\"7\">-j DROP</rule>\n</direct>";
        let edit = || {
            let text = fs::read_to_string(DIRECT_XML).expect("a direct.xml");
            fs::write(DIRECT_XML, text.replacen("</direct>", added, 1)).expect("a private /etc");
        };
        let read = || fs::read_to_string(DIRECT_XML).expect("a direct.xml");
        let edited = THEIRS.replacen("</direct>", added, 1);
        // One that writes the file, and one that does not.
        for flags in [STORED, &["--redirect-dns"]] {
            fs::write(DIRECT_XML, THEIRS).expect("a private /etc");
            lab.install(variant, &[flags, &["--confirm", "600s"]].concat()).succeeds();
            assert_eq!(stored(), flags == STORED);
            edit();
            end(lab);
            assert_eq!(read(), edited, "{flags:?}");
        }
        // Over an earlier installation; and where nobody else writes, it comes back to the byte.
        lab.install(variant, STORED).succeeds();
        let before = read();
        for meanwhile in [false, true] {
            lab.install(variant, &[STORED, &["--exclude-inbound-ports", "22", "--confirm", "600s"]].concat()).succeeds();
            assert_ne!(read(), before);
            let written = read();
            if meanwhile {
                edit();
            }
            end(lab);
            let now = read();
            assert_eq!(now.matches("DROP").count(), 1 + usize::from(meanwhile), "{now}");
            assert_eq!(now == before, !meanwhile, "{now}");
            assert!(now != written && !now.contains("dport 22 "), "{now}");
        }
        lab.uninstall(variant, &[]).succeeds();
        assert_eq!(read(), edited.replacen("</direct>", added, 1));
    }

    fn what_is_no_file_is_named_before_any_lock(lab, variant) {
        own_etc(lab);
        firewalld_is_here();
        for (what, words) in [("a FIFO", "it is a FIFO"), ("a device", "it is a device"), ("a long file", "it is larger than 32 MiB")] {
            fs::remove_file(DIRECT_XML).expect("ours");
            match what {
                "a FIFO" => nix::unistd::mkfifo(DIRECT_XML, nix::sys::stat::Mode::S_IRUSR).expect("a private /etc"),
                "a device" => std::os::unix::fs::symlink("/dev/zero", DIRECT_XML).expect("a private /etc"),
                _ => fs::File::create(DIRECT_XML).and_then(|file| file.set_len(33 << 20)).expect("a private /etc"),
            }
            let run = lab.install(variant, STORED).exits(2).says(&format!("cannot read {DIRECT_XML}: {words}"));
            assert_eq!(run.stderr.matches("hint: ").count(), 1, "{run}");
            assert!(!Path::new("/run/tproxy").exists());
            // Who stores nothing is not stopped by it.
            lab.install(variant, &[]).succeeds();
            let run = lab.uninstall(variant, &[]).succeeds().prints(words);
            assert!(!run.stdout.contains("successfully"), "{run}");
        }
    }

    fn what_firewalld_could_not_read_stops_a_run_before_it_changes_anything(lab, variant) {
        own_etc(lab);
        firewalld_is_here();
        fs::write(DIRECT_XML, "<direct>\n<rule>\n").expect("a private /etc");
        let before = Snapshot::take();
        let tools = Wrappers::new(variant);
        let run = lab.program().args(["install", "--kuma-dp-user", "kuma-dp"]).args(STORED).args(tools.flags()).run();
        let _ = run.exits(1).says(&format!("{DIRECT_XML}: line ")).says("firewall-offline-cmd --check-config");
        assert_eq!(tools.log(), [""; 0], "no program is run for it");
        Snapshot::take().assert_unchanged_since(&before);
        lab.install(variant, &[]).succeeds();
    }

    fn runs_in_another_network_namespace_leave_it_alone(lab, variant) {
        own_etc(lab);
        firewalld_is_here();
        lab.install(variant, STORED).succeeds();
        assert!(stored());
        let before = everything("/etc");
        let sidecar = ["install", "--kuma-dp-user", "kuma-dp", "--store-firewalld"];
        let native = ["--backend", "nftables"];
        let other: &[&str] = &[&sidecar[..], &["--exclude-inbound-ports", "22"]].concat();
        let _ = elsewhere(lab, other)
            .succeeds()
            .says(&format!("nothing is stored in {DIRECT_XML}: this is not the network namespace of firewalld (process "));
        // This backend takes stored rules out; the proof, a refusal and the end of a trial put the file back.
        elsewhere(lab, &[&sidecar[..], &native].concat()).succeeds();
        elsewhere(lab, &["uninstall"]).succeeds();
        assert_same(&before, &everything("/etc"));
        lab.uninstall(variant, &[]).succeeds();
        assert_eq!(fs::read_to_string(DIRECT_XML).expect("a direct.xml"), THEIRS);
    }

    fn without_a_firewalld_pid_1_decides(lab, variant) {
        own_etc(lab);
        let backend = Backend::from(variant).flags();
        let backend: Vec<&str> = backend.iter().map(String::as_str).collect();
        let flags = [&["install", "--kuma-dp-user", "kuma-dp"][..], &backend, STORED].concat();
        as_pid_1(lab, &flags).succeeds();
        assert!(stored());
        // PID 1 of the machine is not in the lab's network.
        let _ = lab.install(variant, &[STORED, &["--exclude-inbound-ports", "22"]].concat())
            .succeeds()
            .says("this is not the network namespace of PID 1");
        lab.uninstall(variant, &[]).succeeds();
        assert!(stored());
        as_pid_1(lab, &["uninstall"]).succeeds();
        assert!(!stored());
    }
}

#[test]
fn a_pid_file_of_another_user_or_of_a_process_that_ended_is_no_firewalld() {
    Lab::enter(|lab| {
        own_etc(lab);
        firewalld_is_here();
        chown(PID_FILE, Some(APP), None).expect("ours");
        let refused = |lab: &Lab| {
            let install = ["--store-firewalld", "--backend", "iptables"];
            let run = lab.program().args(["install", "--kuma-dp-user", "kuma-dp"]).args(install).run();
            run.succeeds().says("this is not the network namespace of PID 1");
            assert!(!stored());
        };
        refused(lab);
        fs::remove_file(PID_FILE).expect("ours");
        nix::unistd::mkfifo(PID_FILE, nix::sys::stat::Mode::S_IRUSR).expect("a private /run");
        refused(lab);
        fs::remove_file(PID_FILE).expect("ours");
        let mut ended = std::process::Command::new("true").spawn().expect("a process");
        ended.wait().expect("its end");
        fs::write(PID_FILE, ended.id().to_string()).expect("a private /run");
        refused(lab);
    });
}

/// In a user namespace /etc/firewalld belongs to nobody. PID 1 is in its network, so that the file would be its own.
#[test]
fn a_file_that_cannot_be_read_stops_nobody() {
    Lab::enter(|lab| {
        own_etc(lab);
        command::must("chmod", &["755", &lab.program_path().to_string_lossy()]);
        let (user, program) = (APP.to_string(), lab.program_path().to_string_lossy().into_owned());
        let inside = |words: &str| {
            let as_user = ["--reuid", &user, "--regid", &user, "--clear-groups", "--"];
            let room = ["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"];
            Program::new("setpriv")
                .args(as_user)
                .arg("unshare")
                .args(room)
                .args(["--", "sh", "-ec", words, program.as_str()])
                .run()
        };
        let probe = inside("mount -t tmpfs tmpfs /run");
        if probe.code != Some(0) {
            return skip(&format!("ordinary users make no user namespaces here: {probe}"));
        }
        for backend in ["nftables", "iptables"] {
            let run = inside(&format!(
                "mount -t tmpfs tmpfs /mnt; cp \"$0\" /mnt/tproxy; mount -t tmpfs tmpfs /run; ip link set lo up
                 /mnt/tproxy install --kuma-dp-user 0 --backend {backend}
                 {{ nft list tables; iptables-save; iptables-legacy-save; }} | grep -qi kuma_mesh
                 /mnt/tproxy uninstall
                 ! {{ nft list tables; iptables-save; iptables-legacy-save; }} | grep -i kuma_mesh"
            ));
            let run = run.succeeds().prints(&format!("cannot read {DIRECT_XML}: Permission denied"));
            assert!(!run.stdout.contains("cleanup completed successfully"), "{run}");
        }
    });
}

#[test]
fn a_demonstration_beside_a_stored_installation_changes_no_file() {
    Lab::enter(|lab| {
        own_etc(lab);
        firewalld_is_here();
        let flags = [&["--backend", "iptables"][..], STORED].concat();
        lab.program().args(["install", "--kuma-dp-user", "kuma-dp"]).args(flags).run().succeeds();
        assert!(stored());
        let before = ["/etc", "/run"].map(everything);
        lab.program().arg("demo").run().succeeds().prints("4. Uninstall");
        as_pid_1(lab, &["demo"]).succeeds();
        for (before, root) in before.iter().zip(["/etc", "/run"]) {
            assert_same(before, &everything(root));
        }
    });
}
