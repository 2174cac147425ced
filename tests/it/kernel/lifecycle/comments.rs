//! Comments with line breaks in them, which save programs print as they are: rules of ours go, those of others stay.

use std::fs;

use crate::support::command::Program;
use crate::support::lab::each_iptables_variant;
use crate::support::ruleset::TAG;
use crate::support::wrappers::{Fault, Wrappers};
use crate::support::{Family, Variant, firewall};

/// What would be a script of its own.
const SCRIPT: &str = "a\nCOMMIT\n*filter\n-F\n-X\nCOMMIT\n*nat\n-A OUTPUT -j DROP\n*raw\n*raw\n\"\\\u{7}' b";

fn call(variant: Variant, family: Family, args: &[&str]) -> String {
    Program::new(firewall::tool(variant, family, "")).args(args).run().succeeds().stdout
}

fn rule(variant: Variant, family: Family, chain: &str, comment: &str) {
    let args =
        ["-t", "nat", "-A", chain, "-p", "tcp", "--dport", "4321", "-m", "comment", "--comment", comment];
    call(variant, family, &[&args[..], &["-j", "RETURN"]].concat());
}

/// Somebody's rules, some with line breaks.
fn their_rules(variant: Variant) {
    for family in Family::BOTH {
        rule(variant, family, "OUTPUT", SCRIPT);
        rule(variant, family, "PREROUTING", &format!("x\n-A OUTPUT -m comment --comment {TAG} -j DROP"));
        call(variant, family, &["-A", "INPUT", "-p", "tcp", "--dport", "4322", "-j", "ACCEPT"]);
    }
}

/// All that `-S` lists of what is shared, to the byte.
fn listed(variant: Variant) -> String {
    let all = Family::BOTH
        .map(|family| ["nat", "filter"].map(|table| call(variant, family, &["-t", table, "-S"])).concat());
    all.concat()
}

fn ours(variant: Variant, chain: &str) {
    for family in Family::BOTH {
        rule(variant, family, chain, &format!("{TAG}/{SCRIPT}"));
        rule(variant, family, chain, &format!("{TAG}/plain"));
        rule(variant, family, chain, &format!("{TAG}/{}", "\u{1}".repeat(200)));
    }
}

each_iptables_variant! {
    fn with_line_breaks_rules_of_ours_are_replaced_and_removed(lab, variant) {
        their_rules(variant);
        let before = listed(variant);
        // On their own, beside an installation, and in chains of ours.
        ours(variant, "OUTPUT");
        let _ = lab.program().arg("status").args(flags(variant)).run().exits(11);
        lab.uninstall(variant, &[]).succeeds();
        assert_eq!(listed(variant), before);

        ours(variant, "OUTPUT");
        lab.install(variant, &[]).succeeds();
        let installed = listed(variant);
        ours(variant, "OUTPUT");
        ours(variant, "KUMA_MESH_INBOUND");
        let status = lab.program().arg("status").args(flags(variant)).run().exits(11);
        assert!(!status.stdout.contains("\nCOMMIT") && !status.stderr.contains("\nCOMMIT"), "{status}");
        let diff = lab.install(variant, &["--dry-run=diff"]).succeeds();
        assert!(!diff.stdout.contains("\nCOMMIT") && !diff.stdout.contains('\u{7}'), "{diff}");
        lab.install(variant, &[]).succeeds();
        assert_eq!(listed(variant), installed);

        ours(variant, "OUTPUT");
        ours(variant, "KUMA_MESH_INBOUND");
        lab.uninstall(variant, &[]).succeeds();
        assert_eq!(listed(variant), before);
    }

    /// What no script can have is back in other words, which is said; nothing else is there.
    fn with_line_breaks_rules_of_ours_come_back_after_a_failure(lab, variant) {
        their_rules(variant);
        let clean = listed(variant);
        lab.install(variant, &[]).succeeds();
        ours(variant, "OUTPUT");
        ours(variant, "KUMA_MESH_INBOUND");
        let before = listed(variant);
        let refuses = Fault::Instead("cat >/dev/null; echo 'six is out' >&2; exit 1".to_owned());
        let tools = Wrappers::new(variant).every("ip6tables-restore", &refuses);
        let install = ["install", "--kuma-dp-user", "kuma-dp", "--strict", "--max-retries", "0", "--redirect-dns"];
        let run = lab.program().args(install).args(tools.flags()).run().exits(3).says("six is out");
        let run = run.says("it is back with '?': IPv4 + -A OUTPUT");
        assert!(!run.stderr.contains("\nCOMMIT"), "{run}");
        let in_script = SCRIPT.replace('"', "\\\"").replace("\\\u{7}", "\\\\\u{7}").replace('\'', "\\'");
        let expected = before.replacen(
            &format!("{TAG}/{in_script}"), &format!("{TAG}/{}", in_script.replace(['\n', '\u{7}'], "?")), 2);
        let expected = expected.replacen(&"\u{1}".repeat(200), &"?".repeat(200), 2);
        assert_ne!(expected, before);
        assert_eq!(listed(variant), expected, "{run}");
        // Those are known again.
        lab.uninstall(variant, &[]).succeeds();
        assert_eq!(listed(variant), clean);
        let _ = fs::metadata("/run/tproxy").expect_err("all is gone");
    }
}

fn flags(variant: Variant) -> Vec<String> {
    crate::support::Backend::from(variant).flags()
}
