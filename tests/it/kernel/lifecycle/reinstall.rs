//! A second install: nothing to do, or something else to do.

use super::{RICH, assert_fresh};
use crate::support::command::must;
use crate::support::firewall;
use crate::support::generation::nft_generation;
use crate::support::lab::{each_backend, each_iptables_variant};
use crate::support::mesh::listening_sidecar;
use crate::support::snapshot::{Snapshot, loopback};
use crate::support::wrappers::{Fault, Wrappers};
use crate::support::{Backend, Family};

/// The same lists as in [`RICH`], with more in them.
const LONGER: [&str; 9] = [
    "--redirect-all-dns-traffic",
    "--vnet",
    "br+:172.18.0.0/16",
    "--exclude-outbound-ports",
    "1,2,22,333,4444",
    "--exclude-inbound-ips",
    "192.0.2.0/24,198.51.100.7,2001:db8:1::/64,2001:db8:2::2",
    "--drop-invalid-packets",
    "--iptables-logs",
];

each_backend! {
    fn an_identical_one_writes_nothing_and_says_so(lab, backend) {
        lab.install(backend, &RICH).succeeds();
        let (before, generation) = (Snapshot::take(), nft_generation());
        lab.install(backend, &RICH).succeeds().prints("nothing was written");
        assert_eq!(nft_generation(), generation);
        Snapshot::take().assert_unchanged_since(&before);
    }

    /// Whatever a save program makes of an interface's name: it prints nothing of the one that stands for every one.
    fn interfaces_of_every_name_are_known_again(lab, backend) {
        let _sidecar = listening_sidecar();
        let empty = Snapshot::take();
        for name in ["+", "++", "lo+", "a+b", "a+b+", "abcdefghijklmn+", "abcdefghijklmno"] {
            let vnets = ["10.0.0.0/8", "172.16.0.0/12", "fd00::/8"].map(|net| format!("--vnet={name}:{net}"));
            for comments in ["--disable-comments=false", "--disable-comments"] {
                let mut flags: Vec<&str> = vnets.iter().map(String::as_str).collect();
                flags.extend(["--redirect-dns", comments]);
                lab.install(backend, &flags).succeeds();
                let before = Snapshot::take();
                lab.install(backend, &flags).succeeds().prints("nothing was written");
                lab.program().arg("status").run().exits(0);
                Snapshot::take().assert_unchanged_since(&before);
                // The rules alone tell it too.
                if comments.ends_with("false") {
                    std::fs::rename("/run/tproxy", "/run/aside").expect("a record");
                    lab.program().arg("status").run().exits(0).prints("read off the rules");
                    std::fs::rename("/run/aside", "/run/tproxy").expect("a record");
                }
                lab.uninstall(backend, &[]).succeeds();
                Snapshot::take().assert_unchanged_since(&empty);
            }
        }
    }

    fn a_different_one_replaces_the_first(lab, backend) {
        for flags in [
            &["--redirect-dns"][..],
            &RICH,
            &[],
            &["--redirect-inbound=false", "--exclude-outbound-ips", "198.51.100.0/24"],
            &["--redirect-outbound-insert-instead-of-append", "--redirect-inbound-insert-instead-of-append"],
            &RICH,
            &LONGER,
            &RICH,
        ] {
            lab.install(backend, flags).succeeds();
            assert_fresh(backend, flags);
        }
    }

    fn ipv4_alone_over_both_removes_ipv6(lab, backend) {
        let before = loopback();
        lab.install(backend, &["--redirect-dns"]).succeeds();
        assert!(backend.has_ours(Family::V6));
        lab.install(backend, &["--redirect-dns", "--ip-family-mode", "ipv4"]).succeeds();
        assert!(!backend.has_ours(Family::V6));
        assert!(backend.has_ours(Family::V4));
        assert_eq!(loopback(), before);
        lab.install(backend, &["--redirect-dns"]).succeeds();
        assert_fresh(backend, &["--redirect-dns"]);
    }

    fn stays_where_the_rules_are(lab, backend) {
        lab.install(backend, &[]).succeeds();
        // Without a word about tools or backends.
        lab.program().args(["install", "--kuma-dp-user", "kuma-dp", "--redirect-dns"]).run().succeeds();
        assert_eq!(Backend::installed(), [backend]);
        assert_fresh(backend, &["--redirect-dns"]);
    }

    fn puts_back_what_somebody_removed(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        remove_some(backend);
        lab.install(backend, &["--redirect-dns"]).succeeds();
        assert_fresh(backend, &["--redirect-dns"]);
    }

    fn leaves_one_of_what_somebody_doubled(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        double_some(backend);
        lab.install(backend, &["--redirect-dns"]).succeeds();
        assert_fresh(backend, &["--redirect-dns"]);
    }
}

// Only the programs of iptables are counted and made to fail, and only they come in variants.
each_iptables_variant! {
    fn an_identical_one_asks_and_restores_nothing(lab, variant) {
        lab.install(variant, &RICH).succeeds();
        let wrappers = Wrappers::new(variant);
        let mut again = lab.program().args(["install", "--kuma-dp-user", "kuma-dp"]);
        again = again.args(wrappers.flags()).args(RICH);
        again.run().succeeds().prints("nothing was written");
        let log = wrappers.log();
        assert!(log.iter().any(|line| line.starts_with("iptables-save")), "{log:?}");
        assert!(!log.iter().any(|line| line.contains("-restore ")), "{log:?}");
    }

    fn into_the_other_variant_takes_the_rules_along(lab, variant) {
        lab.install(variant, &RICH).succeeds();
        // The old ones have to stand until the new ones do, or traffic would go by between them.
        let save = firewall::path(variant, Family::V4, "-save");
        let gap = lab.dir().join("gap");
        let old = format!("{} | grep -q -e '-j KUMA_MESH_OUTBOUND$' || : > {}", save.display(), gap.display());
        let tools = Wrappers::new(variant.other()).every("iptables-restore", &Fault::Before(old));
        let install = lab.program().args(["install", "--kuma-dp-user", "kuma-dp"]).args(tools.flags());
        install.args(RICH).run().succeeds();
        assert!(!gap.exists(), "the rules were taken away before the new ones were there");
        for family in Family::BOTH {
            assert!(!firewall::rules(variant, family).has_ours());
            assert!(firewall::rules(variant.other(), family).has_ours());
        }
        lab.uninstall(variant.other(), &[]).succeeds();
        for family in Family::BOTH {
            assert!(!firewall::rules(variant.other(), family).has_ours());
        }
    }
}

/// A rule or two of ours, and a whole chain of them.
fn remove_some(backend: Backend) {
    let Backend::Iptables(variant) = backend else {
        return firewall::nft(
            "flush chain inet kuma_mesh outbound
             flush chain inet kuma_mesh prerouting
             delete chain inet kuma_mesh zones_output
             delete element inet kuma_mesh resolvers_ipv6 { fd00:96::10 }",
        );
    };
    firewall::iptables(variant, Family::V4, "-t nat -F KUMA_MESH_OUTBOUND").succeeds();
    firewall::iptables(variant, Family::V6, "-t nat -D PREROUTING 1").succeeds();
    firewall::iptables(variant, Family::V4, "-t raw -F OUTPUT").succeeds();
}

/// The rules that lead to our chains, once more behind them.
fn double_some(backend: Backend) {
    let Backend::Iptables(variant) = backend else {
        for chain in ["prerouting", "output"] {
            let text = must("nft", &["-s", "list", "chain", "inet", "kuma_mesh", chain]);
            let rules: Vec<&str> =
                text.lines().map(str::trim).filter(|line| line.contains("counter")).collect();
            assert!(!rules.is_empty(), "{text}");
            for rule in rules {
                firewall::nft(&format!("add rule inet kuma_mesh {chain} {rule}"));
            }
        }
        return firewall::nft("add element inet kuma_mesh resolvers_ipv4 { 10.96.0.11 }");
    };
    let rules = firewall::rules(variant, Family::V4);
    let mut again = String::from("*nat\n");
    for rule in rules.tables["nat"]["OUTPUT"].rules.iter().chain(&rules.tables["nat"]["PREROUTING"].rules) {
        again.push_str(&rule.text);
        again.push('\n');
    }
    again.push_str("COMMIT\n");
    firewall::restore(variant, Family::V4, &again);
}
