//! Looking changes nothing, and costs at most four children.

use std::fs;

use crate::support::command::{Program, copy_program, find, must};
use crate::support::generation::nft_generation;
use crate::support::lab::{Lab, each_backend, everywhere, skip};
use crate::support::mesh::listening_sidecar;
use crate::support::snapshot::Snapshot;
use crate::support::{Backend, Family, Variant, firewall};

use super::ahead::DOCKER;
use super::{flush_inbound, install, report, status};

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

each_backend! {
    fn an_installation_stays_as_it_is(lab, backend) {
        install(lab, backend);
        lab.silence();
        let before = Snapshot::take();
        look(lab, 0);
        Snapshot::take().assert_unchanged_since(&before);
        flush_inbound(backend);
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
    let _sidecar = listening_sidecar();
    let run = Program::new("strace").args(["-f", "-qq", "-e", "trace=execve", "-o"]).arg(&log);
    let _ = run.arg(lab.program_path()).arg("status").args(flags).run().exits(code);
    let log = fs::read_to_string(&log).expect("strace wrote its log");
    let executed = log.lines().filter(|line| line.contains("execve(\"") && !line.contains("= -1 "));
    Some(executed.skip(1).map(str::to_owned).collect())
}

/// Rules of others in the legacy tables of both families, to be read too.
fn legacy_rules() {
    for family in Family::BOTH {
        firewall::restore(Variant::Legacy, family, "*nat\n-A OUTPUT -p udp -j ACCEPT\nCOMMIT\n");
    }
}

/// Native rules among those of iptables, which make a save program leave a whole table out.
fn native_rules_in_shared_tables() {
    for family in ["ip", "ip6"] {
        firewall::nft(&format!(
            "table {family} nat {{\n chain mine {{\n tcp dport {{ 1, 2 }} redirect to :3\n }}\n}}\n"
        ));
    }
}

/// Every kind of host: what is there, the exit code, and how many children it takes.
#[test]
fn no_host_takes_more_than_four_children() {
    type Prepare = fn(&Lab);
    let foreign = || {
        for (variant, family) in everywhere() {
            firewall::restore(variant, family, "*filter\n-A OUTPUT -p udp -j ACCEPT\nCOMMIT\n");
        }
    };
    let hosts: [(&str, Prepare, i32, usize); 13] = [
        // The sidecar listens as another user than that one.
        ("native without a record, for a user without a name", native_without_record, 11, 0),
        ("nothing", |_| {}, 10, 0),
        ("others' nft rules", |_| firewall::restore(Variant::Nft, Family::V4, DOCKER), 10, 0),
        ("others' legacy rules", |_| legacy_rules(), 10, 0),
        ("nft", |lab| install(lab, Backend::NFT), 0, 2),
        ("legacy", |lab| install(lab, Backend::LEGACY), 0, 2),
        ("native", |lab| install(lab, Backend::Nftables), 0, 0),
        (
            "native beside nft",
            |lab| {
                firewall::restore(Variant::Nft, Family::V4, DOCKER);
                install(lab, Backend::Nftables);
            },
            0,
            0,
        ),
        (
            "legacy beside nft",
            |lab| {
                firewall::restore(Variant::Nft, Family::V4, DOCKER);
                install(lab, Backend::LEGACY);
            },
            0,
            2,
        ),
        ("both variants at once", both_variants, 11, 4),
        (
            "leftovers of a migration",
            |lab| {
                both_variants(lab);
                install_native_beside(lab);
            },
            11,
            4,
        ),
        (
            "both variants, and native rules among them",
            |lab| {
                both_variants(lab);
                native_rules_in_shared_tables();
            },
            11,
            4,
        ),
        (
            "nft, legacy of others, and native rules among them",
            |lab| {
                install(lab, Backend::NFT);
                legacy_rules();
                native_rules_in_shared_tables();
            },
            0,
            4,
        ),
    ];
    for (host, prepare, code, count) in hosts {
        Lab::enter(move |lab| {
            foreign();
            prepare(lab);
            let before = (legacy_tables(), nft_generation());
            let Some(executed) = children(lab, &[], code) else { return };
            assert_eq!(executed.len(), count, "{host}: {executed:#?}");
            assert_eq!((legacy_tables(), nft_generation()), before, "{host}");
        });
    }
}

fn native_without_record(lab: &Lab) {
    lab.replace("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    let flags = ["install", "--kuma-dp-user", "4321", "--redirect-dns", "--backend", "nftables"];
    let _ = lab.program().args(flags).run().succeeds();
    fs::remove_dir_all("/run/tproxy").expect("a record");
}

/// A name that only `getent` could find: when four save programs are needed too, something is left out and told.
#[test]
fn looking_up_the_sidecars_user_is_one_of_the_four() {
    Lab::enter(|lab| {
        both_variants(lab);
        let flags = ["--kuma-dp-user", "nosuchname"];
        let _ = status(lab, &flags).exits(3).says("does not refer to a valid user");
        let Some(executed) = children(lab, &flags, 3) else { return };
        let asks = |executed: &[String]| executed.iter().filter(|line| line.contains("getent")).count();
        assert_eq!((executed.len(), asks(&executed)), (4, 1), "{executed:#?}");

        // The name of the record: what it says will do.
        lab.replace("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
        for flags in [&[][..], &["--kuma-dp-user", "kuma-dp", "--redirect-dns"]] {
            let _ = status(lab, flags).exits(11).prints("user was not looked up");
            let executed = children(lab, flags, 11).expect("strace is there");
            assert_eq!((executed.len(), asks(&executed)), (4, 0), "{executed:#?}");
        }
    });
}

/// The same rules in both variants.
fn both_variants(lab: &Lab) {
    install(lab, Backend::NFT);
    for family in Family::BOTH {
        let saved = firewall::save(Variant::Nft, family);
        firewall::restore(Variant::Legacy, family, &saved);
    }
}

/// A native table beside whatever is there.
fn install_native_beside(lab: &Lab) {
    let flags = ["install", "--kuma-dp-user", "kuma-dp", "--redirect-dns", "--backend", "nftables"];
    let text = lab.program().args(flags).arg("--dry-run").run().succeeds().stdout;
    firewall::nft(&text);
}

#[test]
fn what_a_save_program_leaves_out_is_read_all_the_same() {
    Lab::enter(|lab| {
        install(lab, Backend::NFT);
        native_rules_in_shared_tables();
        lab.silence();
        for _ in 0..2 {
            let before = (Snapshot::take(), nft_generation());
            let found = report(lab, 0, &[]);
            for family in found["families"].as_array().expect("a list") {
                assert!(
                    family["redirected"]["outbound"].is_u64() && family["rules"].as_u64() > Some(10),
                    "{found:#}"
                );
            }
            let Some(children) = children(lab, &[], 0) else { return };
            assert_eq!(children.len(), 4, "{children:#?}");
            assert_eq!(nft_generation(), before.1);
            Snapshot::take().assert_unchanged_since(&before.0);
            // Legacy tables of others take no program more.
            legacy_rules();
        }
        let _ = firewall::iptables(Variant::Nft, Family::V6, "-t nat -F KUMA_MESH_INBOUND").succeeds();
        assert_eq!(
            super::differences(&report(lab, 11, &[])),
            [("missing".into(), "KUMA_MESH_INBOUND".into())]
        );
        // A native rule in our own chain hides it from every program.
        firewall::nft("add rule ip nat KUMA_MESH_OUTBOUND tcp dport { 7, 8 } redirect to :9\n");
        let _ =
            status(lab, &[]).exits(3).says("cannot be read with iptables").says("to a table of their own");
        let Some(children) = children(lab, &[], 3) else { return };
        assert!(children.len() <= 4, "{children:#?}");
    });
}

#[test]
fn and_for_programs_whose_names_say_nothing() {
    Lab::enter(|lab| {
        let multi = firewall::path(Variant::Nft, Family::V4, "-save").canonicalize().expect("a file");
        let dir = lab.dir().join("odd");
        fs::create_dir(&dir).expect("a directory of the lab");
        copy_program(&multi, &dir.join("tables-multi"));
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
        let Some(executed) = children(lab, &flags.each_ref().map(String::as_str), 0) else { return };
        assert_eq!(executed.len(), 2, "{executed:#?}");
        assert!(executed.iter().all(|line| line.contains("/odd/")), "{executed:#?}");
        // Only who runs it can name them, not a record.
        let Some(executed) = children(lab, &[], 0) else { return };
        assert!(executed.iter().all(|line| !line.contains("/odd/")), "{executed:#?}");
    });
}

/// Where others can write `/run`, they can be the service that `getent` asks.
#[test]
fn a_name_is_not_looked_up_where_others_could_answer() {
    Lab::enter(|lab| {
        install(lab, Backend::NFT);
        let flags = ["--kuma-dp-user", "nosuchname"];
        let asks = |executed: &[String]| executed.iter().filter(|line| line.contains("getent")).count();
        let Some(executed) = children(lab, &flags, 3) else { return };
        assert_eq!(asks(&executed), 1, "{executed:#?}");
        must("chmod", &["1777", "/run"]);
        let executed = children(lab, &flags, 3).expect("strace is there");
        assert_eq!(asks(&executed), 0, "{executed:#?}");
        let _ = status(lab, &flags).exits(3).says("/run is writable by others").says("--kuma-dp-user");
    });
}
