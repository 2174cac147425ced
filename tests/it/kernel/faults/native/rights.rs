//! Rights that are missing: to the network, to a table that somebody owns, to send much at once.

use std::fs;

use super::{FIRST, NATIVE};
use crate::support::backend::{own_table, own_the_table};
use crate::support::command::{Program, find};
use crate::support::firewall::{self, Variant};
use crate::support::generation::nft_generation;
use crate::support::lab::skip;
use crate::support::snapshot::Snapshot;
use crate::support::{APP, Backend, Lab, Run};

#[track_caller]
fn one_hint(run: Run) -> Run {
    assert_eq!(run.stderr.matches("hint: ").count(), 1, "{run}");
    run
}

#[test]
fn a_container_without_the_right_to_its_network_is_told_so() {
    Lab::enter(|lab| {
        let before = Snapshot::take();
        let generation = nft_generation();
        let contained = |args: &[&str]| {
            let setpriv =
                Program::new("setpriv").args(["--inh-caps=-net_admin", "--bounding-set=-net_admin"]);
            setpriv.arg(lab.program_path()).args(args).run()
        };
        let install = ["install", "--kuma-dp-user", "kuma-dp"];
        for run in [
            contained(&[&install[..], &["--backend", "nftables"]].concat()),
            contained(&install),
            contained(&["uninstall"]),
            contained(&[&install[..], &["--dry-run=diff"]].concat()),
            contained(&["uninstall", "--dry-run"]),
            contained(&["status"]),
            contained(&["status", "--watch"]),
            contained(&["verify"]),
            contained(&["demo"]),
        ] {
            let run = one_hint(run.exits(3)).says("Operation not permitted");
            let _ = run
                .says("hint: this process lacks CAP_NET_ADMIN; ")
                .says("'docker run --cap-add NET_ADMIN'")
                .says("'securityContext.capabilities.add: [NET_ADMIN]'");
        }
        assert_eq!(nft_generation(), generation);
        Snapshot::take().assert_unchanged_since(&before);
    });
}

/// The programs of the legacy variant open a raw socket, and some of them do not say that this was refused.
#[test]
fn legacy_programs_without_raw_sockets() {
    Lab::enter(|lab| {
        let contained = |args: &[&str]| {
            let setpriv = Program::new("setpriv").args(["--inh-caps=-net_raw", "--bounding-set=-net_raw"]);
            setpriv.arg(lab.program_path()).args(args).run()
        };
        let legacy = firewall::executables(Variant::Legacy);
        let install = ["install", "--kuma-dp-user", "kuma-dp", "--iptables-executables", &legacy];
        let lacks = |run: Run| {
            let _ = one_hint(run.exits(3))
                .says("hint: this process lacks CAP_NET_RAW; ")
                .says("--cap-add NET_RAW'")
                .says("'securityContext.capabilities.add: [NET_RAW]'");
        };
        let before = Snapshot::take();
        lacks(contained(&install));
        Snapshot::take().assert_unchanged_since(&before);
        lab.install(Backend::LEGACY, &FIRST).succeeds();
        let before = Snapshot::take().without_counters();
        lacks(contained(&install));
        lacks(contained(&[&install[..], &["--redirect-dns", "--dry-run=diff"]].concat()));
        lacks(contained(&["uninstall", "--iptables-executables", &legacy]));
        lacks(contained(&["status"]));
        Snapshot::take().without_counters().assert_unchanged_since(&before);
        // The kernel's own interface needs no raw socket.
        lab.uninstall(Backend::LEGACY, &[]).succeeds();
        contained(&["install", "--kuma-dp-user", "kuma-dp", "--backend", "nftables"]).succeeds();
    });
}

#[test]
fn an_ordinary_user_is_told_so() {
    Lab::enter(|lab| {
        lab.install(NATIVE, &FIRST).succeeds();
        let before = Snapshot::take();
        let diff = [&FIRST[..], &["--dry-run=diff"]].concat();
        for (program, instead) in [
            (lab.installing(NATIVE, &FIRST), "with --dry-run\n"),
            (
                lab.installing(NATIVE, &diff),
                "only root can see the live rules that it compares with; plain --dry-run,",
            ),
            (lab.uninstalling(NATIVE, &[]), "sudo\n"),
            (lab.uninstalling(NATIVE, &["--dry-run"]), "only root can see the rules that it would remove\n"),
            (lab.program().arg("confirm"), "sudo\n"),
        ] {
            let _ = one_hint(program.user(APP).run().exits(3)).says("root").says("sudo").says(instead);
        }
        // As promised.
        let shown = [&FIRST[..], &["--dry-run"]].concat();
        lab.installing(NATIVE, &shown).user(APP).run().succeeds().prints("kuma_mesh");
        Snapshot::take().assert_unchanged_since(&before);
    });
}

#[test]
fn a_table_that_somebody_owns_has_its_own_sentence() {
    Lab::enter(|lab| {
        let before = Snapshot::take();
        for backend in Backend::ALL {
            let owner = own_the_table();
            let theirs = own_table().expect("a table");
            assert!(theirs.contains("flags owner"), "{theirs}");
            let generation = nft_generation();
            let shown = [&FIRST[..], &["--dry-run=diff"]].concat();
            let runs = [lab.install(backend, &FIRST), lab.install(backend, &shown)];
            for run in
                runs.into_iter().chain([&[][..], &["--dry-run"]].map(|more| lab.uninstall(backend, more)))
            {
                let run = one_hint(run.exits(1));
                let _ = run
                    .says("the table inet kuma_mesh belongs to another process")
                    .says("hint: end that process");
            }
            assert_eq!(nft_generation(), generation);
            assert_eq!(own_table().as_ref(), Some(&theirs));
            owner.close();
            Snapshot::take().assert_unchanged_since(&before);
        }
        lab.install(NATIVE, &FIRST).succeeds();
        lab.uninstall(NATIVE, &[]).succeeds();
        Snapshot::take().assert_unchanged_since(&before);
    });
}

/// Elements take 28 bytes or more each, and every interval has two.
fn addresses(bytes: usize) -> String {
    let address =
        |number: usize| format!("10.{}.{}.{}", number >> 15, number >> 7 & 0xff, (number << 1) & 0xff);
    (0..bytes / 56).map(address).collect::<Vec<_>>().join(",")
}

#[test]
fn what_is_too_big_to_send_is_told_with_the_setting() {
    Lab::enter(|lab| {
        let setting = fs::read_to_string("/proc/sys/net/core/wmem_max").expect("a setting");
        let most: usize = setting.trim().parse().expect("a number");
        if most > 1 << 22 {
            return skip("net.core.wmem_max is larger than any list here");
        }
        // Only root of a user namespace is bound by it, so this is one, with a network of its own.
        let probe = Program::new("unshare").args(["--user", "--map-root-user", "--net", "--", "true"]).run();
        if probe.code != Some(0) {
            return skip(&format!("no user namespace: {probe}"));
        }
        let file = lab.dir().join("lists.yaml");
        let run = |bytes: usize| {
            let lists = format!("redirect:\n  outbound:\n    excludePortsForIPs: [{}]\n", addresses(bytes));
            fs::write(&file, lists).expect("a file in the private /run");
            Program::new("unshare")
                .args(["--user", "--map-root-user", "--net", "--"])
                .arg(lab.program_path())
                .args(["install", "--kuma-dp-user", "0", "--backend", "nftables", "--ip-family-mode", "ipv4"])
                .arg("--config")
                .arg(&file)
                .run()
        };
        run(10_000).succeeds();
        // The kernel doubles what is asked for.
        let _ = one_hint(run(3 * most).exits(3))
            .says("at once")
            .says("hint: raise the setting net.core.wmem_max");
    });
}

/// Every call that hands the kernel something, and no memory for it.
#[test]
fn a_kernel_without_memory_is_told_so() {
    Lab::enter(|lab| {
        if find("strace").is_none() {
            return skip("this machine has no strace");
        }
        lab.install(NATIVE, &FIRST).succeeds();
        let before = Snapshot::take();
        let with = |inject: &[&str], retries: &str| {
            let log = lab.dir().join("strace.log");
            let strace = Program::new("strace").args(["-f", "-qq", "-e", "trace=sendto"]).args(inject);
            let strace = strace.arg("-o").arg(&log).arg(lab.program_path());
            let install = ["install", "--kuma-dp-user", "kuma-dp", "--backend", "nftables", "--redirect-dns"];
            let retries = ["--max-retries", retries, "--sleep-between-retries", "1ms"];
            (
                strace.args(install).args(retries).run(),
                fs::read_to_string(&log).expect("strace wrote its log"),
            )
        };
        let (run, log) = with(&[], "0");
        run.succeeds();
        let wanted = Snapshot::take().without_counters();
        let calls = log.lines().filter(|line| line.contains("sendto(")).count();
        assert!(calls > 4, "{log}");
        lab.install(NATIVE, &FIRST).succeeds();
        let mut refused = 0;
        for error in ["ENOBUFS", "ENOMEM"] {
            for number in 1..=calls {
                let inject = format!("inject=sendto:error={error}:when={number}");
                // It passes, so another try gets all of it.
                with(&["-e", &inject], "2").0.succeeds();
                Snapshot::take().without_counters().assert_unchanged_since(&wanted);
                lab.install(NATIVE, &FIRST).succeeds();
                let (run, _) = with(&["-e", &inject], "0");
                if run.code == Some(0) {
                    lab.install(NATIVE, &FIRST).succeeds();
                    continue;
                }
                refused += 1;
                let run = run.says("error: ");
                assert!(["buffer", "memory"].iter().any(|word| run.stderr.contains(word)), "{run}");
                assert_eq!(run.code, Some(1), "{run}");
                Snapshot::take()
                    .without_counters()
                    .assert_unchanged_since(&before.clone().without_counters());
            }
        }
        assert!(refused > 4, "{refused} of {calls}");
    });
}
