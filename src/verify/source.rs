//! Which configuration is verified.

use super::budget::{Budget, Stage};
use super::rules;
use crate::apply::store::{RECORD, State, Store};
use crate::backend::iptables::observe::observe_readable;
use crate::backend::iptables::situation::Situation;
use crate::backend::iptables::tools::Tools;
use crate::backend::{iptables, nftables};
use crate::config::{Config, Executables, Resolved, Sources, Written, is_short};
use crate::exit::{Exit, Failure};
use crate::host;
use crate::plan::Family;
use crate::status::look::native_table;
use crate::status::model::Compared;
use crate::status::source::{effective, read};

/// What is verified.
#[derive(Debug)]
pub struct Wanted {
    /// The configuration.
    pub config: Config,
    /// What a command that installs the same may refer to.
    pub written: Option<Written>,
}

/// What this command was given; else what the installation recorded; else what the rules say by themselves; else the
/// defaults. Logs which, and says where it comes from.
///
/// # Errors
/// Nothing is installed and nothing is given, or the network namespace has no identity.
pub fn wanted(resolved: &Resolved, budget: &Budget) -> Result<Wanted, Failure> {
    let store = Store::unlocked()?;
    let state = store.load()?;
    let recorded = state.as_ref().map(|state: &State| state.config.as_str());
    let (config, compared) = effective(resolved, recorded);
    let record = || store.path(RECORD).display().to_string();
    let written = match compared {
        Compared::Given => {
            tracing::info!("verifying the given configuration");
            // A record names no programs, so a command says them beside it.
            let iptables_executables = config.iptables_executables.clone();
            let named = iptables_executables != Executables::default();
            let with_them = |recorded| Config { iptables_executables, ..recorded };
            let is_recorded =
                || recorded.and_then(read).map(with_them).is_some_and(|recorded| recorded == config);
            Written::given(resolved).or_else(|| {
                (!is_short(&config) && is_recorded()).then(|| {
                    let written = Written::beside(record(), &Sources::default());
                    if named { written.but("iptablesExecutables") } else { written }
                })
            })
        }
        Compared::Recorded => {
            tracing::info!("verifying the configuration that the installation recorded");
            (!is_short(&config)).then(|| Written::beside(record(), &resolved.sources))
        }
        Compared::Inferred | Compared::Nothing => {
            let look = config.clone();
            if let Some(inferred) = budget.within(Stage::Preparing, move || read_off(&look)).flatten() {
                tracing::info!(
                    "no configuration is given or recorded; verifying the one that the installed rules were made from"
                );
                return Ok(Wanted { config: inferred, written: None });
            }
            // Whoever installed nothing and says nothing does not want to know what the defaults would do.
            if is_clean(&config, budget) {
                let why = "nothing is installed here, and no configuration is given to verify";
                return Err(Failure::new(Exit::Host, why).hint("tproxy install"));
            }
            tracing::info!("no configuration is given or recorded; verifying the defaults");
            return Ok(Wanted { config, written: None });
        }
    };
    Ok(Wanted { config, written })
}

/// Reads the files that the configuration to verify will need, and no more.
///
/// # Errors
/// One of them is no file, but a pipe or a device.
pub fn files_must_answer(resolved: &Resolved) -> Result<(), Failure> {
    let store = Store::unlocked()?;
    store.must_answer()?;
    let named =
        || (resolved.config.redirect.dns.enabled).then_some(&resolved.config.redirect.dns.resolv_config_path);
    match named().map(|path| host::resolvers(path)) {
        Some(Err(failure)) if failure.exit == Exit::Usage => Err(failure),
        _ => Ok(()),
    }
}

/// Whether there is nothing of ours, as far as can be told in time.
fn is_clean(config: &Config, budget: &Budget) -> bool {
    let config = config.clone();
    let look = budget.within(Stage::Preparing, move || rules::look(&config));
    look.is_some_and(|look| look.is_ok_and(|look| look.is_not_installed()))
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
    let recorded = Store::unlocked().ok()?.load().ok()?.as_ref().map(State::recorded).unwrap_or_default();
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
