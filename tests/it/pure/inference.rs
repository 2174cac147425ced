//! What is read off rules plans the same rules again, for configurations and hosts at random.

use proptest::prelude::*;
use tproxy::backend::iptables::infer::{infer, known_resolvers};
use tproxy::backend::iptables::owned::Ownership;
use tproxy::backend::iptables::save::Saved;
use tproxy::backend::iptables::transition::{changes, script};
use tproxy::backend::iptables::typed::own_rules;
use tproxy::backend::iptables::wanted::Wanted;
use tproxy::backend::nftables::{self, lower};
use tproxy::host::{HostFacts, Ipv6Support, Resolver};
use tproxy::plan::{self, Family, family_plan};

use super::configs;
use super::model::Kernel;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn rules_tell_their_configuration(config in configs::config_or_all(), facts in configs::facts()) {
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

    #[test]
    fn a_table_tells_its_configuration(
        config in configs::config_or_all(),
        exclusions in configs::exclusions(),
        comments in any::<bool>(),
        facts in configs::facts(),
    ) {
        let mut config = config;
        config.redirect.outbound.exclude_ports_for_uids.extend(exclusions);
        let table = lower::table(&plan::build(&config, &facts), comments);
        let inferred = nftables::infer::infer(&table);
        prop_assert_eq!(inferred.config.comments.disabled, !comments);
        let host = HostFacts { sidecar_uid: 1, ipv6: Ipv6Support::Available, ..facts };
        let again = inferred.wanted(host, &table);
        prop_assert_eq!(&again, &table, "{:#?}", inferred);
    }
}
