//! Over a kumactl's rules, whatever version wrote them.

use super::assert_fresh;
use crate::support::Family;
use crate::support::firewall;
use crate::support::kumactl::{Kumactl, Version};
use crate::support::lab::each_iptables_variant;
use crate::support::snapshot::Snapshot;

each_iptables_variant! {
    fn every_version_with_comments_becomes_ours(lab, variant) {
        for version in Version::COMMENTED {
            for dns in [false, true] {
                Kumactl { version, dns }.install(variant);
                let flags: &[&str] = if dns { &["--redirect-all-dns-traffic"] } else { &[] };
                lab.install(variant, flags).succeeds();
                assert_fresh(variant, flags);
                lab.uninstall(variant, &[]).succeeds();
                for family in Family::BOTH {
                    assert!(!firewall::rules(variant, family).has_ours(), "{version:?}");
                }
            }
        }
    }

    fn todays_rules_are_left_as_they_are(lab, variant) {
        Kumactl { version: Version::V2_14, dns: true }.install(variant);
        let before = Snapshot::take();
        lab.install(variant, &["--redirect-all-dns-traffic"]).succeeds();
        for family in Family::BOTH {
            assert_eq!(Snapshot::take().rules(variant, family), before.rules(variant, family));
        }
    }
}
