//! Rules without comments: recognised by shape, taken over when told to, remembered when they are our own.

use super::assert_fresh;
use crate::support::backend::own_table;
use crate::support::firewall;
use crate::support::kumactl::{Kumactl, Version};
use crate::support::lab::each_backend;
use crate::support::snapshot::Snapshot;
use crate::support::{Backend, Family, Ruleset};

const OLD: Kumactl = Kumactl { version: Version::V2_8, dns: true };

/// Whether rules lead to one of our chains, or anything of the sort is there at all.
fn is_clean(rules: &Ruleset) -> bool {
    rules.clone().quiet().tables.is_empty()
}

each_backend! {
    fn an_old_kumactls_rules_stop_install_and_uninstall(lab, backend) {
        OLD.install(backend.tools());
        let before = Snapshot::take();
        for run in [lab.install(backend, &["--redirect-all-dns-traffic"]), lab.uninstall(backend, &[])] {
            let run = run.exits(1).says("--adopt");
            for rule in firewall::rules(backend.tools(), Family::V4).tables["nat"]["OUTPUT"].rules.iter().chain(
                &firewall::rules(backend.tools(), Family::V6).tables["raw"]["PREROUTING"].rules,
            ) {
                assert!(run.stderr.contains(&rule.text), "wanted {:?} in {run}", rule.text);
            }
            Snapshot::take().assert_unchanged_since(&before);
        }
    }

    fn told_to_install_takes_them_over(lab, backend) {
        OLD.install(backend.tools());
        lab.install(backend, &["--redirect-all-dns-traffic", "--adopt"]).succeeds();
        assert_fresh(backend, &["--redirect-all-dns-traffic"]);
    }

    fn told_to_uninstall_removes_them(lab, backend) {
        OLD.install(backend.tools());
        lab.uninstall(backend, &["--adopt"]).succeeds();
        for family in Family::BOTH {
            let rules = firewall::rules(backend.tools(), family);
            assert!(is_clean(&rules), "{rules}");
        }
    }

    fn somebody_elses_rules_beside_them_are_not_adopted(lab, backend) {
        let theirs = "*nat\n:MINE - [0:0]\n[4:240] -A OUTPUT -p tcp -m tcp --dport 53 -j MINE\n\
            [2:120] -A PREROUTING -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 80\n[1:60] -A MINE -j RETURN\nCOMMIT\n\
            *raw\n[9:540] -A OUTPUT -p udp -m udp --dport 4789 -j CT --notrack\nCOMMIT\n";
        firewall::restore(backend.tools(), Family::V4, theirs);
        let before = Snapshot::take();
        OLD.install(backend.tools());
        lab.install(backend, &["--redirect-all-dns-traffic", "--adopt"]).succeeds();
        Snapshot::take().assert_foreign_unchanged_since(&before);
        lab.uninstall(backend, &[]).succeeds();
        Snapshot::take().assert_foreign_unchanged_since(&before);
    }

    fn without_comments_of_our_own_accord(lab, backend) {
        let before = Snapshot::take();
        let flags = ["--disable-comments", "--redirect-all-dns-traffic"];
        lab.install(backend, &flags).succeeds();
        let rules = firewall::rules(backend.tools(), Family::V4);
        assert!(rules.rules().all(|rule| rule.comment().is_none()), "{rules}");
        assert!(!own_table().is_some_and(|table| table.contains("comment")));
        lab.install(backend, &flags).succeeds().prints("nothing was written");
        // Changed, and without the DNS rules that the state file alone knows to be ours.
        lab.install(backend, &["--disable-comments", "--exclude-outbound-ports", "7"]).succeeds();
        assert_fresh(backend, &["--disable-comments", "--exclude-outbound-ports", "7"]);
        // With comments, and without again.
        lab.install(backend, &["--redirect-dns"]).succeeds();
        assert_fresh(backend, &["--redirect-dns"]);
        lab.install(backend, &flags).succeeds();
        assert_fresh(backend, &flags);
        lab.uninstall(backend, &[]).succeeds();
        Snapshot::take().assert_unchanged_since(&before);
    }

    fn a_rule_of_the_same_words_stays_whose_it_is(lab, backend) {
        let theirs = "*raw\n[7:700] -A OUTPUT -p udp -m udp --dport 53 -j CT --zone 2\nCOMMIT\n";
        firewall::restore(backend.tools(), Family::V4, theirs);
        let before = Snapshot::take();
        let flags = ["--disable-comments", "--redirect-all-dns-traffic"];
        lab.install(backend, &flags).succeeds();
        lab.install(backend, &flags).succeeds().prints("nothing was written");
        lab.uninstall(backend, &[]).succeeds();
        Snapshot::take().assert_unchanged_since(&before);
    }

    fn without_comments_and_without_memory(lab, backend) {
        lab.install(backend, &["--disable-comments", "--redirect-all-dns-traffic"]).succeeds();
        std::fs::remove_dir_all("/run/tproxy").expect("the state is there");
        if backend != Backend::Nftables {
            let before = Snapshot::take();
            lab.uninstall(backend, &[]).exits(1).says("--adopt");
            Snapshot::take().assert_unchanged_since(&before);
        }
        // A table of one's own is ownership enough.
        let adopt: &[&str] = if backend == Backend::Nftables { &[] } else { &["--adopt"] };
        lab.uninstall(backend, adopt).succeeds();
        assert_eq!(Backend::installed(), []);
        for family in Family::BOTH {
            let rules = firewall::rules(backend.tools(), family);
            assert!(is_clean(&rules), "{rules}");
        }
    }
}
