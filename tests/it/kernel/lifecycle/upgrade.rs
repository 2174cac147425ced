//! Over a kumactl's rules, whatever version wrote them.

use super::assert_fresh;
use crate::support::kumactl::{Kumactl, Version};
use crate::support::lab::{each_backend, each_iptables_variant};
use crate::support::snapshot::Snapshot;
use crate::support::{Backend, Family, Variant};

each_backend! {
    fn every_version_with_comments_becomes_ours(lab, backend) {
        // A table of its own takes over from both.
        let variants = match backend {
            Backend::Iptables(variant) => vec![variant],
            Backend::Nftables => Variant::BOTH.to_vec(),
        };
        for (version, variant) in Version::COMMENTED.into_iter().flat_map(|v| variants.iter().map(move |&of| (v, of))) {
            for dns in [false, true] {
                Kumactl { version, dns }.install(variant);
                let flags: &[&str] = if dns { &["--redirect-all-dns-traffic"] } else { &[] };
                lab.install(backend, flags).succeeds();
                assert_fresh(backend, flags);
                lab.uninstall(backend, &[]).succeeds();
                assert_eq!(Backend::installed(), [], "{version:?}");
            }
        }
    }
}

// Another backend says them in other words.
each_iptables_variant! {
    fn todays_rules_are_left_as_they_are(lab, variant) {
        Kumactl { version: Version::V2_14, dns: true }.install(variant);
        let before = Snapshot::take();
        lab.install(variant, &["--redirect-all-dns-traffic"]).succeeds();
        for family in Family::BOTH {
            assert_eq!(Snapshot::take().rules(variant, family), before.rules(variant, family));
        }
    }
}
