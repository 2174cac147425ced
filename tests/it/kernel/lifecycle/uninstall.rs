//! Afterwards the machine is as it was before.

use super::RICH;
use crate::support::command::{Run, must};
use crate::support::kumactl::{Kumactl, Version};
use crate::support::lab::each_backend;
use crate::support::network::ip;
use crate::support::snapshot::{Snapshot, loopback};
use crate::support::{Backend, Family, Variant};

each_backend! {
    fn leaves_no_trace(lab, backend) {
        let before = Snapshot::take();
        lab.install(backend, &RICH).succeeds();
        assert!(loopback().contains(&"::6/128".to_owned()), "{:?}", loopback());
        lab.uninstall(backend, &[]).succeeds().prints("transparent proxy cleanup completed successfully");
        Snapshot::take().assert_unchanged_since(&before);
        assert!(!std::path::Path::new("/run/tproxy").exists());
    }

    fn needs_nothing_but_the_command(lab, backend) {
        let before = Snapshot::take();
        lab.install(backend, &RICH).succeeds();
        // Neither the user nor the tools have to be named again.
        lab.replace("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n");
        lab.program().arg("uninstall").run().succeeds();
        Snapshot::take().assert_unchanged_since(&before);
    }

    fn without_a_record_it_says_what_it_leaves(lab, backend) {
        lab.install(backend, &[]).succeeds();
        std::fs::remove_dir_all("/run/tproxy").expect("a record");
        let names = |run: Run| {
            let run = run.succeeds().prints("the address ::6 stays on lo").prints("ip -6 addr del ::6/128 dev lo");
            assert!(!run.stdout.contains("successfully"), "{run}");
            assert!(loopback().contains(&"::6/128".to_owned()), "{:?}", loopback());
        };
        names(lab.uninstall(backend, &[]));
        // It still stays, however often that is tried.
        names(lab.uninstall(backend, &[]));
        names(lab.uninstall(backend, &["-o", "json"]));
        // As it says.
        must("ip", &["-6", "addr", "del", "::6/128", "dev", "lo"]);
        let run = lab.uninstall(backend, &[]).succeeds().prints("completed successfully: nothing was installed");
        assert!(!run.stdout.contains("::6"), "{run}");
    }

    fn of_nothing_does_nothing(lab, backend) {
        let before = Snapshot::take();
        lab.uninstall(backend, &[]).succeeds().prints("nothing was installed");
        Snapshot::take().assert_unchanged_since(&before);
    }

    fn takes_the_same_words_and_configuration_as_install(lab, backend) {
        let before = Snapshot::take();
        lab.install(backend, &RICH).succeeds();
        let mut uninstall = lab.program().args(["uninstall", "transparent-proxy", "--kuma-dp-user", "kuma-dp"]);
        uninstall = uninstall.args(RICH);
        uninstall.run().succeeds();
        Snapshot::take().assert_unchanged_since(&before);
    }

    fn keeps_an_address_that_was_there_before(lab, backend) {
        ip("addr add ::6/128 dev lo\n");
        let before = Snapshot::take();
        lab.install(backend, &[]).succeeds();
        lab.install(backend, &["--redirect-dns"]).succeeds();
        lab.uninstall(backend, &[]).succeeds();
        Snapshot::take().assert_unchanged_since(&before);
    }

    fn removes_ipv6_rules_from_a_machine_that_has_lost_ipv6(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        must("ip", &["-6", "addr", "flush", "dev", "eth0"]);
        lab.uninstall(backend, &[]).succeeds();
        assert_eq!(Backend::installed(), []);
        assert!(!loopback().contains(&"::6/128".to_owned()));
    }

    fn removes_what_is_there_by_every_way_at_once(lab, backend) {
        let before = Snapshot::take();
        lab.install(Backend::Nftables, &["--redirect-dns"]).succeeds();
        for of in Variant::BOTH {
            Kumactl { version: Version::V2_14, dns: true }.install(of);
        }
        assert_eq!(Backend::installed(), Backend::ALL);
        lab.uninstall(backend, &[]).succeeds();
        Snapshot::take().assert_unchanged_since(&before);
    }
}

each_backend! {
    /// A stopped unit must never leave rules behind.
    fn whatever_is_wrong_with_its_configuration_is_a_warning(lab, backend) {
        let file = lab.dir().join("wrong.yaml");
        std::fs::write(&file, "wiat: 3\nkumaDPUser: nobody-here\nwait: x\n").expect("a file in the private /run");
        let program = "iptables:/gone,iptables-save:/gone,iptables-restore:/gone";
        let wrong: [(&[&str], &str); 7] = [
            (&["--config", "/gone.yaml"], "cannot read the configuration file '/gone.yaml'"),
            (&["--config", &file.to_string_lossy()], "unknown key 'wiat'"),
            (&["--wait", "x"], "invalid value 'x' for --wait"),
            (&["--kuma-dp-user", "nobody-here"], ""),
            (&["--exclude-outbound-ports-for-uids", ""], "invalid value '' for --exclude-outbound-ports-for-uids"),
            (&["--skip-resolv-conf"], "--skip-resolv-conf was removed"),
            (&["--iptables-executables", program], "/gone cannot be used"),
        ];
        for (flags, warning) in wrong {
            lab.install(backend, &[]).succeeds();
            let _ = lab.program().arg("uninstall").args(flags).run().succeeds().says(warning);
            assert!(!Family::BOTH.into_iter().any(|family| backend.has_ours(family)), "{flags:?}");
        }
        lab.install(backend, &[]).succeeds();
        let variable = lab.program().arg("uninstall").env("KUMA_TRANSPARENT_PROXY_LOG_LEVEL", "9").run();
        let _ = variable.succeeds().says("invalid value '9' for the variable KUMA_TRANSPARENT_PROXY_LOG_LEVEL");
        assert!(!Family::BOTH.into_iter().any(|family| backend.has_ours(family)));

        // What decides whether anything is removed is no such thing.
        lab.install(backend, &[]).succeeds();
        lab.program().args(["uninstall", "--dry-run=dif"]).run().exits(2);
        assert!(backend.has_ours(Family::V4));
    }
}
