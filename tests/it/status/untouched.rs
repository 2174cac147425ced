//! Looking changes nothing, and costs at most four children.

use std::fs;

use crate::support::command::{Program, find};
use crate::support::generation::nft_generation;
use crate::support::lab::{Lab, each_variant, skip};
use crate::support::snapshot::Snapshot;
use crate::support::{Family, Variant, firewall};

use super::{install, status};

fn legacy_tables() -> Vec<String> {
    let names = ["ip_tables_names", "ip6_tables_names"];
    names.map(|name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default()).into()
}

fn look(lab: &Lab, code: i32) {
    let before = (legacy_tables(), nft_generation());
    let _ = status(lab, &[]).exits(code);
    let _ = status(lab, &["-o", "json"]).exits(code);
    assert_eq!((legacy_tables(), nft_generation()), before);
}

#[test]
fn a_clean_host_stays_clean() {
    Lab::enter(|lab| {
        look(lab, 10);
        assert_eq!(legacy_tables(), ["", ""]);
        assert!(!std::path::Path::new("/run/tproxy").exists());
    });
}

each_variant! {
    fn an_installation_stays_as_it_is(lab, variant) {
        install(lab, variant);
        lab.silence();
        let before = Snapshot::take();
        look(lab, 0);
        Snapshot::take().assert_unchanged_since(&before);
        let _ = firewall::iptables(variant, Family::V4, "-t nat -F KUMA_MESH_INBOUND").succeeds();
        let before = Snapshot::take();
        look(lab, 11);
        Snapshot::take().assert_unchanged_since(&before);
    }
}

#[test]
fn four_children_are_enough_for_everything() {
    Lab::enter(|lab| {
        if find("strace").is_none() {
            return skip("this machine has no strace");
        }
        install(lab, Variant::Nft);
        for family in Family::BOTH {
            firewall::restore(Variant::Legacy, family, "*nat\n-A OUTPUT -p udp -j ACCEPT\nCOMMIT\n");
        }
        let log = lab.dir().join("strace.log");
        let run = Program::new("strace").args(["-f", "-qq", "-e", "trace=execve", "-o"]).arg(&log);
        let _ = run.arg(lab.program_path()).arg("status").run().exits(0);
        let log = fs::read_to_string(&log).expect("strace wrote its log");
        let executed: Vec<_> = log
            .lines()
            .filter(|line| line.contains("execve(\"") && !line.contains("= -1 "))
            .skip(1)
            .collect();
        assert_eq!(executed.len(), 4, "{executed:#?}");
        assert!(executed.iter().all(|line| line.contains("-save\"")), "{executed:#?}");
    });
}
