//! `tproxy uninstall`.

use std::path::Path;
use std::time::Duration;

use crate::backend::firewalld;
use crate::backend::iptables::tools::Tools;
use crate::config::{Config, Executables};
use crate::exit::{Exit, Failure, HINT};
use crate::host;
use crate::present::{Action, Receipt};
use crate::saved;
use crate::status::model::Saved;

use super::install::PATIENCE;
use super::journal::Journal;
use super::passthrough::Passthrough;
use super::persist::Withdrawn;
use super::refused::failure;
use super::request::{DryRun, UninstallRequest};
use super::scene::Goal;
use super::store::{Phase, RECORD, State, Store};
use super::transaction::Session;
use super::undo::Undo;
use super::{found, look, pending, persist, remains, show, stop, sweep};

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
    stop::unless_root("run it with sudo")?;
    let config = &request.config;
    // Whatever has to be read from file systems: should one not answer, any signal ends the run here.
    let mut store = Store::unlocked()?;
    store.must_answer()?;
    persist::must_answer(false)?;
    let saved = saved::find();
    stop::hold_signals()?;
    let tools = find_tools(config)?;
    store.lock(PATIENCE + Duration::from_secs(config.wait.into()))?;
    sweep::sweep(&store);
    // What cannot be removed keeps nothing else from going.
    let _ = store.sweep_unfinished();
    let on_trial = matches!(pending::trial(&store), Ok(Some(_)));
    let found = store.find()?;
    let hides_address = found.hides_address();
    let old = found.clone().state();
    let mut left: Vec<_> = remains::record(&found, &store.path(RECORD)).into_iter().collect();
    let mut session = Session::new(tools, config, old.as_ref(), request.adopt, request.force);

    let scene = session.first_look()?;
    stop::if_owned(&scene)?;
    stop::if_unread(&scene)?;
    stop::if_no_tools(&scene, &session)?;
    stop::if_unclaimed(&scene.iptables)?;
    stop::if_chains_in_use(&scene.iptables)?;
    show::warn_of_intruders(&scene);
    stop::warn_of_doubtful(&scene.iptables);
    stop::if_asked_to()?;

    left.extend(scene.unread.iter().map(|(_, failure)| remains::unread(failure)));
    left.extend(look::out_of_reach(&session.tools, &session.record)?.into_iter().map(remains::out_of_reach));
    let interfaces = session.patience.persist(host::interfaces)?;
    let mut undo = Undo::new(&scene, &interfaces, &found, false);
    let nothing = Goal::default();
    let mut changed = !scene.steps(&nothing).is_empty() || old.is_some();
    if let Some(old) = &old {
        store.note(&State { phase: Phase::Changing, ..old.clone() });
    }
    // The file first: what it cannot give up, others' jumps to our chains, stops everything.
    let mut journal = Journal::default();
    let unrecorded = old.is_none();
    let ours = old.is_some_and(|state| state.added_passthrough);
    let mut passthrough = Passthrough::new(&interfaces, ours);
    let mut remove = || {
        undo.before_firewalld(&mut journal);
        match persist::withdraw(request.force)? {
            Withdrawn::Nothing => {}
            Withdrawn::Gone => changed = true,
            Withdrawn::Unread(why) => left.push(remains::direct_xml(Path::new(firewalld::DIRECT_XML), &why)),
        }
        session.bring(&scene, &nothing, &mut journal).map_err(|refused| failure(&refused, false))?;
        if passthrough.differs(false) {
            journal.touches_address(passthrough.interface());
        }
        session.patience.persist(|| passthrough.bring(false)).map_err(|error| {
            let name = interfaces.loopback();
            let message = format!("the address ::6 could not be removed from {name}: {error}");
            Failure::new(Exit::Failed, message).hint(format!(
                "run the command again, or remove it with 'ip -6 addr del ::6/128 dev {name}' before"
            ))
        })
    };
    if let Err(failure) = remove() {
        return Err(undo.after(failure, &session, &mut store, &journal));
    }
    let went_back = on_trial && matches!(pending::trial(&store), Ok(None));
    pending::withdraw(&store);
    // It stays as it is, so that the next run knows of the address too.
    let address_left = hides_address && passthrough.is_there();
    if !address_left && store.remove() {
        left.push(remains::stale(&store.path(RECORD)));
    }
    if went_back {
        let what =
            "an installation on trial went back while it was removed, so some of it may be there again";
        return Err(Failure::new(Exit::Left, what).hint("run the command again"));
    }
    if address_left {
        return Err(found::address_left(passthrough.interface(), &store.path(RECORD)));
    }
    if unrecorded && passthrough.is_there() {
        left.push(remains::address(passthrough.interface()));
    }
    for copy in saved.iter().map(Saved::finding) {
        tracing::warn!("{}", copy.what);
        if let Some(fix) = copy.fix {
            tracing::info!(target: HINT, "{fix}");
        }
    }
    let unattributed = stop::unattributed(&scene.iptables);
    let receipt = Receipt::new(Action::Uninstall, changed, scene.installed(), scene.own_rules());
    show::receipt(&Receipt { unattributed, left, saved, ..receipt }, request.format);
    Ok(())
}

/// The programs of the configuration, or where those cannot be used, the host's own ones.
///
/// # Errors
/// As those of [`Tools::find`].
pub(super) fn find_tools(config: &Config) -> Result<Tools, Failure> {
    let path = std::env::var_os("PATH");
    let named = &config.iptables_executables;
    match Tools::find(named, path.as_ref()) {
        Err(failure) if *named != Executables::default() => {
            tracing::warn!("{failure}; the host's own programs are used");
            Tools::find(&Executables::default(), path.as_ref())
        }
        found => found,
    }
}
