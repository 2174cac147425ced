//! What other users, and a record that is not what it should be, can make a run do: nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use tproxy::sys::netns;

use crate::kernel::trial::{file, wait_for_the_end, waiter};
use crate::support::command::{Program, must, pid};
use crate::support::lab::{each_backend, each_iptables_variant};
use crate::support::snapshot::Snapshot;
use crate::support::users::as_user;
use crate::support::wrappers::{Fault, Wrappers};
use crate::support::{APP, Backend, Family, Variant, firewall};

const RUN: &str = "/run/tproxy";

/// Somebody's, which an attacker would like to have removed.
const THEIRS: &str = "-p tcp -m tcp --dport 9999 -j RETURN";

/// Where an attacker's programs leave their mark.
fn mark() -> PathBuf {
    Path::new("/run/lab/evil/ran").to_owned()
}

/// A record that names programs to run and rules to remove.
fn forged() -> String {
    let program = |name: &str| format!("  {name}: /run/lab/evil/{name}\n");
    let names =
        ["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"];
    let config = format!("kumaDPUser: \"5678\"\niptablesExecutables:\n{}", names.map(program).concat());
    let rule = json!({ "table": "nat", "chain": "PREROUTING", "args": THEIRS });
    json!({
        "schema": 1, "version": "0.1.0", "phase": "installed", "installedAt": 1, "backend": "iptables", "variant": "nft",
        "sidecarUid": 5678, "config": config, "leftOut": [], "addedPassthrough": true, "uncommentedV4": [rule], "uncommentedV6": [],
    })
    .to_string()
}

/// What an ordinary user does who can write there.
fn plant(dir: &Path) {
    let id = netns::current_id().expect("a name");
    let dir = dir.to_owned();
    as_user(APP, move || {
        fs::write(dir.join(format!("{id}.json")), forged()).expect("written");
        for kind in ["new", "log", "pending", "pending.new", "lock"] {
            symlink("/run/lab/victim", dir.join(format!("{id}.{kind}"))).expect("a link");
        }
    });
}

fn mode(path: &str, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
}

/// The attacker's programs, somebody's rule and somebody's file.
fn prepare(variant: Variant) {
    fs::create_dir("/run/lab/evil").expect("a directory");
    mode("/run/lab/evil", 0o777);
    for name in
        ["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"]
    {
        let path = format!("/run/lab/evil/{name}");
        fs::write(&path, format!("#!/bin/sh\nid > {}\necho '(nf_tables)'\n", mark().display()))
            .expect("a program");
        mode(&path, 0o755);
    }
    fs::write("/run/lab/victim", "precious").expect("a file");
    firewall::restore(variant, Family::V4, &format!("*nat\n-A PREROUTING {THEIRS}\nCOMMIT\n"));
}

fn theirs() {
    mkdir_of(APP, RUN);
}

fn mkdir_of(uid: u32, path: &str) {
    fs::create_dir(path).expect("a directory");
    chown(path, Some(uid), Some(uid)).expect("given away");
}

/// How the directory got into the hands of others.
const WAYS: &[(&str, fn())] = &[
    ("made by another user", theirs),
    ("in a /run of everybody's", || {
        mode("/run", 0o777);
        theirs();
    }),
    ("exchangeable", || {
        mode("/run", 0o777);
        fs::create_dir(RUN).expect("a directory");
        mode(RUN, 0o700);
    }),
    ("writable by everybody", || {
        fs::create_dir(RUN).expect("a directory");
        mode(RUN, 0o1777);
    }),
    ("writable by a group", || {
        fs::create_dir(RUN).expect("a directory");
        chown(RUN, None, Some(APP)).expect("a group");
        mode(RUN, 0o770);
    }),
    ("a link", || {
        mkdir_of(APP, "/run/elsewhere");
        symlink("/run/elsewhere", RUN).expect("a link");
    }),
    ("a mount of another user's", || {
        fs::create_dir(RUN).expect("a directory");
        must("mount", &["-t", "tmpfs", "-o", &format!("uid={APP},mode=0755"), "tmpfs", RUN]);
    }),
    ("a file", || fs::write(RUN, "").expect("a file")),
];

each_backend! {
    fn a_directory_of_others_is_not_used(lab, backend) {
        prepare(backend.tools());
        for (way, make) in WAYS {
            make();
            if Path::new(RUN).is_dir() && *way != "exchangeable" {
                plant(Path::new(RUN));
            }
            let dry: &[&[&str]] = &[&["status"], &["uninstall", "--dry-run=diff"]];
            for args in dry {
                let _ = lab.program().args(*args).run().says("another user could forge it");
            }
            let _ = lab.install(backend, &["--dry-run=diff"]).succeeds();
            let run = lab.install(backend, &[]).succeeds().says("another user could forge it");
            assert_eq!(run.stderr.matches("could forge it").count(), 1, "{way}: {run}");
            assert!(backend.has_ours(Family::V4), "{way}");
            let _ = lab.program().arg("status").run();
            let _ = lab.install(backend, &["--redirect-dns", "--confirm", "60s"]).exits(3).says("--confirm");
            let _ = lab.program().arg("confirm").run().exits(3).says(RUN);
            // What the file says does not count, so nobody knows whose ::6 is.
            let planted = file("json").is_some();
            let run = lab.uninstall(backend, &[]).exits(if planted { 5 } else { 0 });
            assert_eq!(run.stderr.contains("the address ::6 of lo"), planted, "{way}: {run}");
            assert_eq!(Backend::installed(), [], "{way}");
            let saved = firewall::save(backend.tools(), Family::V4);
            assert!(saved.contains("-A PREROUTING -p tcp -m tcp --dport 9999 -j RETURN"), "{way}: {saved}");
            assert!(!mark().exists(), "{way}: a program of the record was run");
            assert_eq!(fs::read_to_string("/run/lab/victim").expect("a file"), "precious", "{way}");
            let _ = Program::new("umount").args(["-q", RUN]).run();
            mode("/run", 0o755);
            must("rm", &["-rf", RUN, "/run/elsewhere"]);
        }
    }

    /// Others could write the directory once.
    fn what_others_left_in_it_is_passed_over_and_replaced(lab, backend) {
        prepare(backend.tools());
        fs::create_dir(RUN).expect("a directory");
        mode(RUN, 0o777);
        plant(Path::new(RUN));
        mode(RUN, 0o755);
        let _ = lab.program().arg("status").run().says("it belongs to UID 5700");
        let _ = lab.install(backend, &["--redirect-dns"]).succeeds().says("is passed over");
        let run = lab.program().arg("status").run();
        assert!(!run.stderr.contains("passed over"), "{run}");
        let _ = lab.install(backend, &["--confirm", "600s"]).succeeds();
        kill(pid(waiter(lab)), Signal::SIGTERM).expect("it waits");
        wait_for_the_end();
        let _ = lab.uninstall(backend, &[]).succeeds();
        assert_eq!(Backend::installed(), []);
        assert!(!mark().exists(), "a program of the record was run");
        assert_eq!(fs::read_to_string("/run/lab/victim").expect("a file"), "precious");
        let saved = firewall::save(backend.tools(), Family::V4);
        assert!(saved.contains("--dport 9999 -j RETURN"), "{saved}");
    }

    /// They are nobody's but root's, so they were meant to be something; a run does not wait for them.
    fn files_that_are_none_are_named(lab, backend) {
        let _ = lab.install(backend, &["--redirect-dns"]).succeeds();
        let before = Snapshot::take();
        let record = file("json").expect("a record");
        let aside = record.with_extension("aside");
        fs::rename(&record, &aside).expect("moved");
        for kind in ["json", "pending"] {
            let path = record.with_extension(kind);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
            let name = path.display().to_string();
            let _ = lab.program().arg("status").run().exits(2).says(&name).says("it is a FIFO");
            let _ = lab.install(backend, &[]).exits(2).says(&name).says("hint: ");
            if kind == "json" {
                let _ = lab.uninstall(backend, &[]).exits(2).says(&name);
            } else {
                let _ = lab.program().arg("confirm").run().exits(2).says(&name);
            }
            fs::remove_file(&path).expect("the FIFO");
        }
        fs::rename(&aside, &record).expect("moved");
        Snapshot::take().assert_unchanged_since(&before);
        let _ = lab.uninstall(backend, &[]).succeeds();
    }

    /// A run that cannot open one more file is not another run: it knows its record, or it does nothing.
    fn too_few_descriptors_change_nothing_for_good(lab, backend) {
        let before = Snapshot::take().without_counters();
        let mut installed = 0;
        // Too few for any run, then for some of it, then enough for all.
        for descriptors in (3..24).chain([96]) {
            // With and without the right to more.
            let drop = if descriptors % 2 == 0 { "" } else { "setpriv --bounding-set=-sys_resource" };
            let script = format!("ulimit -n {descriptors} && exec {drop} \"$@\"");
            let install = lab.installing(backend, &["--confirm", "1s", "--sleep-between-retries", "1ms"]);
            let run = install.behind("sh", &["-c", &script, "sh"]).output().expect("a shell");
            let said = String::from_utf8_lossy(&run.stderr).into_owned();
            if run.status.success() {
                installed += 1;
                wait_for_the_end();
            }
            assert_eq!(Backend::installed(), [], "{descriptors}: {said}");
            Snapshot::take().without_counters().assert_foreign_unchanged_since(&before);
        }
        assert!((1..22).contains(&installed), "{installed}");
    }

    /// Whoever waits was told once who it is.
    fn a_trial_goes_back_wherever_its_names_lead_meanwhile(lab, backend) {
        let _ = lab.install(backend, &["--confirm", "600s"]).succeeds();
        let waiter = waiter(lab);
        let other = lab.dir().join("boot");
        fs::write(&other, "00000000-0000-0000-0000-000000000000\n").expect("a file of the lab");
        must("mount", &["--bind", &other.to_string_lossy(), "/proc/sys/kernel/random/boot_id"]);
        let pending = file("pending").expect("it waits");
        kill(pid(waiter), Signal::SIGTERM).expect("it waits");
        while pending.exists() {
            std::thread::yield_now();
        }
        must("umount", &["/proc/sys/kernel/random/boot_id"]);
        assert_eq!(Backend::installed(), []);
    }
}

fn record() -> (PathBuf, Value) {
    let path = file("json").expect("a record");
    let record = serde_json::from_str(&fs::read_to_string(&path).expect("text")).expect("JSON");
    (path, record)
}

each_iptables_variant! {
    fn a_record_makes_no_rule_ours_that_is_none(lab, variant) {
        // Like ours, but not of this configuration.
        let like = ["-d 10.1.0.0/16 -j RETURN", "-p udp -m udp --dport 53 -j REDIRECT --to-ports 15055"];
        let block = like.map(|rule| format!("-A OUTPUT {rule}\n")).concat();
        let text = format!("*nat\n-A PREROUTING {THEIRS}\n{block}COMMIT\n");
        firewall::restore(variant, Family::V4, &text);
        let before = Snapshot::take().without_counters();
        let flags = &["--disable-comments", "--redirect-dns", "--exclude-outbound-ips", "10.2.0.0/16"];
        let _ = lab.install(variant, flags).succeeds();
        let (path, mut says) = record();
        let rules = says["uncommentedV4"].as_array_mut().expect("rules");
        rules.push(json!({ "table": "nat", "chain": "PREROUTING", "args": THEIRS }));
        rules.extend(like.map(|rule| json!({ "table": "nat", "chain": "OUTPUT", "args": rule })));
        fs::write(&path, says.to_string()).expect("written");
        let run = lab.install(variant, flags).succeeds().says("so it stays: -t nat -A PREROUTING -p tcp");
        assert_eq!(run.stderr.matches("so it stays").count(), 3, "{run}");
        let _ = lab.uninstall(variant, &[]).succeeds();
        Snapshot::take().without_counters().assert_unchanged_since(&before);
    }

    fn a_killed_change_without_comments_is_taken_up_from_either_side(lab, variant) {
        let before = Snapshot::take().without_counters();
        let first = &["--disable-comments", "--redirect-dns", "--exclude-outbound-ips", "10.1.0.0/16"];
        let second = ["--disable-comments", "--redirect-all-dns-traffic", "--exclude-outbound-ips", "10.2.0.0/16"];
        let die = "kill -KILL $PPID".to_owned();
        for fault in [Fault::Before(die.clone()), Fault::After(die.clone())] {
            for family in Family::BOTH {
                let _ = lab.install(variant, first).succeeds();
                let tools = Wrappers::new(variant).every(&format!("{}-restore", family.tool()), &fault);
                let install = lab.program().args(["install", "--kuma-dp-user", "kuma-dp"]);
                let run = install.args(second).args(tools.flags()).run();
                assert_eq!(run.signal, Some(9), "{run}");
                tools.settle();
                let run = lab.uninstall(variant, &[]).succeeds();
                assert!(!run.stderr.contains("so it stays"), "{run}");
                Snapshot::take().without_counters().assert_unchanged_since(&before);
            }
        }
    }

    fn programs_of_a_record_are_not_run(lab, variant) {
        let tools = Wrappers::new(variant);
        let install = || lab.program().args(["install", "--kuma-dp-user", "kuma-dp"]);
        let _ = install().args(tools.flags()).run().succeeds();
        let record = file("json").expect("a record").display().to_string();
        tools.forget();
        let run = lab.program().arg("status").run().exits(11);
        let _ = run.says("that were not run, because a record alone").prints("--iptables-executables");
        let _ = lab.program().arg("verify").run();
        let _ = lab.program().args(["config", "validate", &record]).run().succeeds().says("are not run");
        let _ = install().args(["--config", &record]).run().succeeds().says("the programs in a record are not run");
        assert_eq!(tools.log(), [""; 0]);
        let _ = lab.program().arg("status").args(tools.flags()).run().exits(11);
        assert!(!tools.log().is_empty());
    }
}
