//! Dry runs, and what a run says at its end.

use std::collections::BTreeMap;

use serde_json::json;

use crate::backend::iptables::observe::observe;
use crate::backend::iptables::render;
use crate::backend::iptables::situation::Situation;
use crate::backend::iptables::syntax::Style;
use crate::backend::iptables::tools::{self, Tools};
use crate::backend::iptables::transition::Wanted;
use crate::exit::Failure;
use crate::host;
use crate::plan::{self, Plan};
use crate::present::{self, Receipt};
use crate::status::words;
use crate::stdout::print;
use crate::text::escape;
use crate::verify::Report;

use super::confirm::Guard;
use super::request::{Format, InstallRequest, UninstallRequest};
use super::store::{State, Store};
use super::transaction::Session;
use super::{facts, stop};

/// `install --dry-run`: the rules as kumactl prints them. Needs no root: what only root can see is assumed, and
/// said. Changes nothing at all.
pub fn install_rules(request: &InstallRequest) -> Result<(), Failure> {
    let config = &request.config;
    let mut facts = facts::collect(config, &host::interfaces()?)?;
    let looked = if host::is_root() { look_for_docker(request) } else { Err("not run as root".to_owned()) };
    match looked {
        Ok(docker_dns) => facts.docker_dns = docker_dns,
        Err(why) => tracing::info!(
            "{why}, so the live rules were not looked at; assumed: no Docker DNS in this network namespace, and \
             every match and target available"
        ),
    }
    let plan = plan::build(config, &facts);
    warn_of_notes(&plan);
    let comments = !config.comments.disabled;
    print(&match request.format {
        Format::Json => present::plan_json(&plan, comments),
        Format::Text => {
            let style = if config.verbose { Style::Long } else { Style::Short };
            render::dry_run(&plan, style, |_| comments)
        }
    })
}

fn look_for_docker(request: &InstallRequest) -> Result<bool, String> {
    let tools = find_tools(&request.config).map_err(|failure| failure.message)?;
    let situation = Situation::new(observe(&tools).map_err(|failure| failure.message)?, &BTreeMap::new());
    let (variant, _) = situation.choose(&tools).ok_or("no iptables was found")?;
    Ok(situation.has_docker_dns(variant))
}

/// `install --dry-run=diff`: what would change.
pub fn install_diff(request: &InstallRequest) -> Result<(), Failure> {
    let config = &request.config;
    let mut facts = facts::collect(config, &host::interfaces()?)?;
    let (situation, tools) = look(config, request.adopt, false)?;
    let Some((variant, _)) = situation.choose(&tools) else { return Err(tools::none_found()) };
    facts.docker_dns = situation.has_docker_dns(variant);
    facts::check_ipv6_tools(&mut facts, variant, tools.of(variant));
    stop::if_unclaimed(&situation)?;
    warn_of_intruders(&situation);
    let plan = plan::build(config, &facts);
    warn_of_notes(&plan);
    let wanted = plan
        .families
        .iter()
        .map(|plan| ((variant, plan.family), Wanted::plan(plan, !config.comments.disabled)))
        .collect();
    print_diff(&situation, &wanted, request.format)
}

/// `uninstall --dry-run`: what would be removed.
pub fn uninstall_diff(request: &UninstallRequest) -> Result<(), Failure> {
    let (situation, tools) = look(&request.config, request.adopt, request.force)?;
    if situation.choose(&tools).is_none() {
        return Err(tools::none_found());
    }
    stop::if_unclaimed(&situation)?;
    stop::if_chains_in_use(&situation)?;
    print_diff(&situation, &BTreeMap::new(), request.format)
}

fn look(config: &crate::config::Config, adopt: bool, force: bool) -> Result<(Situation, Tools), Failure> {
    stop::unless_root()?;
    let tools = find_tools(config)?;
    let old = Store::unlocked()?.load();
    let recorded = old.as_ref().map(State::recorded).unwrap_or_default();
    let session = Session::new(tools.clone(), config, recorded, adopt, force);
    Ok((session.look()?, tools))
}

fn find_tools(config: &crate::config::Config) -> Result<Tools, Failure> {
    Tools::find(&config.iptables_executables, std::env::var_os("PATH").as_ref())
}

fn print_diff(
    situation: &Situation,
    wanted: &BTreeMap<crate::backend::iptables::situation::Place, Wanted>,
    format: Format,
) -> Result<(), Failure> {
    let changes = situation.changes(wanted);
    print(&match format {
        Format::Json => present::diff_json(&changes),
        Format::Text => present::diff_text(&changes),
    })
}

/// Every note of a plan is a warning: something that was asked for is not done.
pub fn warn_of_notes(plan: &Plan) {
    for note in &plan.notes {
        tracing::warn!("{note}");
    }
}

/// Rules of others inside our chains go with the chains' content; they are printed in full, so that they can be put
/// back.
pub fn warn_of_intruders(situation: &Situation) {
    for ((variant, family), own) in situation.ownership() {
        for (chain, rule) in &own.intruders {
            tracing::warn!(
                "somebody else's rule in our chain goes ({family}, {variant}): -t nat -A {} {}",
                chain.name(),
                escape(&rule.args)
            );
        }
    }
}

/// What was done.
pub fn receipt(receipt: &Receipt, format: Format) {
    tell(&match format {
        Format::Json => receipt.json(Vec::new()),
        Format::Text => receipt.text(),
    });
}

/// What was installed, how it was proved, and whether it has to be confirmed.
pub fn installed(receipt: &Receipt, proof: Option<&Report>, guard: Option<&Guard>, format: Format) {
    tell(&match format {
        Format::Json => {
            let proof = proof.map(|report| ("verify", present::verify_value(report)));
            let guard = guard
                .map(|guard| ("confirm", json!({ "until": words::time(guard.until()), "log": guard.log() })));
            receipt.json(proof.into_iter().chain(guard).collect())
        }
        Format::Text => {
            let proof = proof.map(|report| format!("\n{}", present::verify_text(report)));
            receipt.text() + &proof.unwrap_or_default()
        }
    });
}

/// That it was done does not depend on who can be told.
pub fn tell(text: &str) {
    if let Err(failure) = print(text) {
        tracing::warn!("all is done, but {failure}");
    }
}
