//! How much a run does: children, rules, files.

use std::fs;
use std::path::Path;

use crate::support::command::{Program, find, must};
use crate::support::generation::nft_generation;
use crate::support::lab::{each_iptables_variant, skip};
use crate::support::ruleset::OWN_CHAINS;
use crate::support::snapshot::Snapshot;
use crate::support::{APP, Family, Lab, Run, Variant, firewall};

/// Runs the program under `strace` and counts what it executes beside itself, and how often a legacy table is
/// written.
struct Trace {
    children: Vec<String>,
    legacy_writes: usize,
}

fn traced(lab: &Lab, variant: Variant, flags: &[&str]) -> Option<(Run, Trace)> {
    if find("strace").is_none() {
        skip("this machine has no strace");
        return None;
    }
    let log = lab.dir().join("strace.log");
    let tools = match variant {
        Variant::Nft => String::new(),
        Variant::Legacy => firewall::executables(Variant::Legacy),
    };
    let mut program = Program::new("strace")
        .args(["-f", "-qq", "-e", "trace=execve,setsockopt", "-o"])
        .arg(&log)
        .arg(lab.program_path())
        .args(["install", "--kuma-dp-user", "kuma-dp"])
        .args(flags);
    if !tools.is_empty() {
        program = program.args(["--iptables-executables", &tools]);
    }
    let run = program.run().succeeds();
    let log = fs::read_to_string(&log).expect("strace wrote its log");
    // Calls of two children at a time are shown in two halves, the first of them without a result.
    let executed = log.lines().filter(|line| line.contains("execve(\"") && !line.contains("= -1 "));
    let children: Vec<String> = executed.skip(1).map(str::to_owned).collect();
    // IPT_SO_SET_REPLACE and its IPv6 twin have one number.
    let writes = log.lines().filter(|line| line.contains("_SET_REPLACE") || line.contains(", 0x40 /*"));
    Some((run, Trace { children, legacy_writes: writes.count() }))
}

each_iptables_variant! {
    fn children_of_an_install(lab, variant) {
        let Some((_, clean)) = traced(lab, variant, &["--redirect-dns"]) else { return };
        assert!(clean.children.len() <= 6, "{:#?}", clean.children);
        assert!(clean.children.iter().any(|line| line.contains("-restore")), "{:#?}", clean.children);
        assert_eq!(clean.legacy_writes > 0, variant == Variant::Legacy);

        let (run, same) = traced(lab, variant, &["--redirect-dns"]).expect("strace is there");
        let _ = run.prints("nothing was written");
        assert!(same.children.len() <= 4, "{:#?}", same.children);
        assert_eq!(same.legacy_writes, 0);

        let (_, changed) = traced(lab, variant, &["--redirect-all-dns-traffic"]).expect("strace is there");
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

    fn no_file_is_left_in_tmp(lab, variant) {
        must("mount", &["-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/tmp"]);
        lab.install(variant, &["--redirect-dns"]).succeeds();
        lab.install(variant, &["--redirect-all-dns-traffic"]).succeeds();
        lab.uninstall(variant, &[]).succeeds();
        assert_eq!(fs::read_dir("/tmp").expect("a directory").count(), 0);
    }

    fn a_dry_run_changes_nothing_at_all(lab, variant) {
        let before = Snapshot::take();
        let generation = nft_generation();
        let legacy = legacy_tables();
        for mode in [&["--dry-run"][..], &["--dry-run", "--verbose"], &["--dry-run=diff"], &["--dry-run", "-o", "json"]] {
            let flags: Vec<&str> = mode.iter().copied().chain(["--redirect-dns"]).collect();
            let run = lab.install(variant, &flags).succeeds();
            assert!(OWN_CHAINS.iter().all(|chain| run.stdout.contains(chain)), "{run}");
            lab.uninstall(variant, mode).succeeds();
        }
        Snapshot::take().assert_unchanged_since(&before);
        assert_eq!(nft_generation(), generation);
        assert_eq!(legacy_tables(), legacy);
        assert!(!Path::new("/run/tproxy").exists());

        // And over an installation.
        lab.install(variant, &[]).succeeds();
        let before = Snapshot::take();
        let generation = nft_generation();
        let diff = lab.install(variant, &["--dry-run=diff", "--exclude-outbound-ports", "7"]).succeeds();
        let changed: Vec<&str> =
            diff.stdout.lines().filter(|line| line.starts_with(['+', '-']) && line.contains("dport 7 ")).collect();
        assert_eq!(changed.len(), 2, "{diff}");
        lab.uninstall(variant, &["--dry-run=diff"]).succeeds().prints("KUMA_MESH_OUTBOUND");
        Snapshot::take().assert_unchanged_since(&before);
        assert_eq!(nft_generation(), generation);
    }

    fn a_dry_run_needs_no_root(lab, variant) {
        let before = Snapshot::take();
        let program = || lab.installing(variant, &["--redirect-dns"]).user(APP);
        let user = program().arg("--dry-run").run().succeeds();
        let root = lab.install(variant, &["--redirect-dns", "--dry-run"]).succeeds();
        assert_eq!(user.stdout, root.stdout);
        program().run().exits(3).says("root");
        lab.uninstalling(variant, &[]).user(APP).run().exits(3).says("root");
        Snapshot::take().assert_unchanged_since(&before);
    }
}

fn legacy_tables() -> [String; 2] {
    ["ip_tables_names", "ip6_tables_names"]
        .map(|name| fs::read_to_string(Path::new("/proc/thread-self/net").join(name)).unwrap_or_default())
}
