//! Which configuration is verified.

use super::budget::{Budget, Stage};
use super::rules;
use crate::apply::store::{State, Store};
use crate::backend::iptables::observe::observe_readable;
use crate::backend::iptables::situation::Situation;
use crate::backend::iptables::tools::Tools;
use crate::backend::{iptables, nftables};
use crate::config::{Config, Resolved};
use crate::exit::Failure;
use crate::plan::Family;
use crate::status::look::native_table;
use crate::status::model::Compared;
use crate::status::source::effective;

/// What this command was given; else what the installation recorded; else what the rules say by themselves; else the
/// defaults. Logs which, and says where it comes from.
///
/// # Errors
/// The network namespace has no identity.
pub fn wanted(resolved: &Resolved, budget: &Budget) -> Result<(Config, Compared), Failure> {
    let state = Store::unlocked()?.load();
    let (config, compared) = effective(resolved, state.as_ref().map(|state: &State| state.config.as_str()));
    match compared {
        Compared::Given => tracing::info!("verifying the given configuration"),
        Compared::Recorded => tracing::info!("verifying the configuration that the installation recorded"),
        Compared::Inferred | Compared::Nothing => {
            let look = config.clone();
            if let Some(inferred) = budget.within(Stage::Preparing, move || read_off(&look)).flatten() {
                tracing::info!(
                    "no configuration is given or recorded; verifying the one that the installed rules were made from"
                );
                return Ok((inferred, Compared::Inferred));
            }
            tracing::info!("no configuration is given or recorded; verifying the defaults");
            return Ok((config, Compared::Nothing));
        }
    }
    Ok((config, compared))
}

/// Why nothing can be verified. Where nothing is installed and no configuration was given, it is that, and not what the
/// host lacks for the defaults.
pub fn reason(config: &Config, compared: Compared, lacking: Failure, budget: &Budget) -> Failure {
    let is_clean = || {
        let config = config.clone();
        let look = budget.within(Stage::Explaining, move || rules::look(&config));
        look.is_some_and(|look| look.is_ok_and(|look| look.is_not_installed()))
    };
    if compared != Compared::Nothing || !is_clean() {
        return lacking;
    }
    Failure::new(lacking.exit, "nothing is installed here, and no configuration is given to verify")
        .hint("tproxy install")
}

/// The configuration that rules without a record were most likely made from; `None` where there are none.
fn read_off(config: &Config) -> Option<Config> {
    let inferred = match native_table().ok()? {
        Some(observed) => nftables::infer::infer(&observed.table).config,
        None => of_iptables(config)?,
    };
    Some(Config { iptables_executables: config.iptables_executables.clone(), ..inferred })
}

fn of_iptables(config: &Config) -> Option<Config> {
    let tools = Tools::find(&config.iptables_executables, std::env::var_os("PATH").as_ref()).ok()?;
    let recorded = Store::unlocked().ok()?.load().as_ref().map(State::recorded).unwrap_or_default();
    let mut situation = Situation::new(observe_readable(&tools).ok()?, &recorded);
    let uncommented = !situation.unclaimed().is_empty();
    situation.adopt();
    let ours = situation.ownership().find(|(_, own)| !own.is_empty()).map(|((variant, _), _)| variant);
    let variant = tools.named.or(ours)?;
    if !situation.is_installed() {
        return None;
    }
    let rules = Family::BOTH.map(|family| (family, situation.own_rules((variant, family))));
    Some(iptables::infer::infer(&rules, !uncommented).config)
}
