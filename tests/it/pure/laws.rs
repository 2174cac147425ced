//! The laws of transitions, for configurations, hosts and other people's rules at random.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tproxy::backend::iptables::decode::Canonical;
use tproxy::backend::iptables::owned::{Ownership, RecordedRule, merged};
use tproxy::backend::iptables::save::{Saved, SavedRule};
use tproxy::backend::iptables::syntax::{Style, rule_args};
use tproxy::backend::iptables::transition::{changes, script};
use tproxy::backend::iptables::wanted::Wanted;
use tproxy::config::Config;
use tproxy::host::HostFacts;
use tproxy::plan::{Family, FamilyPlan, build, family_plan};

use super::configs;
use super::model::Kernel;

fn kernel(blocks: &[&str]) -> Kernel {
    let mut kernel = Kernel::default();
    for block in blocks {
        kernel.restore(block).expect("a foreign rule set that loads");
    }
    kernel
}

/// A family's installation, and what its state file would record.
struct Wish {
    plan: FamilyPlan,
    wanted: Wanted,
    recorded: Vec<RecordedRule>,
}

/// `before` is what the state file says.
fn wish(config: &Config, facts: &HostFacts, kernel: &Kernel, before: &[RecordedRule]) -> Wish {
    let mut facts = facts.clone();
    facts.docker_dns = kernel.save().contains(":DOCKER_OUTPUT");
    let plan = family_plan(config, &facts, Family::V4);
    let wanted = Wanted::plan(&plan, !config.comments.disabled);
    let saved = Saved::parse(&kernel.save());
    let mut recorded = Vec::new();
    if config.comments.disabled {
        recorded = wanted.recorded(&saved, &Ownership::of(&saved, before));
    }
    Wish { plan, wanted, recorded }
}

/// Brings the kernel there and says how much was written.
fn bring(kernel: &mut Kernel, wanted: &Wanted, recorded: &[RecordedRule]) -> String {
    let saved = Saved::parse(&kernel.save());
    let script = script(&changes(&saved, &Ownership::of(&saved, recorded), wanted));
    kernel.restore(&script).unwrap_or_else(|why| panic!("{why}\n{script}\n{}", kernel.save()));
    script
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever else is there: install over install over nothing, then uninstall, and the kernel is as it was.
    #[test]
    fn others_rules_survive_and_nothing_of_ours_is_left(
        blocks in configs::foreign(), first in configs::config_or_all(), second in configs::config_or_all(), facts in configs::facts(),
    ) {
        let before = kernel(&blocks);
        let mut kernel = before.clone();
        let one = wish(&first, &facts, &kernel, &[]);
        bring(&mut kernel, &one.wanted, &one.recorded);
        let two = wish(&second, &facts, &kernel, &one.recorded);
        bring(&mut kernel, &two.wanted, &one.recorded);
        bring(&mut kernel, &Wanted::nothing(), &two.recorded);
        prop_assert_eq!(kernel.content().save(), before.content().save());
    }

    /// A second run writes nothing, and a third configuration's traces do not matter.
    #[test]
    fn what_is_there_is_not_written_again(
        blocks in configs::foreign(), first in configs::config_or_all(), second in configs::config_or_all(), facts in configs::facts(),
    ) {
        let mut over = kernel(&blocks);
        let mut fresh = over.clone();
        let one = wish(&first, &facts, &over, &[]);
        bring(&mut over, &one.wanted, &one.recorded);
        let two = wish(&second, &facts, &over, &one.recorded);
        bring(&mut over, &two.wanted, &one.recorded);
        prop_assert_eq!(bring(&mut over, &two.wanted, &two.recorded), "");
        bring(&mut fresh, &two.wanted, &two.recorded);
        // The same rules; where others' rules lie between, ours may keep a place further ahead.
        let sorted = |kernel: &Kernel| {
            let text = kernel.content().save();
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        prop_assert_eq!(sorted(&over), sorted(&fresh));
    }

    /// The way back leads exactly to where it began, whatever was there of ours.
    #[test]
    fn the_way_back_restores_every_rule_and_place(
        blocks in configs::foreign(), first in configs::config_or_all(), second in configs::config_or_all(), facts in configs::facts(),
        intruder in any::<bool>(),
    ) {
        let mut kernel = kernel(&blocks);
        let one = wish(&first, &facts, &kernel, &[]);
        bring(&mut kernel, &one.wanted, &one.recorded);
        if intruder {
            kernel.restore("*nat\n-I KUMA_MESH_INBOUND 1 -s 9.9.9.9 -m limit --limit 1/s -j ACCEPT\nCOMMIT\n").expect("a chain");
        }
        let before = kernel.clone();
        let saved = Saved::parse(&kernel.save());
        let back = Wanted::before(&saved, &Ownership::of(&saved, &one.recorded));
        let two = wish(&second, &facts, &kernel, &one.recorded);
        let both = merged(&one.recorded, &two.recorded);
        bring(&mut kernel, &two.wanted, &one.recorded);
        bring(&mut kernel, &back, &both);
        prop_assert_eq!(kernel.content().save(), before.content().save());
    }

    /// A rule that was written is read back as the same rule.
    #[test]
    fn rendered_rules_are_read_back(config in configs::config_or_all(), facts in configs::facts(), comments in any::<bool>()) {
        for family in Family::BOTH {
            for table in family_plan(&config, &facts, family).tables {
                for placed in table.chains.iter().flat_map(|(_, rules)| rules) {
                    let args = rule_args(&placed.rule, comments, Style::Short);
                    let saved = SavedRule::new(args.trim_start());
                    prop_assert_eq!(Canonical::read(&saved), Some(Canonical::of(&placed.rule, comments)), "{}", args);
                    prop_assert_eq!(saved.is_tagged(), comments);
                    // Nor does it matter what the save program leaves out of it.
                    let mut kernel = kernel(&["*nat\n:DOCKER_OUTPUT - [0:0]\n:KUMA_MESH_INBOUND - [0:0]\n:KUMA_MESH_OUTBOUND - [0:0]\n\
                        :KUMA_MESH_INBOUND_REDIRECT - [0:0]\n:KUMA_MESH_OUTBOUND_REDIRECT - [0:0]\nCOMMIT\n"]);
                    kernel.restore(&format!("*nat\n-A OUTPUT{args}\nCOMMIT\n")).expect("a rule");
                    let saved = Saved::parse(&kernel.save());
                    let printed = &saved.table("nat").and_then(|nat| nat.chain("OUTPUT")).expect("a chain").rules[0];
                    prop_assert_eq!(Canonical::read(printed), Some(Canonical::of(&placed.rule, comments)), "{}", printed.args);
                }
            }
        }
    }

    /// No address of one family ever gets into the rules of the other, and no rule of DNS loses its destination.
    #[test]
    fn families_do_not_mix(config in configs::config_or_all(), facts in configs::facts()) {
        for family in build(&config, &facts).families {
            for placed in family.tables.iter().flat_map(|t| &t.chains).flat_map(|(_, rules)| rules) {
                let args = rule_args(&placed.rule, false, Style::Short);
                let mut words = args.split(' ');
                while let Some(word) = words.next() {
                    if word == "-d" || word == "-s" {
                        let address = words.next().unwrap_or_default();
                        prop_assert_eq!(address.contains(':'), family.family == Family::V6, "{}", args);
                    }
                }
                let comment_bytes = rule_args(&placed.rule, true, Style::Short).split('"').nth(1).map(str::len);
                prop_assert!(comment_bytes.is_some_and(|len| len <= 254), "{}", args);
            }
        }
    }
}

/// Others take rules away while an installation is under way: the way back is open all the same.
#[test]
fn the_way_back_does_not_depend_on_others_rules() {
    let mut config = Config::default();
    config.redirect.dns.enabled = true;
    config.redirect.dns.capture_all = true;
    let facts = HostFacts {
        sidecar_uid: 5678,
        loopback: "lo".into(),
        ipv6: tproxy::host::Ipv6Support::Available,
        resolvers: vec![],
        docker_dns: false,
        translated: tproxy::host::Translated::default(),
    };
    let theirs = "-p udp --dport 1 -j ACCEPT";
    let mut kernel = kernel(&[&format!("*raw\n-A OUTPUT {theirs}\n-A OUTPUT {theirs}\nCOMMIT\n")]);
    let first = wish(&config, &facts, &kernel, &[]);
    bring(&mut kernel, &first.wanted, &[]);
    let mut before = kernel.clone();
    let saved = Saved::parse(&kernel.save());
    let back = Wanted::before(&saved, &Ownership::of(&saved, &[]));
    config.redirect.dns.port = "15055".parse().expect("a port");
    let second = wish(&config, &facts, &kernel, &[]);
    bring(&mut kernel, &second.wanted, &[]);
    let gone = format!("*raw\n-D OUTPUT {theirs}\n-D OUTPUT {theirs}\nCOMMIT\n");
    for kernel in [&mut kernel, &mut before] {
        kernel.restore(&gone).expect("their rules");
    }
    bring(&mut kernel, &back, &[]);
    assert_eq!(kernel.save(), before.save());
}

/// The uncommented rules of one installation are not the next one's, unless somebody says so.
#[test]
fn rules_without_comments_are_unclaimed_until_recorded_or_adopted() {
    let mut config = Config::default();
    config.comments.disabled = true;
    config.redirect.dns.enabled = true;
    config.redirect.dns.capture_all = true;
    let facts = HostFacts {
        sidecar_uid: 5678,
        loopback: "lo".into(),
        ipv6: tproxy::host::Ipv6Support::Available,
        resolvers: vec![],
        docker_dns: false,
        translated: tproxy::host::Translated::default(),
    };
    let mut kernel = kernel(&["*mangle\n-A PREROUTING -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n"]);
    let wish = wish(&config, &facts, &kernel, &[]);
    let rules: usize = wish
        .plan
        .tables
        .iter()
        .flat_map(|t| &t.chains)
        .map(|(c, r)| match c {
            tproxy::plan::ChainRef::Builtin(_) => r.len(),
            tproxy::plan::ChainRef::Own(_) => 0,
        })
        .sum();
    bring(&mut kernel, &wish.wanted, &[]);
    let saved = Saved::parse(&kernel.save());

    let mut unknown = Ownership::of(&saved, &[]);
    assert_eq!(unknown.shared, []);
    // All of ours, and the foreign rule of the very same shape: nobody but the user can tell.
    assert_eq!(unknown.unclaimed.len(), rules + 1);
    unknown.adopt();
    assert_eq!(unknown.shared.len(), rules + 1);

    let known = Ownership::of(&saved, &wish.recorded);
    assert_eq!(known.shared.len(), rules);
    assert!(known.unclaimed.iter().all(|rule| rule.table.name() == "mangle"));
    let places: BTreeMap<_, usize> = known.shared.iter().map(|rule| (rule.table.name(), 1)).collect();
    assert_eq!(places.len(), 2);
}
