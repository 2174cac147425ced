//! Afterwards the machine is as it was before.

use super::RICH;
use crate::support::command::must;
use crate::support::firewall;
use crate::support::kumactl::{Kumactl, Version};
use crate::support::lab::each_variant;
use crate::support::network::ip;
use crate::support::snapshot::{Snapshot, loopback};
use crate::support::{Family, Variant};

each_variant! {
    fn leaves_no_trace(lab, variant) {
        let before = Snapshot::take();
        lab.install(variant, &RICH).succeeds();
        assert!(loopback().contains(&"::6/128".to_owned()), "{:?}", loopback());
        lab.uninstall(variant, &[]).succeeds().prints("transparent proxy cleanup completed successfully");
        Snapshot::take().assert_unchanged_since(&before);
        assert!(!std::path::Path::new("/run/tproxy").exists());
    }

    fn needs_nothing_but_the_command(lab, variant) {
        let before = Snapshot::take();
        lab.install(variant, &RICH).succeeds();
        // Neither the user nor the tools have to be named again.
        lab.replace("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n");
        lab.program().arg("uninstall").run().succeeds();
        Snapshot::take().assert_unchanged_since(&before);
    }

    fn of_nothing_does_nothing(lab, variant) {
        let before = Snapshot::take();
        lab.uninstall(variant, &[]).succeeds().prints("nothing was installed");
        Snapshot::take().assert_unchanged_since(&before);
    }

    fn takes_the_same_words_and_configuration_as_install(lab, variant) {
        let before = Snapshot::take();
        lab.install(variant, &RICH).succeeds();
        let mut uninstall = lab.program().args(["uninstall", "transparent-proxy", "--kuma-dp-user", "kuma-dp"]);
        uninstall = uninstall.args(RICH);
        uninstall.run().succeeds();
        Snapshot::take().assert_unchanged_since(&before);
    }

    fn keeps_an_address_that_was_there_before(lab, variant) {
        ip("addr add ::6/128 dev lo\n");
        let before = Snapshot::take();
        lab.install(variant, &[]).succeeds();
        lab.install(variant, &["--redirect-dns"]).succeeds();
        lab.uninstall(variant, &[]).succeeds();
        Snapshot::take().assert_unchanged_since(&before);
    }

    fn removes_ipv6_rules_from_a_machine_that_has_lost_ipv6(lab, variant) {
        lab.install(variant, &["--redirect-dns"]).succeeds();
        must("ip", &["-6", "addr", "flush", "dev", "eth0"]);
        lab.uninstall(variant, &[]).succeeds();
        for family in Family::BOTH {
            assert!(!firewall::rules(variant, family).has_ours());
        }
        assert!(!loopback().contains(&"::6/128".to_owned()));
    }

    fn removes_a_kumactls_rules_from_both_variants(lab, variant) {
        for of in Variant::BOTH {
            Kumactl { version: Version::V2_14, dns: true }.install(of);
        }
        lab.uninstall(variant, &[]).succeeds();
        for of in Variant::BOTH {
            for family in Family::BOTH {
                assert!(!firewall::rules(of, family).has_ours());
            }
        }
    }
}
