//! `tproxy uninstall`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backend::iptables::situation::Situation;
use crate::backend::iptables::tools::{self, Tools};
use crate::exit::Failure;
use crate::host;
use crate::present::{Action, Receipt};

use super::install::{PATIENCE, failure};
use super::passthrough::Passthrough;
use super::request::{DryRun, UninstallRequest};
use super::store::{Phase, State, Store};
use super::transaction::Session;
use super::{persist, show, stop};

/// Removes all that is ours from both variants and both families, or shows what that would be. Needs no sidecar
/// user and no valid plan. Prints the result on stdout.
///
/// # Errors
/// See [`crate::exit::Exit`]; unless it is `Left`, the host is as it was before.
pub fn uninstall(request: &UninstallRequest) -> Result<(), Failure> {
    match request.dry_run {
        DryRun::Off => run(request),
        DryRun::Rules | DryRun::Diff => show::uninstall_diff(request),
    }
}

fn run(request: &UninstallRequest) -> Result<(), Failure> {
    stop::unless_root()?;
    let config = &request.config;
    let tools = Tools::find(&config.iptables_executables, std::env::var_os("PATH").as_ref())?;
    let mut store = Store::open(PATIENCE + Duration::from_secs(config.wait.into()))?;
    let old = store.load();
    let recorded = old.as_ref().map(State::recorded).unwrap_or_default();
    let session = Session::new(tools, config, recorded, request.adopt, request.force);

    let situation = session.look()?;
    if situation.choose(&session.tools).is_none() {
        return Err(tools::none_found());
    }
    stop::if_unclaimed(&situation)?;
    stop::if_chains_in_use(&situation)?;
    show::warn_of_intruders(&situation);

    let found = old.is_some();
    let mut passthrough =
        Passthrough::new(&host::loopback()?, old.as_ref().is_some_and(|state| state.added_passthrough));
    let withdrawn = persist::withdraw(request.force)?;
    let changed = remove(&session, &situation, &store, old.as_ref()).inspect_err(|_| withdrawn.put_back())?;
    if let Err(error) = passthrough.bring(false) {
        tracing::warn!("the address ::6 could not be removed from the loopback interface: {error}");
    }
    store.remove();
    let receipt = Receipt {
        action: Action::Uninstall,
        changed: changed || found || withdrawn.any(),
        variant: None,
        rules: situation.own_rule_counts(),
    };
    show::receipt(&receipt, request.format)
}

/// Removes the rules, or leaves all as it was. Whether there were any.
fn remove(
    session: &Session,
    situation: &Situation,
    store: &Store,
    old: Option<&State>,
) -> Result<bool, Failure> {
    let nothing = BTreeMap::new();
    if situation.changes(&nothing).is_empty() {
        return Ok(false);
    }
    if let Some(old) = old {
        store.save(&State { phase: Phase::Changing, ..old.clone() })?;
    }
    let Err(refused) = session.bring(situation, &nothing) else { return Ok(true) };
    let failure = failure(&refused, false);
    if let Err(left) = session.take_back(&situation.as_wanted()) {
        return Err(Failure { message: format!("{}\n{}", failure.message, left.message), ..left });
    }
    if let Some(Err(error)) = old.map(|old| store.save(old)) {
        tracing::warn!("{error}");
    }
    Err(Failure { message: format!("{}\nthe host is as it was before", failure.message), ..failure })
}
