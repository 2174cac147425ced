//! Rules that firewalld keeps: with a real one, over its reloads.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::Backend::Nftables as Native;
use crate::support::backend::{own_table, own_table_handle};
use crate::support::firewalld::{Backend, DIRECT_XML, Firewalld};
use crate::support::mesh::Mesh;
use crate::support::ruleset::assert_same;
use crate::support::{APP, Family, Lab, Ruleset, SIDECAR, Variant, firewall};

/// Rules at the heads and tails of all the chains that there are, and both kinds of DNS rules.
const FLAGS: [&str; 9] = [
    "--store-firewalld",
    "--redirect-dns",
    "--drop-invalid-packets",
    "--vnet",
    "docker0:172.17.0.0/16",
    "--exclude-outbound-ports-for-uids",
    "tcp:7000:5700",
    "--exclude-inbound-ports",
    "22",
];

/// Lets redirected IPv6 connections pass.
const IPV6: &str = "RFC3964_IPv4=no";

/// In order, chain by chain, without counters.
fn rules(family: Family) -> Ruleset {
    firewall::rules(Variant::Nft, family).quiet()
}

fn has_ours() -> bool {
    Family::BOTH.into_iter().any(|family| rules(family).has_ours())
}

fn scenario(
    backend: Backend,
    settings: &'static str,
    test: impl FnOnce(&Lab, &mut Firewalld) + Send + 'static,
) {
    Lab::enter(move |lab| {
        let Some(mut firewalld) = Firewalld::start(lab, backend, settings) else { return };
        test(lab, &mut firewalld);
    });
}

#[test]
fn after_a_reload_the_rules_are_those_that_were_installed() {
    scenario(Backend::Nftables, IPV6, |lab, firewalld| {
        let before = Family::BOTH.map(rules);
        lab.install(Variant::Nft, &FLAGS).succeeds();
        let installed = Family::BOTH.map(rules);
        assert!(installed.iter().all(Ruleset::has_ours));
        firewalld.reload();
        for (family, installed) in Family::BOTH.into_iter().zip(&installed) {
            assert_same("firewalld's rules", &installed.to_string(), &rules(family).to_string());
        }
        lab.install(Variant::Nft, &FLAGS).succeeds().prints("nothing was written");

        lab.uninstall(Variant::Nft, &[]).succeeds();
        firewalld.reload();
        for (family, before) in Family::BOTH.into_iter().zip(&before) {
            assert_same("the rules at the end", &before.to_string(), &rules(family).to_string());
        }
        assert!(!std::path::Path::new(DIRECT_XML).exists());
    });
}

#[test]
fn after_a_reload_the_iptables_backend_has_them_in_its_own_chains() {
    scenario(Backend::Iptables, IPV6, |lab, firewalld| {
        lab.install(Variant::Nft, &FLAGS).succeeds();
        let installed = Family::BOTH.map(rules);
        firewalld.reload();
        for (family, installed) in Family::BOTH.into_iter().zip(&installed) {
            let rules = rules(family);
            let ours = |rules: &Ruleset, table: &str, chain: &str| {
                let tagged =
                    rules.chain(table, chain).into_iter().filter(|rule| rule.contains("/mesh/transparent/"));
                tagged.map(|rule| rule.replacen(chain, "", 1)).collect::<Vec<_>>()
            };
            for (table, chain, direct) in [
                ("raw", "PREROUTING", "PREROUTING_direct"),
                ("raw", "OUTPUT", "OUTPUT_direct"),
                ("mangle", "PREROUTING", "PREROUTING_direct"),
                ("nat", "PREROUTING", "PREROUTING_direct"),
                ("nat", "OUTPUT", "OUTPUT_direct"),
                ("nat", "KUMA_MESH_INBOUND", "KUMA_MESH_INBOUND"),
                ("nat", "KUMA_MESH_OUTBOUND", "KUMA_MESH_OUTBOUND"),
            ] {
                let wanted = ours(installed, table, chain);
                assert!(!wanted.is_empty(), "{table} {chain}");
                assert_eq!(ours(&rules, table, direct), wanted, "{table} {chain}");
            }
        }
        lab.uninstall(Variant::Nft, &[]).succeeds();
        firewalld.reload();
        assert!(!has_ours());
    });
}

fn traffic_goes_its_way(lab: &Lab, firewalld: &Firewalld) {
    lab.install(Variant::Nft, &FLAGS).succeeds();
    firewalld.reload();
    for family in Family::BOTH {
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.connect(APP, family.outside(), 443), "outbound");
        assert_eq!(mesh.connect(APP, family.outside(), 7000), "world", "excluded for this user");
        assert_eq!(mesh.connect(SIDECAR, family.outside(), 443), "world");
        assert_eq!(mesh.ask(APP, family.resolver()), "dns");
    }
}

#[test]
fn traffic_goes_its_way_after_a_reload_with_nftables() {
    scenario(Backend::Nftables, IPV6, |lab, firewalld| traffic_goes_its_way(lab, firewalld));
}

#[test]
fn traffic_goes_its_way_after_a_reload_with_iptables() {
    scenario(Backend::Iptables, IPV6, |lab, firewalld| traffic_goes_its_way(lab, firewalld));
}

/// firewalld empties the tables of iptables and makes its own anew; a table of somebody else is nothing to it. What an
/// installation by iptables has stored goes when the rules move, or a reload would bring it back beside the table.
fn the_native_table_stays(lab: &Lab, firewalld: &Firewalld) {
    lab.install(Variant::Nft, &FLAGS).succeeds();
    assert!(std::fs::read_to_string(DIRECT_XML).is_ok_and(|text| text.contains("KUMA_MESH")));
    let moved = lab.install(Native, &FLAGS).succeeds();
    assert!(!moved.stderr.contains("install with --store-firewalld"), "{moved}");
    assert!(!std::path::Path::new(DIRECT_XML).exists());
    let (table, handle) = (own_table(), own_table_handle());
    for reload in ["--reload", "--complete-reload"] {
        firewalld.command(&[reload]).succeeds();
        assert_eq!((own_table(), own_table_handle()), (table.clone(), handle), "{reload}");
        assert!(!has_ours(), "{reload}");
    }
    for family in Family::BOTH {
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.connect(APP, family.outside(), 443), "outbound");
        assert_eq!(mesh.connect(APP, family.outside(), 7000), "world", "excluded for this user");
        assert_eq!(mesh.ask(APP, family.resolver()), "dns");
    }
    lab.install(Native, &FLAGS).succeeds().prints("nothing was written");
    lab.uninstall(Native, &[]).succeeds();
    firewalld.reload();
    assert!(own_table().is_none() && !has_ours());
}

/// One that ends takes its own rules away, one that begins empties the tables of iptables; all the while traffic is
/// redirected.
fn the_native_table_outlives_it(lab: &Lab, firewalld: &mut Firewalld) {
    lab.install(Native, &FLAGS).succeeds();
    let (table, handle) = (own_table(), own_table_handle());
    for family in Family::BOTH {
        firewall::iptables(Variant::Nft, family, "-t nat -A OUTPUT -p tcp --dport 9 -j RETURN").succeeds();
    }
    firewalld.restart();
    assert_eq!((own_table(), own_table_handle()), (table, handle));
    for family in Family::BOTH {
        assert!(
            !rules(family).to_string().contains("--dport 9"),
            "rules of others are gone: {}",
            rules(family)
        );
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.connect(APP, family.outside(), 443), "outbound");
        assert_eq!(mesh.connect(SIDECAR, family.outside(), 443), "world");
        assert_eq!(mesh.ask(APP, family.resolver()), "dns");
    }
    lab.install(Native, &FLAGS).succeeds().prints("nothing was written");
}

#[test]
fn the_native_table_outlives_firewalld_with_nftables() {
    scenario(Backend::Nftables, IPV6, the_native_table_outlives_it);
}

#[test]
fn the_native_table_outlives_firewalld_with_iptables() {
    scenario(Backend::Iptables, IPV6, the_native_table_outlives_it);
}

#[test]
fn the_native_table_stays_over_a_reload_with_nftables() {
    scenario(Backend::Nftables, IPV6, |lab, firewalld| the_native_table_stays(lab, firewalld));
}

#[test]
fn the_native_table_stays_over_a_reload_with_iptables() {
    scenario(Backend::Iptables, IPV6, |lab, firewalld| the_native_table_stays(lab, firewalld));
}

#[test]
fn rules_that_are_not_stored_are_gone_after_a_reload_as_was_said() {
    scenario(Backend::Nftables, IPV6, |lab, firewalld| {
        lab.install(Variant::Nft, &[]).succeeds().says("install with --store-firewalld");
        firewalld.reload();
        assert!(!has_ours());
        let stored = lab.install(Variant::Nft, &["--store-firewalld"]).succeeds();
        assert!(!stored.stderr.contains("install with"), "{stored}");
        firewalld.reload();
        assert!(has_ours());
    });
}

#[test]
fn what_firewalld_does_to_ipv6_was_said() {
    scenario(Backend::Nftables, "", |lab, _| {
        lab.install(Variant::Nft, &[]).succeeds().says("set RFC3964_IPv4=no");
        let mesh = Mesh::new(lab, Family::V6);
        let answer = mesh.connect(APP, Family::V6.outside(), 443);
        assert!(answer.contains("No route to host"), "{answer}");
        let mesh = Mesh::new(lab, Family::V4);
        assert_eq!(mesh.connect(APP, Family::V4.outside(), 443), "outbound");
    });
}

#[test]
fn with_the_setting_changed_ipv6_works_and_nothing_is_said() {
    scenario(Backend::Nftables, IPV6, |lab, _| {
        let installed = lab.install(Variant::Nft, &[]).succeeds();
        assert!(!installed.stderr.contains("RFC3964"), "{installed}");
        let mesh = Mesh::new(lab, Family::V6);
        assert_eq!(mesh.connect(APP, Family::V6.outside(), 443), "outbound");
    });
}

#[test]
fn an_administrators_rules_stay_whoever_writes_the_file() {
    scenario(Backend::Nftables, IPV6, |lab, firewalld| {
        let theirs = "<?xml version=\"1.0\"?>\n<!-- by hand -->\n<direct>\n <rule priority='1' ipv='ipv4' table='nat' \
            chain='OUTPUT'>-d 198.51.100.7 -m comment --comment 'by hand' -j ACCEPT</rule>\n</direct>\n";
        std::fs::write(DIRECT_XML, theirs).expect("a private /etc/firewalld");
        firewalld.reload();
        lab.install(Variant::Nft, &FLAGS).succeeds();
        let ours = rules(Family::V4);
        firewalld.reload();
        // Heads come before other people's rules, tails behind them, here as there.
        assert_same("after the reload", &ours.to_string(), &rules(Family::V4).to_string());
        lab.uninstall(Variant::Nft, &[]).succeeds();
        assert_eq!(std::fs::read_to_string(DIRECT_XML).expect("the file"), theirs);

        // firewalld writes the whole file anew, and only what it means stays the same.
        lab.install(Variant::Nft, &FLAGS).succeeds();
        let add = [
            "--permanent",
            "--direct",
            "--add-rule",
            "ipv4",
            "filter",
            "INPUT",
            "5",
            "-s",
            "198.51.100.8",
            "-j",
            "DROP",
        ];
        firewalld.command(&add).succeeds();
        let written = std::fs::read_to_string(DIRECT_XML).expect("the file");
        assert!(written.contains("198.51.100.8") && !written.contains("<!-- by hand"), "{written}");
        lab.install(Variant::Nft, &FLAGS).succeeds().prints("nothing was written");
        assert_eq!(std::fs::read_to_string(DIRECT_XML).expect("the file"), written, "it says the same");
        lab.uninstall(Variant::Nft, &[]).succeeds();
        firewalld.reload();
        assert!(!has_ours());
        let left = firewalld.command(&["--direct", "--get-all-rules"]).succeeds().stdout;
        assert_eq!(left.lines().count(), 2, "{left}");
        assert!(left.contains("198.51.100.7") && left.contains("198.51.100.8"), "{left}");
    });
}

/// Where each byte may take its time, this ends with the limit to each run of a program.
#[test]
fn a_bus_that_says_a_byte_now_and_then_is_not_heard_out() {
    Lab::enter(|lab| {
        fs::create_dir("/run/dbus").expect("a private /run");
        let bus = UnixListener::bind("/run/dbus/system_bus_socket").expect("a private /run");
        let asked = Arc::<AtomicUsize>::default();
        let count = asked.clone();
        thread::spawn(move || {
            for mut client in bus.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    while client.write_all(b"A").is_ok() {
                        thread::sleep(Duration::from_secs(1));
                    }
                });
            }
        });
        lab.install(Variant::Nft, &["--store-firewalld"]).succeeds();
        assert_eq!(asked.load(Ordering::SeqCst), 1, "once in a run");
        lab.uninstall(Variant::Nft, &[]).succeeds();
        assert!(asked.load(Ordering::SeqCst) <= 2, "once in a run");
    });
}
