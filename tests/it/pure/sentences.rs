//! What the rules of the native table say for themselves, for configurations and hosts at random.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use tproxy::backend::nftables::decode::Observed;
use tproxy::backend::nftables::foreign::intruders;
use tproxy::backend::nftables::lower::{self, sentence};
use tproxy::backend::nftables::model::{Rule, Statement, Table, Verdict};
use tproxy::plan;

use super::configs;

/// What nft reads at most (`NFTNL_UDATA_COMMENT_MAXLEN`, without the final zero), in bytes.
const LONGEST: usize = 127;

fn rules(table: &Table) -> impl Iterator<Item = &Rule> {
    table.chains.iter().flat_map(|chain| &chain.rules)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_rule_counts_and_says_why_in_a_whole_sentence(
        config in configs::config(),
        exclusions in configs::exclusions(),
        facts in configs::facts(),
    ) {
        let mut config = config;
        config.redirect.outbound.exclude_ports_for_uids.extend(exclusions);
        let plan = plan::build(&config, &facts);
        let table = lower::table(&plan, true);
        prop_assert_eq!(intruders(&Observed { table: table.clone(), ..Observed::default() }), [""; 0]);
        for rule in rules(&table) {
            prop_assert!(rule.statements.contains(&Statement::Counter), "{}", rule);
            let why = rule.comment.as_deref().unwrap_or_default();
            prop_assert!(why.starts_with(|c: char| c.is_ascii_uppercase()), "{}", rule);
            prop_assert!(why.ends_with('.') && !why.contains(".."), "{}", rule);
            prop_assert!(why.len() <= LONGEST && !why.contains(['"', '\n']), "{}", rule);
            // What is said where a rule is none of those that a plan has.
            prop_assert!(why != "This traffic is left alone.", "{}", rule);
            prop_assert!(sentence::is_ours(why), "{}", rule);
        }
        for rule in rules(&lower::table(&plan, false)) {
            prop_assert_eq!(&rule.comment, &None);
        }
    }
}

/// Within a chain, rules that say the same do the same.
#[test]
fn what_is_said_twice_is_done_twice() {
    let mut runner = TestRunner::deterministic();
    let mut ends: BTreeMap<(String, String), String> = BTreeMap::new();
    for _ in 0..300 {
        let config = configs::config().new_tree(&mut runner).expect("a configuration").current();
        let facts = configs::facts().new_tree(&mut runner).expect("a host").current();
        for chain in lower::table(&plan::build(&config, &facts), true).chains {
            for rule in chain.rules {
                let end = match rule.statements.last() {
                    Some(Statement::Redirect(_)) => "redirect".to_owned(),
                    Some(Statement::Log { .. }) => "log".to_owned(),
                    // Everybody's is let pass in a chain of its own.
                    Some(Statement::Verdict(Verdict::Jump(chain))) if chain == lower::OTHERS => {
                        "return".to_owned()
                    }
                    Some(Statement::Verdict(Verdict::Return)) => "return".to_owned(),
                    other => format!("{other:?}"),
                };
                let why = rule.comment.clone().unwrap_or_default();
                let said = ends.entry((chain.name.clone(), why)).or_insert_with(|| end.clone());
                assert_eq!(*said, end, "{}: {rule}", chain.name);
            }
        }
    }
    assert!(ends.len() > 30, "{ends:#?}");
}
