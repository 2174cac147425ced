//! What is read off rules plans the same rules again, for configurations and hosts at random.

use proptest::prelude::*;
use tproxy::backend::iptables::infer::{infer, known_resolvers};
use tproxy::backend::iptables::owned::Ownership;
use tproxy::backend::iptables::save::Saved;
use tproxy::backend::iptables::transition::{Wanted, changes, script};
use tproxy::backend::iptables::typed::own_rules;
use tproxy::host::{HostFacts, Resolver};
use tproxy::plan::{Family, family_plan};

use super::configs;
use super::model::Kernel;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn rules_tell_their_configuration(config in configs::config(), facts in configs::facts()) {
        let mut config = config;
        config.comments.disabled = false;
        let mut kernel = Kernel::default();
        let mut facts = facts;
        if facts.docker_dns {
            kernel.restore("*nat\n:DOCKER_OUTPUT - [0:0]\nCOMMIT\n").expect("a chain");
        }
        facts.loopback = "lo".into();
        let wanted = Wanted::plan(&family_plan(&config, &facts, Family::V4), true);
        let nothing = Saved::parse(&kernel.save());
        kernel.restore(&script(&changes(&nothing, &Ownership::of(&nothing, &[]), &wanted))).expect("a plan");

        let saved = Saved::parse(&kernel.save());
        let own = Ownership::of(&saved, &[]);
        let rules = own_rules(&saved, &own);
        let inferred = infer(&[(Family::V4, rules.clone())], true);
        let resolvers = known_resolvers(&rules).into_iter().map(|addr| Resolver { addr, zone: None }).collect();
        let facts = HostFacts { sidecar_uid: inferred.sidecar_uid.unwrap_or(1), resolvers, ..facts };
        let again = Wanted::plan(&family_plan(&inferred.config, &facts, Family::V4), true).whatever_comments();
        let changes = changes(&saved, &own, &again);
        prop_assert!(changes.is_empty(), "{changes:#?}\n{}", kernel.save());
    }
}
