//! Looks at the rules to find out why something failed. The only part that knows a backend.

use std::collections::BTreeMap;

use super::judge::Rules;
use crate::apply::store::{State, Store};
use crate::backend::iptables::infer::infer;
use crate::backend::iptables::observe::observe;
use crate::backend::iptables::situation::Situation;
use crate::backend::iptables::tools::{self, Tools, Variant};
use crate::backend::iptables::transition::Wanted;
use crate::config::Config;
use crate::exit::Failure;
use crate::host::HostFacts;
use crate::plan::{self, Family};

/// What the rules of each family look like.
///
/// # Errors
/// They cannot be read.
pub fn look(config: &Config, facts: &HostFacts) -> Result<BTreeMap<Family, Rules>, Failure> {
    let (situation, variant) = situation(config)?;
    let facts = HostFacts { docker_dns: situation.has_docker_dns(variant), ..facts.clone() };
    let plan = plan::build(config, &facts);
    let wanted =
        |plan: &plan::FamilyPlan| ((variant, plan.family), Wanted::plan(plan, !config.comments.disabled));
    let wanted = plan.families.iter().map(wanted).collect();
    let changes = situation.changes(&wanted);
    let own = situation.own_rule_counts();
    let rules_of = |family: Family| {
        if !own.contains_key(&family) {
            return Rules::NotInstalled;
        }
        let lines = |added: bool| -> Vec<String> {
            let tables = changes.iter().filter(|((_, of), _)| *of == family).flat_map(|(_, tables)| tables);
            let of_table = |table: &crate::backend::iptables::transition::TableChange| {
                let name = table.table.name();
                let lines =
                    table.diff.iter().filter(move |line| line.added == added && !line.args.is_empty());
                lines
                    .map(move |line| format!("-t {name} -A {} {}", line.chain, bare(&line.args)))
                    .collect::<Vec<_>>()
            };
            tables.flat_map(of_table).collect()
        };
        let (missing, extra) = (lines(true), lines(false));
        let same = changes.keys().all(|(_, of)| *of != family);
        match (missing.is_empty(), extra.is_empty()) {
            (false, _) => Rules::Missing(missing),
            (true, false) => Rules::Extra(extra),
            (true, true) if same => Rules::AsWanted,
            (true, true) => Rules::Displaced,
        }
    };
    Ok(Family::BOTH.into_iter().map(|family| (family, rules_of(family))).collect())
}

/// Whether all rules are there as a configuration wants them, with nothing ahead of them.
pub fn are_sound(config: &Config) -> bool {
    crate::status::look::compared_with(config)
        .inspect_err(|failure| tracing::debug!("the rules could not be looked at: {failure}"))
        .is_ok_and(|report| {
            !report.families.is_empty() && report.differences.is_empty() && report.ahead.is_empty()
        })
}

/// The configuration that rules without a record were most likely made from; `None` where there are none.
pub fn read_off(config: &Config) -> Option<Config> {
    let (mut situation, variant) = situation(config).ok()?;
    let uncommented = !situation.unclaimed().is_empty();
    situation.adopt();
    if !situation.is_installed() {
        return None;
    }
    let rules = Family::BOTH.map(|family| (family, situation.own_rules((variant, family))));
    let inferred = infer(&rules, !uncommented).config;
    Some(Config { iptables_executables: config.iptables_executables.clone(), ..inferred })
}

/// What is there, and through which variant.
fn situation(config: &Config) -> Result<(Situation, Variant), Failure> {
    let tools = Tools::find(&config.iptables_executables, std::env::var_os("PATH").as_ref())?;
    let recorded = Store::unlocked()?.load().as_ref().map(State::recorded).unwrap_or_default();
    let situation = Situation::new(observe(&tools)?, &recorded);
    let ours = situation.ownership().find(|(_, own)| !own.is_empty()).map(|((variant, _), _)| variant);
    let variant = tools.named.or(ours).or_else(|| situation.choose(&tools).map(|(variant, _)| variant));
    variant.map(|variant| (situation, variant)).ok_or_else(tools::none_found)
}

/// A rule without its comment, which says at length what the rule says.
fn bare(args: &str) -> String {
    let Some((before, after)) = args.split_once("-m comment --comment ") else { return escaped(args) };
    let rest = match after.strip_prefix('"') {
        Some(quoted) => quoted.split_once("\" ").map_or("", |(_, rest)| rest),
        None => after.split_once(' ').map_or("", |(_, rest)| rest),
    };
    escaped(&format!("{before}{rest}"))
}

fn escaped(text: &str) -> String {
    crate::text::escape(text.trim())
}

#[cfg(test)]
mod tests {
    use super::bare;

    #[test]
    fn comments_are_left_out() {
        assert_eq!(bare("-p tcp -m comment --comment \"a b\" -j X"), "-p tcp -j X");
        assert_eq!(bare("-m comment --comment a -p tcp -j X"), "-p tcp -j X");
        assert_eq!(bare("-p tcp -j X"), "-p tcp -j X");
        assert_eq!(bare("-p tcp -m comment --comment"), "-p tcp -m comment --comment");
    }
}
