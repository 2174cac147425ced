//! How much a run does: children, rules, files.

use std::fs;
use std::path::Path;

use crate::support::backend::own_table;
use crate::support::command::{Program, find, must};
use crate::support::generation::nft_generation;
use crate::support::lab::{each_backend, each_iptables_variant, skip};
use crate::support::mesh::listening_sidecar;
use crate::support::ruleset::OWN_CHAINS;
use crate::support::snapshot::Snapshot;
use crate::support::{APP, Backend, Family, Lab, Run, Variant, firewall};

/// Runs the program under `strace` and counts what it executes beside itself, and how often a legacy table is
/// written.
struct Trace {
    children: Vec<String>,
    legacy_writes: usize,
}

fn traced(lab: &Lab, backend: Backend, flags: &[&str]) -> Option<(Run, Trace)> {
    let install = ["install", "--kuma-dp-user", "kuma-dp"].map(str::to_owned).into_iter();
    let flags = install.chain(backend.flags()).chain(flags.iter().map(|&flag| flag.to_owned()));
    trace(lab, &flags.collect::<Vec<_>>())
}

fn trace(lab: &Lab, args: &[String]) -> Option<(Run, Trace)> {
    if find("strace").is_none() {
        skip("this machine has no strace");
        return None;
    }
    let log = lab.dir().join("strace.log");
    let program = Program::new("strace")
        .args(["-f", "-qq", "-e", "trace=execve,execveat,setsockopt", "-o"])
        .arg(&log)
        .arg(lab.program_path())
        .args(args);
    // Without one, status ends with 11.
    let _sidecar = (args.first().is_some_and(|arg| arg == "status")).then(listening_sidecar);
    let run = program.run().succeeds();
    let log = fs::read_to_string(&log).expect("strace wrote its log");
    // Calls of two children at a time are shown in two halves, the first of them without a result.
    let executed = log.lines().filter(|line| line.contains("execve") && !line.contains("= -1 "));
    let children: Vec<String> =
        executed.filter(|line| !line.contains("resumed")).skip(1).map(str::to_owned).collect();
    // IPT_SO_SET_REPLACE and its IPv6 twin have one number.
    let writes = log.lines().filter(|line| line.contains("_SET_REPLACE") || line.contains(", 0x40 /*"));
    Some((run, Trace { children, legacy_writes: writes.count() }))
}

#[test]
fn a_native_install_does_not_read_long_tables_of_others() {
    Lab::enter(|lab| {
        if find("strace").is_none() {
            skip("this machine has no strace");
            return;
        }
        let rules: Vec<String> = (1..=2000).map(|port| format!("tcp dport {port} counter accept")).collect();
        firewall::nft(&format!(
            "table ip filter {{\nchain c {{\n{}\n}}\n}}\ntable ip nat {{\nchain c {{\ntcp dport 80 counter\n}}\n}}\n",
            rules.join("\n")
        ));
        let log = lab.dir().join("received.log");
        let program = Program::new("strace").args(["-f", "-qq", "-e", "trace=recvfrom", "-o"]).arg(&log);
        let install = ["install", "--kuma-dp-user", "kuma-dp", "--backend", "nftables"];
        program.arg(lab.program_path()).args(install).run().succeeds();
        let log = fs::read_to_string(&log).expect("strace wrote its log");
        let sizes = log.lines().filter_map(|line| line.rsplit_once(" = ")?.1.trim().parse::<usize>().ok());
        let received: usize = sizes.sum();
        // A rule is more than 100 bytes in an answer of the kernel.
        assert!((1..50_000).contains(&received), "{received} bytes:\n{log}");
    });
}

#[test]
fn the_native_backend_starts_no_program_at_all() {
    Lab::enter(|lab| {
        let [clean, same, replaced, list] =
            [&["--redirect-dns"][..], &["--redirect-dns"], &["--redirect-all-dns-traffic"], &[]];
        for flags in [clean, same, replaced, list] {
            let Some((run, trace)) = traced(lab, Backend::Nftables, flags) else { return };
            assert_eq!(trace.children, [""; 0], "{run}");
            assert_eq!(trace.legacy_writes, 0, "{run}");
        }
        for args in [&["status"][..], &["verify"], &["uninstall", "--dry-run"], &["uninstall"]] {
            let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
            let Some((run, trace)) = trace(lab, &args) else { return };
            assert_eq!(trace.children, [""; 0], "{run}");
        }
        assert_eq!(Backend::installed(), []);
    });
}

/// Every transaction raises the generation by one, and packets are looked at anew once for each.
#[test]
fn the_native_backend_takes_one_generation_for_a_change_and_none_for_the_same() {
    Lab::enter(|lab| {
        let generations = |flags: &[&str]| {
            let before = nft_generation();
            lab.install(Backend::Nftables, flags).succeeds();
            nft_generation() - before
        };
        assert_eq!(generations(&["--redirect-dns"]), 1, "clean");
        assert_eq!(generations(&["--redirect-dns"]), 0, "unchanged");
        assert_eq!(generations(&["--redirect-all-dns-traffic"]), 1, "another table");
        let ports = ["--redirect-all-dns-traffic", "--exclude-outbound-ports"];
        assert_eq!(generations(&[ports[0], ports[1], "1,3,5"]), 1, "a list more");
        assert_eq!(generations(&[ports[0], ports[1], "1,3,7,9"]), 1, "another list");
        let before = nft_generation();
        lab.uninstall(Backend::Nftables, &[]).succeeds();
        assert_eq!(nft_generation() - before, 1, "uninstall");
    });
}

#[test]
fn a_thousand_ports_take_one_set_of_the_native_backend() {
    Lab::enter(|lab| {
        let counted = |ports: usize| {
            let ports = (0..ports).map(|n| (2000 + 3 * n).to_string()).collect::<Vec<_>>().join(",");
            let flags = ["--exclude-outbound-ports", &ports, "--exclude-inbound-ports", &ports];
            lab.install(Backend::Nftables, &flags).succeeds();
            let table = own_table().expect("it is there");
            let lines = |words: &str| table.lines().filter(|line| line.contains(words)).count();
            (lines("counter "), lines("set "), table.matches("4997").count())
        };
        let (few, sets, _) = counted(2);
        let (many, many_sets, last) = counted(1000);
        assert_eq!((few, sets), (many, many_sets));
        assert_eq!(last, 2, "every port of both lists is there");
    });
}

// What these programs are started for, and how many rules it takes without sets.
each_iptables_variant! {
    fn children_of_an_install(lab, variant) {
        let Some((_, clean)) = traced(lab, variant.into(), &["--redirect-dns"]) else { return };
        assert!(clean.children.len() <= 6, "{:#?}", clean.children);
        assert!(clean.children.iter().any(|line| line.contains("-restore")), "{:#?}", clean.children);
        assert_eq!(clean.legacy_writes > 0, variant == Variant::Legacy);

        let (run, same) = traced(lab, variant.into(), &["--redirect-dns"]).expect("strace is there");
        let _ = run.prints("nothing was written");
        assert!(same.children.len() <= 4, "{:#?}", same.children);
        assert_eq!(same.legacy_writes, 0);

        let (_, changed) = traced(lab, variant.into(), &["--redirect-all-dns-traffic"]).expect("strace is there");
        assert!(changed.children.len() <= 6, "{:#?}", changed.children);
        println!("children: {} clean, {} unchanged, {} changed",
            clean.children.len(), same.children.len(), changed.children.len());
    }

    fn a_thousand_ports_take_seventy_rules_at_most(lab, variant) {
        let ports = (0..1000).map(|n| (2000 + 3 * n).to_string()).collect::<Vec<_>>().join(",");
        lab.install(variant, &["--exclude-outbound-ports", &ports, "--exclude-inbound-ports", &ports]).succeeds();
        for family in Family::BOTH {
            let rules = firewall::rules(variant, family);
            for chain in ["KUMA_MESH_OUTBOUND", "KUMA_MESH_INBOUND"] {
                let ports = rules.chain("nat", chain).into_iter().filter(|rule| rule.contains("--dports ")).count();
                assert!((67..=70).contains(&ports), "{ports} rules in {chain}");
            }
            assert!(rules.rules().count() < 2 * 70 + 13, "{rules}");
        }
    }
}

each_backend! {
    fn no_file_is_left_in_tmp(lab, backend) {
        must("mount", &["-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/tmp"]);
        lab.install(backend, &["--redirect-dns"]).succeeds();
        lab.install(backend, &["--redirect-all-dns-traffic"]).succeeds();
        lab.uninstall(backend, &[]).succeeds();
        assert_eq!(fs::read_dir("/tmp").expect("a directory").count(), 0);
    }

    fn a_dry_run_changes_nothing_at_all(lab, backend) {
        let before = Snapshot::take();
        let generation = nft_generation();
        let legacy = legacy_tables();
        for mode in [&["--dry-run"][..], &["--dry-run", "--verbose"], &["--dry-run=diff"], &["--dry-run", "-o", "json"]] {
            let flags: Vec<&str> = mode.iter().copied().chain(["--redirect-dns"]).collect();
            let run = lab.install(backend, &flags).succeeds();
            let parts: &[&str] = if backend == Backend::Nftables { &NATIVE_CHAINS } else { &OWN_CHAINS };
            assert!(parts.iter().all(|part| run.stdout.contains(part)), "{run}");
            lab.uninstall(backend, mode).succeeds();
        }
        Snapshot::take().assert_unchanged_since(&before);
        assert_eq!(nft_generation(), generation);
        assert_eq!(legacy_tables(), legacy);
        assert!(!Path::new("/run/tproxy").exists());

        // And over an installation.
        lab.install(backend, &[]).succeeds();
        let before = Snapshot::take();
        let generation = nft_generation();
        let diff = lab.install(backend, &["--dry-run=diff", "--exclude-outbound-ports", "7"]).succeeds();
        // A rule for each family, or an element for both.
        let (new, often) = if backend == Backend::Nftables { ("_outbound_ports: 7", 1) } else { ("dport 7 ", 2) };
        let changed = diff.stdout.lines().filter(|line| line.starts_with(['+', '-']) && line.contains(new));
        assert_eq!(changed.count(), often, "{diff}");
        let ours = if backend == Backend::Nftables { "chain outbound" } else { "KUMA_MESH_OUTBOUND" };
        lab.uninstall(backend, &["--dry-run=diff"]).succeeds().prints(ours);
        Snapshot::take().assert_unchanged_since(&before);
        assert_eq!(nft_generation(), generation);
    }

    fn a_dry_run_needs_no_root(lab, backend) {
        let before = Snapshot::take();
        let program = || lab.installing(backend, &["--redirect-dns"]).user(APP);
        let user = program().arg("--dry-run").run().succeeds();
        let root = lab.install(backend, &["--redirect-dns", "--dry-run"]).succeeds();
        assert_eq!(user.stdout, root.stdout);
        program().run().exits(3).says("root");
        lab.uninstalling(backend, &[]).user(APP).run().exits(3).says("root");
        Snapshot::take().assert_unchanged_since(&before);
    }
}

/// Those of our chains that are in every native table, as nft lists them and as a difference names them.
const NATIVE_CHAINS: [&str; 4] = ["inbound", "outbound", "inbound_redirect", "outbound_redirect"];

fn legacy_tables() -> [String; 2] {
    ["ip_tables_names", "ip6_tables_names"]
        .map(|name| fs::read_to_string(Path::new("/proc/thread-self/net").join(name)).unwrap_or_default())
}
