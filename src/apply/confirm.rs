//! `tproxy confirm`, and what another run has to know of an installation that waits for it.

use std::fs::File;
use std::time::Duration;

use crate::exit::{Exit, Failure};
use crate::present;
use crate::sys::signal;

use super::install::PATIENCE;
use super::pending::{self, LOG, PENDING, Pending, is_abandoned, withdraw};
use super::request::Format;
use super::show;
use super::stop;
use super::store::Store;

/// Within this time after its end, an installation that nobody confirmed is gone again, unless the way back fails or
/// the other process is stopped.
const WAY_BACK: Duration = Duration::from_secs(60);

/// How often the log is looked for that the other process puts back, and how long in between.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// `tproxy confirm`.
///
/// # Errors
/// Nothing waits to be confirmed, or no longer.
pub fn confirm(format: Format) -> Result<(), Failure> {
    stop::unless_root("run it with sudo")?;
    let nothing =
        || Failure::new(Exit::Failed, "no installation waits to be confirmed, or it was taken back already");
    let mut store = Store::unlocked()?;
    if let Some(why) = store.closed() {
        return Err(Failure::new(
            Exit::Host,
            format!("no installation can wait to be confirmed here: {why}"),
        ));
    }
    if Pending::read(&store)?.is_none() {
        return Err(nothing());
    }
    store.lock(PATIENCE)?;
    let (Some(waits), Some(pending)) = (Pending::read(&store)?, store.entry(PENDING)) else {
        return Err(nothing());
    };
    let too_late = || {
        let message = "too late: the time to confirm is over, and the installation goes back";
        Failure::new(Exit::Failed, message)
    };
    let abandoned = is_abandoned(&store);
    let stopped = pending::stopped(&store).is_some();
    if waits.until.is_over() && !abandoned && (!stopped || pending::is_going_back(&store)) {
        return Err(too_late());
    }
    // Without it, the other process would take the confirmation for a file that somebody has lost.
    let told = log(&store)?;
    pending::mark(&told).map_err(|error| {
        Failure::new(Exit::Failed, format!("{} cannot be marked: {error}", store.path(LOG).display()))
    })?;
    let there = pending.take().map_err(|error| {
        Failure::new(Exit::Failed, format!("{} cannot be removed: {error}", pending.path().display()))
    })?;
    if !there {
        // The way back did not wait for the lock of this process.
        return Err(too_late());
    }
    let _ = store.entry(LOG).map(|log| log.remove());
    // It does, whether anybody hears of it or not.
    show::tell(&match format {
        Format::Json => present::confirmed_json(abandoned),
        Format::Text => present::confirmed_text(abandoned),
    });
    Ok(())
}

/// The log of the process that waits. Where somebody removed it, that one puts it back at once.
fn log(store: &Store) -> Result<File, Failure> {
    let lost = |why: &dyn std::fmt::Display| {
        let message =
            format!("cannot confirm to the process that waits: {}: {why}", store.path(LOG).display());
        Failure::new(Exit::Failed, message).hint(
            "run 'tproxy uninstall' to remove the installation, or 'tproxy install' when the time is over",
        )
    };
    for _ in 0..LOOKS {
        match store.entry(LOG).map(|log| log.file()) {
            Some(Ok(log)) => return Ok(log),
            Some(Err(error)) if !error.is_missing() => return Err(lost(&error)),
            _ => {}
        }
        signal::sleep(PAUSE).map_err(|interrupted| Failure::new(Exit::Failed, interrupted.to_string()))?;
    }
    Err(lost(&"it was removed"))
}

/// Another installation must not begin while one waits: it would not know what to go back to. Nor while that one is
/// being taken back: it would be taken back too.
///
/// # Errors
/// One waits.
pub fn stop_if_pending(store: &Store) -> Result<(), Failure> {
    let Some(waits) = Pending::read(store)? else {
        // It tells of nothing that still waits.
        if store.entry(PENDING).is_some_and(|pending| !pending.is_missing()) {
            withdraw(store);
        }
        return Ok(());
    };
    if is_abandoned(store) {
        tracing::warn!(
            "the installation that waited to be confirmed is replaced: the process that would have taken it back has ended"
        );
        withdraw(store);
        return Ok(());
    }
    if !waits.until.is_over() {
        let left = waits.seconds_left();
        return Err(Failure::new(
            Exit::Busy,
            format!("an installation waits to be confirmed, for {left} s more"),
        )
        .hint("run 'tproxy confirm' to keep it, or 'tproxy uninstall' to remove it"));
    }
    if waits.until.plus(WAY_BACK).is_over() {
        // The one that waits is too late.
        withdraw(store);
        return Ok(());
    }
    Err(match pending::stopped(store) {
        Some(pid) => Failure::new(
            Exit::Busy,
            format!("an installation that nobody confirmed is not taken back, because process {pid} is stopped"),
        )
        .hint(format!(
            "run 'kill -CONT {pid}' to take it back, 'tproxy confirm' to keep it, or 'tproxy uninstall' to remove it"
        )),
        None => Failure::new(Exit::Busy, "an installation that nobody confirmed is being taken back")
            .hint("run the command again in a minute"),
    })
}
