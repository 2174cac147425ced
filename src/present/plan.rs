//! A plan as data.

use serde_json::{Value, json};

use crate::backend::Backend;
use crate::backend::iptables::syntax::{Style, rule_args};
use crate::backend::nftables::{lower, text};
use crate::plan::{ChainRef, Match, PlacedRule, Placement, Plan, Target};

/// For programs: every table, chain and rule, with its reason and its words in iptables' language; of the native backend
/// also the table in nft's.
pub fn plan_json(plan: &Plan, comments: bool, backend: Option<Backend>) -> String {
    let families: Vec<Value> = plan
        .families
        .iter()
        .map(|family| {
            let tables: Vec<Value> = family
                .tables
                .iter()
                .map(|table| {
                    let chains: Vec<Value> = table
                        .chains
                        .iter()
                        .map(|(chain, rules)| chain_json(*chain, rules, comments))
                        .collect();
                    json!({ "table": table.table.name(), "chains": chains })
                })
                .collect();
            json!({ "family": family.family.to_string().to_lowercase(), "tables": tables })
        })
        .collect();
    let mut all = json!({ "schema": 1, "families": families, "notes": plan.notes });
    if backend == Some(Backend::Nftables) {
        all["backend"] = json!(Backend::Nftables.name());
        all["nft"] = json!(text::replace(&lower::table(plan, comments)));
    }
    super::pretty(&all)
}

fn chain_json(chain: ChainRef, rules: &[PlacedRule], comments: bool) -> Value {
    let rules: Vec<Value> = rules
        .iter()
        .map(|PlacedRule { placement, rule }| {
            json!({
                "placement": match placement {
                    Placement::Head => "head",
                    Placement::Tail => "tail",
                },
                "matches": rule.matches.iter().map(match_json).collect::<Vec<_>>(),
                "target": target_json(&rule.target),
                "why": rule.why,
                "iptables": rule_args(rule, comments, Style::Short).trim_start(),
            })
        })
        .collect();
    json!({ "chain": chain.name(), "own": matches!(chain, ChainRef::Own(_)), "rules": rules })
}

fn match_json(matching: &Match) -> Value {
    match matching {
        Match::Protocol(protocol) => json!({ "protocol": protocol.to_string() }),
        Match::Source(net) => json!({ "source": net.to_string() }),
        Match::Destination { net, negated } => json!({ "destination": net.to_string(), "negated": negated }),
        Match::ForOtherHosts => json!({ "destinationType": "local", "negated": true }),
        Match::InInterface(name) => json!({ "inInterface": name }),
        Match::OutInterface(name) => json!({ "outInterface": name }),
        Match::SourcePort(port) => json!({ "sourcePort": port.get() }),
        Match::DestinationPort(port) => json!({ "destinationPort": port.get() }),
        Match::DestinationPorts { protocol, ports } => json!({
            "protocol": protocol.to_string(),
            "destinationPorts": ports.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
        Match::Owner { uids, negated } => json!({ "owner": uids.to_string(), "negated": negated }),
        Match::Invalid => json!({ "conntrack": "invalid" }),
        Match::NotOriginalDestination(net) => {
            json!({ "originalDestination": net.to_string(), "negated": true })
        }
        Match::Explicit(protocol) => json!({ "module": protocol.to_string() }),
    }
}

fn target_json(target: &Target) -> Value {
    match target {
        Target::Return => json!({ "verdict": "return" }),
        Target::Jump(chain) => json!({ "jump": chain.name() }),
        Target::DockerOutput => json!({ "jump": "DOCKER_OUTPUT" }),
        Target::Redirect(port) => json!({ "redirectTo": port.get() }),
        Target::CtZone(zone) => json!({ "conntrackZone": zone }),
        Target::Drop => json!({ "verdict": "drop" }),
        Target::Log { prefix, level } => json!({ "log": prefix, "level": level }),
    }
}
