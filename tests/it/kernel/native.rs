//! The native backend, from installation to the last trace of it.

use crate::support::command::must;
use crate::support::firewall::{self, Family, Variant};
use crate::support::generation::nft_generation;
use crate::support::lab::{Lab, each_iptables_variant};
use crate::support::mesh::listening_sidecar;
use crate::support::snapshot::{Snapshot, loopback};

const FLAGS: [&str; 5] =
    ["install", "--kuma-dp-user", "kuma-dp", "--redirect-dns", "--exclude-outbound-ips=198.51.100.0/24"];

fn table() -> String {
    must("nft", &["-s", "list", "table", "inet", "kuma_mesh"])
}

#[test]
fn it_comes_in_one_transaction_changes_by_elements_and_goes_without_a_trace() {
    Lab::enter(|lab| {
        firewall::nft(
            "table inet theirs { set s { type inet_service; elements = { 80 } }\nchain c { type nat hook output priority -100; tcp dport @s counter; }; }",
        );
        let before = Snapshot::take();
        let native = || lab.program().args(FLAGS).args(["--backend", "nftables"]);
        let generation = nft_generation();
        native().run().succeeds().prints("nftables rules");
        assert_eq!(nft_generation(), generation + 1);
        let first = table();
        assert!(first.contains("198.51.100.0/24") && first.contains("redirect to :15001"), "{first}");

        native().run().succeeds().prints("nothing was written");
        assert_eq!(nft_generation(), generation + 1);

        // What is there stays; nobody has to name it again.
        let more = lab.program().args(FLAGS).arg("--exclude-outbound-ips=203.0.113.7");
        more.run().succeeds().says("using nftables: it is what is installed");
        assert_eq!(nft_generation(), generation + 2);
        assert!(table().contains("203.0.113.7"), "{}", table());
        let _sidecar = listening_sidecar();
        lab.program().arg("status").run().succeeds();

        lab.program().arg("uninstall").run().succeeds().prints("nftables rules removed");
        Snapshot::take().assert_unchanged_since(&before);
    });
}

#[test]
fn an_install_says_what_it_chose_and_why() {
    Lab::enter(|lab| {
        let install = || lab.program().args(FLAGS).run().succeeds();
        install().says("using iptables (nft): neither variant has rules yet");
        install().says("using iptables (nft): it is what is installed");
        let named = |backend| lab.program().args(FLAGS).args(["--backend", backend]).run().succeeds();
        named("iptables").says("using iptables (nft): iptables was asked for, and it is what is installed");
        named("nftables").says("using nftables: it was asked for");
        install().says("using nftables: it is what is installed");
        lab.program().arg("uninstall").run().succeeds();
        firewall::iptables(Variant::Legacy, Family::V4, "-A INPUT -p tcp --dport 25 -j DROP").succeeds();
        install().says("using iptables (legacy): the host's rules are there");
    });
}

#[test]
fn its_dry_run_is_such_a_file_without_ipv6_and_with_every_note_too() {
    Lab::enter(|lab| {
        must(
            "sysctl",
            &["-q", "-w", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"],
        );
        let native =
            || lab.program().args(FLAGS).args(["--backend=nftables", "--verbose", "--iptables-logs"]);
        let run = native().arg("--dry-run").run().succeeds().says("IPv6");
        assert!(!run.stdout.contains("warning"), "{run}");
        firewall::nft(&run.stdout);
        native().run().succeeds().prints("nothing was written");
        // Over what is there, whatever it is.
        firewall::nft(
            "add chain inet kuma_mesh outbound { comment \"of another\"; }\nadd counter inet kuma_mesh theirs\n",
        );
        firewall::nft(&run.stdout);
        native().run().succeeds().prints("nothing was written");
    });
}

#[test]
fn its_dry_run_is_a_file_that_nft_loads_to_the_same() {
    Lab::enter(|lab| {
        let native = || lab.program().args(FLAGS).args(["--backend", "nftables"]);
        let generation = nft_generation();
        let text = native().arg("--dry-run").run().succeeds().stdout;
        assert_eq!(nft_generation(), generation);
        native().run().succeeds();
        let ours = table();
        firewall::nft(&text);
        assert_eq!(table(), ours);
        native().run().succeeds().prints("nothing was written");
    });
}

/// Such as of another version: what the rules say and count is no reason to keep them or to stop.
#[test]
fn a_table_in_other_words_is_replaced_and_what_is_not_ours_is_named() {
    Lab::enter(|lab| {
        let native = || lab.program().args(FLAGS).args(["--backend", "nftables", "--ip-family-mode", "ipv4"]);
        native().run().succeeds();
        let ours = table();
        let mut former = native().arg("--dry-run").run().succeeds().stdout;
        for (is, was) in [
            ("TCP goes to the sidecar's inbound port.", "redirect TCP traffic to envoy"),
            ("meta nfproto ipv6 counter accept", "meta nfproto ipv6 accept"),
        ] {
            assert!(former.contains(is), "{is}: {former}");
            former = former.replace(is, was);
        }
        firewall::nft(&former);
        firewall::nft("insert rule inet kuma_mesh outbound tcp dport 22 counter accept comment \"ssh\"\n");
        let generation = nft_generation();
        let run = native().run().succeeds();
        let goes = "a foreign part of our nftables table is removed: ";
        let named: Vec<&str> =
            run.stderr.lines().filter_map(|line| line.split_once(goes)).map(|l| l.1).collect();
        let [first, second] = named[..] else { panic!("{run}") };
        assert!(first.ends_with("tcp dport 22 counter accept comment \"ssh\""), "{run}");
        assert!(second.ends_with("comment \"redirect TCP traffic to envoy\""), "{run}");
        assert_eq!((nft_generation(), table()), (generation + 1, ours));
        native().run().succeeds().prints("nothing was written");
    });
}

#[test]
fn every_interface_is_no_condition_and_no_set() {
    Lab::enter(|lab| {
        let native = || {
            let vnets = ["--vnet", "+:10.0.0.0/8", "--vnet", "docker0:172.17.0.0/16", "--vnet", "+:fd00::/8"];
            lab.program().args(FLAGS).args(vnets).args(["--backend", "nftables"])
        };
        native().run().succeeds();
        let ours = table();
        assert!(ours.contains("10.0.0.0/8") && ours.contains("\"docker0\""), "{ours}");
        assert!(!ours.contains("vnet_interfaces") && !ours.contains("\"*\""), "{ours}");
        firewall::nft(&native().arg("--dry-run").run().succeeds().stdout);
        assert_eq!(table(), ours);
        native().run().succeeds().prints("nothing was written");
        let _sidecar = listening_sidecar();
        lab.program().arg("status").run().succeeds();
    });
}

// From the programs of iptables to the native table.
each_iptables_variant! {
    fn rules_move_to_it_and_back(lab, variant) {
        let before = loopback();
        lab.install(variant, &["--redirect-dns"]).succeeds();
        let native = lab.program().args(FLAGS).args(["--backend", "nftables"]);
        native.arg(format!("--iptables-executables={}", firewall::executables(variant))).run().succeeds();
        assert!(table().contains("redirect to :15006"));
        for family in Family::BOTH {
            assert!(!firewall::rules(variant, family).has_ours(), "{family:?}");
        }
        lab.install(variant, &["--redirect-dns", "--backend", "iptables"]).succeeds();
        for family in Family::BOTH {
            assert!(firewall::rules(variant, family).has_ours(), "{family:?}");
        }
        assert!(!must("nft", &["list", "tables"]).contains("kuma_mesh"));
        lab.uninstall(variant, &[]).succeeds();
        assert_eq!(loopback().len(), before.len());
    }
}
