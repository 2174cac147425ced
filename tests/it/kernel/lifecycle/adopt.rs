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

    /// A rule without any condition, as excluding every address makes it, is told by its record: of two equal ones as
    /// many go as are ours.
    fn rules_that_say_nothing_but_their_target(lab, backend) {
        let flags = ["--disable-comments", "--exclude-outbound-ips", "0.0.0.0/0,::/0", "--exclude-inbound-ips", "0.0.0.0/0"];
        for theirs in [0, 1, 2] {
            for family in Family::BOTH {
                let rules = "[5:300] -A OUTPUT -j RETURN\n".repeat(theirs);
                firewall::restore(backend.tools(), family, &format!("*nat\n{rules}COMMIT\n"));
            }
            let before = Snapshot::take();
            lab.install(backend, &flags).succeeds();
            lab.install(backend, &flags).succeeds().prints("nothing was written");
            lab.install(backend, &["--disable-comments"]).succeeds();
            lab.install(backend, &flags).succeeds();
            lab.uninstall(backend, &[]).succeeds().prints("completed successfully");
            Snapshot::take().assert_foreign_unchanged_since(&before);
            for family in Family::BOTH {
                firewall::restore(backend.tools(), family, "*nat\n-F OUTPUT\nCOMMIT\n");
            }
        }
        // With comments there is no question.
        lab.install(backend, &flags[1..]).succeeds();
        lab.uninstall(backend, &[]).succeeds().prints("completed successfully");
        assert_eq!(Backend::installed(), []);
    }

    fn what_an_adoption_cannot_attribute_is_listed(lab, backend) {
        for family in Family::BOTH {
            firewall::restore(backend.tools(), family, &OLD.restore_file(family));
            firewall::restore(backend.tools(), family, "*nat\n-I OUTPUT 1 -j RETURN\nCOMMIT\n");
        }
        let run = lab.uninstall(backend, &["--adopt"]).succeeds().says("-t nat -A OUTPUT -j RETURN");
        assert!(!run.stdout.contains("successfully"), "{run}");
        for family in Family::BOTH {
            let rules = firewall::rules(backend.tools(), family);
            let left: Vec<&str> = rules.rules().map(|rule| rule.text.as_str()).collect();
            assert_eq!(left, ["-A OUTPUT -j RETURN"], "{rules}");
        }
        let run = lab.uninstall(backend, &[]).succeeds();
        assert!(run.stdout.contains("successfully"), "{run}");
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
