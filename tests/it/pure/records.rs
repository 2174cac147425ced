//! What of a record counts: everything that an installation of its configuration writes, and nothing else.

use proptest::prelude::*;
use tproxy::backend::iptables::owned::{Ownership, RecordedRule};
use tproxy::backend::iptables::save::Saved;
use tproxy::backend::iptables::wanted::Wanted;
use tproxy::backend::iptables::written;
use tproxy::config::{Config, File, Layers, resolve, show};
use tproxy::host::HostFacts;
use tproxy::plan::{Family, family_plan};

use super::configs;

fn recorded(config: &Config, facts: &HostFacts, family: Family) -> Vec<RecordedRule> {
    let nothing = Saved::default();
    let wanted = Wanted::plan(&family_plan(config, facts, family), false);
    wanted.recorded(&nothing, &Ownership::of(&nothing, &[]))
}

/// As a record keeps a configuration.
fn kept(config: &Config) -> Config {
    let text = show::yaml(config, None);
    let layers =
        Layers { files: vec![File { name: "record".into(), text, recorded: true }], ..Layers::default() };
    resolve(&layers).expect("what we write we can read").config
}

fn rule(table: &str, chain: &str, args: &str) -> RecordedRule {
    RecordedRule { table: table.into(), chain: chain.into(), args: args.into(), twins: 0, behind: false }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// While one installation takes the place of another one, the rules of both.
    #[test]
    fn whatever_was_written_counts(
        first in configs::config(), second in configs::config(), one in configs::facts(), two in configs::facts(),
    ) {
        for family in Family::BOTH {
            let rules = [recorded(&first, &one, family), recorded(&second, &two, family)].concat();
            let writers = [(kept(&first), one.sidecar_uid), (kept(&second), two.sidecar_uid)];
            let written = written::rules(&rules, &writers, family);
            for rule in &rules {
                prop_assert!(written.contains(rule), "{rule:?}");
            }
        }
    }

    /// Rules of others, also those that look like ours.
    #[test]
    fn nothing_else_does(config in configs::config(), facts in configs::facts()) {
        let others = [
            rule("nat", "PREROUTING", "-p tcp -m tcp --dport 9999 -j RETURN"),
            rule("nat", "PREROUTING", "-p tcp -j REDIRECT --to-ports 9999"),
            rule("nat", "POSTROUTING", "-p tcp -j KUMA_MESH_INBOUND"),
            rule("nat", "OUTPUT", "-d 10.200.0.0/16 -j RETURN"),
            rule("nat", "OUTPUT", "-p udp -m udp --dport 53 -j REDIRECT --to-ports 9953"),
            rule("nat", "OUTPUT", "-d 10.96.0.10/32 -p udp -m udp --dport 53 -j REDIRECT --to-ports 9953"),
            rule("nat", "OUTPUT", "-p tcp -m owner --uid-owner 4242 -j RETURN"),
            rule("nat", "OUTPUT", "-p tcp -j KUMA_MESH_OUTBOUND -m comment --comment theirs"),
            rule("mangle", "OUTPUT", "-m conntrack --ctstate INVALID -j DROP"),
            rule("raw", "OUTPUT", "-p udp -m udp --dport 53 -j CT --zone 7"),
            rule("filter", "INPUT", "-p tcp -m tcp --dport 22 -j DROP"),
            rule("nat", "OUTPUT", "-j \u{1b}[2J"),
        ];
        let uid = facts.sidecar_uid;
        prop_assume!(uid != 4242);
        let written = written::rules(&others, &[(kept(&config), uid)], Family::V4);
        for rule in &others {
            prop_assert!(!written.contains(rule), "{rule:?}");
        }
        let without_a_configuration = written::rules(&recorded(&config, &facts, Family::V4), &[], Family::V4);
        prop_assert!(!without_a_configuration.contains(&rule("nat", "PREROUTING", "-p tcp -j KUMA_MESH_INBOUND")));
    }
}
