//! Reasons to stop before anything is changed.

use std::fmt::Write as _;

use crate::backend::Backend;
use crate::backend::iptables::owned::SharedRule;
use crate::backend::iptables::situation::{Place, Situation};
use crate::backend::nftables::send::SendError;
use crate::exit::{Exit, Failure, HINT};
use crate::host;
use crate::sys::signal;
use crate::text::escape;

use super::look;
use super::refused::native_failure;
use super::scene::Scene;
use super::transaction::Session;

/// Only root can read and change the rules; the hint says what else there is to do.
pub fn unless_root(hint: &str) -> Result<(), Failure> {
    if host::is_root() {
        return Ok(());
    }
    Err(Failure::new(Exit::Host, "you need to have root privileges to run this command").hint(hint))
}

/// From here on, being asked to stop waits until the host is as wanted or as before.
pub fn hold_signals() -> Result<(), Failure> {
    signal::install().map_err(|error| Failure::new(Exit::Failed, format!("signals cannot be held: {error}")))
}

/// Asked to stop while nothing is changed yet, a run does.
pub fn if_asked_to() -> Result<(), Failure> {
    match signal::interrupted() {
        Some(number) => Err(Failure::new(
            Exit::Failed,
            format!("stopped by {} before anything was changed", signal::name(number)),
        )),
        None => Ok(()),
    }
}

/// Nobody but the process that owns a table may change it.
pub fn if_owned(scene: &Scene) -> Result<(), Failure> {
    let owned = scene.native.as_ref().is_some_and(|observed| observed.owned_by.is_some());
    if owned { Err(native_failure(&SendError::Owned, false)) } else { Ok(()) }
}

/// Without iptables there can be rules of ours that nothing here can remove.
pub fn if_no_tools(scene: &Scene, session: &Session) -> Result<(), Failure> {
    let usable = scene.has_own_table() || scene.iptables.choose(&session.tools).is_some();
    let Some((variant, family)) = look::out_of_reach(&session.tools, &session.record)?.first().copied()
    else {
        return Ok(());
    };
    if usable {
        return Ok(());
    }
    let what = format!(
        "there are {family} tables of the {variant} variant, but no {variant} iptables to read them, so whether \
         anything is installed is not known"
    );
    Err(Failure::new(Exit::Host, what).hint(format!("install the {variant} variant of iptables")))
}

/// Where nothing of ours was found, some may be where nobody can look.
pub fn if_unread(scene: &Scene) -> Result<(), Failure> {
    let found = scene.has_own_table() || scene.iptables.is_installed();
    match scene.unread.first() {
        Some((_, failure)) if !found => Err(failure.clone()),
        _ => Ok(()),
    }
}

/// Rules without comments that look like an installation's: only the user can say whose they are.
pub fn if_unclaimed(situation: &Situation) -> Result<(), Failure> {
    let unclaimed = situation.unclaimed();
    if unclaimed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Failed,
        format!(
            "there is an installation whose rules carry no comments (kumactl 2.8 or older, or --disable-comments), \
             so they are known by their shape alone:{}",
            listed(&unclaimed)
        ),
    )
    .hint("if all of them are the transparent proxy's, run the command again with --adopt; nothing was changed"))
}

/// Rules that an adoption leaves, because they say nothing by which they could be attributed.
pub fn warn_of_doubtful(situation: &Situation) {
    let doubtful = situation.doubtful();
    if doubtful.is_empty() {
        return;
    }
    tracing::warn!(
        "these rules say nothing but their target, so they may belong to the adopted installation or be foreign, and \
         stay:{}",
        listed(&doubtful)
    );
    tracing::info!(target: HINT, "delete by hand what is not wanted, with -D in the place of -A");
}

/// The same rules, each as a command line would add it.
pub fn unattributed(situation: &Situation) -> Vec<String> {
    situation.doubtful().into_iter().map(|(_, rule)| rule.text()).collect()
}

/// Rules of others would lead nowhere once our chains are gone.
pub fn if_chains_in_use(situation: &Situation) -> Result<(), Failure> {
    refuse_jumps(
        &situation.jumps(),
        "run the command again with --force to remove them too; nothing was changed",
    )
}

/// The same for the variant that an installation moves away from.
pub fn if_chains_in_use_elsewhere(situation: &Situation, backend: Backend) -> Result<(), Failure> {
    let elsewhere: Vec<_> =
        situation.jumps().into_iter().filter(|((of, _), _)| backend != Backend::Iptables(*of)).collect();
    refuse_jumps(
        &elsewhere,
        "our chains there have to go; remove these rules, or run 'tproxy uninstall --force' first",
    )
}

fn refuse_jumps(jumps: &[(Place, &SharedRule)], hint: &str) -> Result<(), Failure> {
    if jumps.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("rules of others lead to our chains:{}", listed(jumps)))
        .hint(hint))
}

fn listed(rules: &[(Place, &SharedRule)]) -> String {
    rules.iter().fold(String::new(), |mut list, ((variant, family), rule)| {
        // Writing to a String cannot fail.
        let _ = write!(list, "\n  {family} ({variant}): {}", escape(&rule.text()));
        list
    })
}
