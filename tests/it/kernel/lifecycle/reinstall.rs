//! A second install: nothing to do, or something else to do.

use super::{RICH, assert_fresh};
use crate::support::Family;
use crate::support::firewall;
use crate::support::generation::nft_generation;
use crate::support::lab::each_iptables_variant;
use crate::support::snapshot::{Snapshot, loopback};
use crate::support::wrappers::{Fault, Wrappers};

each_iptables_variant! {
    fn an_identical_one_writes_nothing_and_says_so(lab, variant) {
        lab.install(variant, &RICH).succeeds();
        let before = Snapshot::take();
        let generation = nft_generation();
        let wrappers = Wrappers::new(variant);
        let mut again = lab.program().args(["install", "--kuma-dp-user", "kuma-dp"]);
        again = again.args(wrappers.flags()).args(RICH);
        again.run().succeeds().prints("nothing was written");
        assert_eq!(nft_generation(), generation);
        let log = wrappers.log();
        assert!(log.iter().any(|line| line.starts_with("iptables-save")), "{log:?}");
        assert!(!log.iter().any(|line| line.contains("-restore ")), "{log:?}");
        Snapshot::take().assert_unchanged_since(&before);
    }

    fn a_different_one_replaces_the_first(lab, variant) {
        for flags in [
            &["--redirect-dns"][..],
            &RICH,
            &[],
            &["--redirect-inbound=false", "--exclude-outbound-ips", "198.51.100.0/24"],
            &["--redirect-outbound-insert-instead-of-append", "--redirect-inbound-insert-instead-of-append"],
            &RICH,
        ] {
            lab.install(variant, flags).succeeds();
            assert_fresh(variant, flags);
        }
    }

    fn ipv4_alone_over_both_removes_ipv6(lab, variant) {
        let before = loopback();
        lab.install(variant, &["--redirect-dns"]).succeeds();
        assert!(firewall::rules(variant, Family::V6).has_ours());
        lab.install(variant, &["--redirect-dns", "--ip-family-mode", "ipv4"]).succeeds();
        assert!(!firewall::rules(variant, Family::V6).has_ours());
        assert!(firewall::rules(variant, Family::V4).has_ours());
        assert_eq!(loopback(), before);
        lab.install(variant, &["--redirect-dns"]).succeeds();
        assert_fresh(variant, &["--redirect-dns"]);
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

    fn stays_where_the_rules_are(lab, variant) {
        lab.install(variant, &[]).succeeds();
        // Without a word about tools.
        lab.program().args(["install", "--kuma-dp-user", "kuma-dp", "--redirect-dns"]).run().succeeds();
        for family in Family::BOTH {
            assert!(firewall::rules(variant, family).has_ours());
            assert!(!firewall::rules(variant.other(), family).has_ours());
        }
    }

    fn puts_back_what_somebody_removed(lab, variant) {
        lab.install(variant, &["--redirect-dns"]).succeeds();
        firewall::iptables(variant, Family::V4, "-t nat -F KUMA_MESH_OUTBOUND").succeeds();
        firewall::iptables(variant, Family::V6, "-t nat -D PREROUTING 1").succeeds();
        firewall::iptables(variant, Family::V4, "-t raw -F OUTPUT").succeeds();
        lab.install(variant, &["--redirect-dns"]).succeeds();
        assert_fresh(variant, &["--redirect-dns"]);
    }

    fn leaves_one_of_what_somebody_doubled(lab, variant) {
        lab.install(variant, &["--redirect-dns"]).succeeds();
        let rules = firewall::rules(variant, Family::V4);
        let mut again = String::from("*nat\n");
        for rule in rules.tables["nat"]["OUTPUT"].rules.iter().chain(&rules.tables["nat"]["PREROUTING"].rules) {
            again.push_str(&rule.text);
            again.push('\n');
        }
        again.push_str("COMMIT\n");
        firewall::restore(variant, Family::V4, &again);
        lab.install(variant, &["--redirect-dns"]).succeeds();
        assert_fresh(variant, &["--redirect-dns"]);
    }
}
