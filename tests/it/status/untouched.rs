//! Looking changes nothing, and costs at most four children.

use std::fs;

use crate::support::command::{Program, find};
use crate::support::generation::nft_generation;
use crate::support::lab::{Lab, each_iptables_variant, skip};
use crate::support::snapshot::Snapshot;
use crate::support::{Family, Variant, firewall};

use super::{install, report, status};

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

each_iptables_variant! {
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

/// What `status` executes beside itself; `None` where that cannot be seen.
pub fn children(lab: &Lab, flags: &[&str], code: i32) -> Option<Vec<String>> {
    if find("strace").is_none() {
        skip("this machine has no strace");
        return None;
    }
    let log = lab.dir().join("strace.log");
    let run = Program::new("strace").args(["-f", "-qq", "-e", "trace=execve", "-o"]).arg(&log);
    let _ = run.arg(lab.program_path()).arg("status").args(flags).run().exits(code);
    let log = fs::read_to_string(&log).expect("strace wrote its log");
    let executed = log.lines().filter(|line| line.contains("execve(\"") && !line.contains("= -1 "));
    Some(executed.skip(1).map(str::to_owned).collect())
}

/// Rules in the legacy tables of both families, to be read too.
fn legacy_rules() {
    for family in Family::BOTH {
        firewall::restore(Variant::Legacy, family, "*nat\n-A OUTPUT -p udp -j ACCEPT\nCOMMIT\n");
    }
}

#[test]
fn four_children_are_enough_for_everything() {
    Lab::enter(|lab| {
        install(lab, Variant::Nft);
        legacy_rules();
        let Some(executed) = children(lab, &[], 0) else { return };
        assert_eq!(executed.len(), 4, "{executed:#?}");
        assert!(executed.iter().all(|line| line.contains("-save\"")), "{executed:#?}");
    });
}

#[test]
fn and_for_tables_that_no_save_program_prints() {
    Lab::enter(|lab| {
        install(lab, Variant::Nft);
        for family in ["ip", "ip6"] {
            firewall::nft(&format!(
                "table {family} nat {{\n chain mine {{\n tcp dport {{ 1, 2 }} redirect to :3\n }}\n}}\n"
            ));
        }
        lab.silence();
        let before = (Snapshot::take(), nft_generation());
        let found = report(lab, 0, &[]);
        for family in found["families"].as_array().expect("a list") {
            assert!(
                family["redirected"]["outbound"].is_u64() && family["rules"].as_u64() > Some(10),
                "{found:#}"
            );
        }
        let Some(executed) = children(lab, &[], 0) else { return };
        assert_eq!(executed.len(), 4, "{executed:#?}");
        assert_eq!(nft_generation(), before.1);
        Snapshot::take().assert_unchanged_since(&before.0);
        let _ = firewall::iptables(Variant::Nft, Family::V6, "-t nat -F KUMA_MESH_INBOUND").succeeds();
        assert_eq!(
            super::differences(&report(lab, 11, &[])),
            [("missing".into(), "KUMA_MESH_INBOUND".into())]
        );
    });
}

#[test]
fn and_for_programs_whose_names_say_nothing() {
    Lab::enter(|lab| {
        let multi = firewall::path(Variant::Nft, Family::V4, "-save").canonicalize().expect("a file");
        let dir = lab.dir().join("odd");
        fs::create_dir(&dir).expect("a directory of the lab");
        fs::copy(multi, dir.join("tables-multi")).expect("a copy");
        let mut flag = Vec::new();
        for name in Family::BOTH
            .iter()
            .flat_map(|f| ["", "-save", "-restore"].map(|role| format!("{}{role}", f.tool())))
        {
            std::os::unix::fs::symlink("tables-multi", dir.join(&name)).expect("a link");
            flag.push(format!("{name}:{}", dir.join(&name).display()));
        }
        let flags = ["--iptables-executables".to_owned(), flag.join(",")];
        let install = ["install", "--kuma-dp-user", "kuma-dp"];
        let _ = lab.program().args(install).args(&flags).run().succeeds();
        legacy_rules();
        let Some(executed) = children(lab, &[], 0) else { return };
        assert_eq!(executed.len(), 4, "{executed:#?}");
        assert_eq!(executed.iter().filter(|line| line.contains("/odd/")).count(), 2, "{executed:#?}");
    });
}
