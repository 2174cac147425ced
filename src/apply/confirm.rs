//! An installation that comes undone by itself unless somebody, who by that shows that the host can still be
//! reached, says that it may stay.
//!
//! A second process waits. It is made before anything is changed, it has a session of its own, so neither the end
//! of the terminal nor of the process group reaches it, and what was there before is in its memory. A file says
//! that it waits; `tproxy confirm` removes that file.
//!
//! The end of the time is in that file, and everybody asks the same clock, that of the boot, whether it is over: the
//! clock on the wall can be set meanwhile, and is only what people are told by.
//!
//! The time runs from before the change. A proof (`--verify`) may last longer: the installing process holds the lock
//! meanwhile, which the waiting one needs to go back, and lets the time begin anew before it gives the lock away. If
//! it is killed, the lock is free, and the host goes back at the time that was promised first.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use crate::exit::{Exit, Failure};
use crate::status::words;
use crate::stdout::print;
use crate::sys::detach::{self, Ear, Side, detach};
use crate::sys::moment::Moment;
use crate::sys::netns::Identity;
use crate::sys::{signal, watch};

use super::install::PATIENCE;
use super::pending::{LOG, PENDING, Pending, UNFINISHED, on_the_wall, withdraw};
use super::request::Format;
use super::stop;
use super::store::{Phase, State, Store};
use super::transaction::Session;
use super::undo::Undo;

/// What the waiting process says at its end.
const KEPT: &[u8] = b"kept";
const UNINSTALLED: &[u8] = b"uninstalled";
const BACK: &[u8] = b"back";

/// How long it pauses after a way back that failed; twice as long after each further one, up to the longest.
const AGAIN: Duration = Duration::from_secs(2);
const AGAIN_AT_MOST: Duration = Duration::from_secs(300);

/// How long the other process may wait for its turn before it goes back.
const TURN: Duration = Duration::from_secs(2 * PATIENCE.as_secs());

/// Within this time after its end, an installation that nobody confirmed is gone again, unless the other process
/// was killed.
const WAY_BACK: Duration = Duration::from_secs(TURN.as_secs() + 10);

/// An installation that waits to be confirmed.
#[derive(Debug)]
pub struct Guard {
    files: Store,
    says: Pending,
    ear: Ear,
}

impl Guard {
    /// Starts to wait, before anything is changed.
    ///
    /// # Errors
    /// `/run` cannot be written, or there can be no further process.
    pub fn start(
        store: &mut Store,
        session: &Session,
        undo: &Undo,
        time: Duration,
        proving: bool,
    ) -> Result<Self, Failure> {
        let (files, true) = (store.again(), store.remembers()) else {
            let why = store.closed().unwrap_or_default();
            let message = "an installation cannot wait for its confirmation without a writable /run";
            return Err(
                Failure::new(Exit::Host, format!("{message}: {why}")).hint("install without --confirm")
            );
        };
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(Exit::Failed, format!("{what}: {error}; nothing was changed"))
        };
        let (Some(pending), Some(log)) = (files.entry(PENDING), files.entry(LOG)) else {
            return Err(failed("the confirmation", &"there is no place for it"));
        };
        let says = Pending::new(files.identity(), time, proving);
        let text = serde_json::to_vec(&says).map_err(|error| failed("the confirmation", &error))?;
        let log_file = log.keep(true).and_then(|file| begin(file, files.identity()));
        let log_file = log_file.map_err(|error| failed("the log of the confirmation", &error))?;
        replace(&files, &text).map_err(|error| failed("the confirmation", &error))?;
        // Whoever waits for a lock must not wait for a process that only waits itself.
        match detach(&log_file, || store.abandon_lock()) {
            Ok(Side::Here(ear)) => Ok(Self { files, says, ear }),
            Ok(Side::There(mouth)) => {
                detach::let_go_of_inherited();
                wait(&files, &says, session, undo, mouth)
            }
            Err(error) => {
                let _ = pending.remove();
                let _ = log.remove();
                Err(failed("no process to wait for the confirmation", &error))
            }
        }
    }

    /// There is nothing to confirm after all.
    pub fn cancel(self) {
        withdraw(&self.files);
        self.files.leave();
    }

    /// Lets the time begin now; the lock must still be held. If that cannot be written, it ends as it was to end
    /// before.
    pub fn begin(&mut self, time: Duration) {
        let says = self.says.anew(time);
        let written =
            serde_json::to_vec(&says).map_err(io::Error::from).and_then(|text| replace(&self.files, &text));
        match written {
            Ok(()) => self.says = says,
            Err(error) => tracing::warn!("the time to confirm cannot be written anew: {error}"),
        }
    }

    /// Until when it has to be confirmed, on the clock on the wall in seconds since 1970.
    pub fn until(&self) -> u64 {
        on_the_wall(self.says.until)
    }

    /// Where is written what became of it.
    pub fn log(&self) -> PathBuf {
        self.files.path(LOG)
    }

    /// Says how to confirm, and until when, where people are told; with `stay`, waits for it.
    ///
    /// # Errors
    /// With `stay`: nobody confirmed, and what was there before is back, or the process that waited was killed.
    pub fn announce(self, stay: bool, format: Format) -> Result<(), Failure> {
        let tell = |text: &str| match format {
            Format::Text => print(text),
            Format::Json => Ok(()),
        };
        let until = words::time(self.until());
        let left = self.says.seconds_left();
        tell(&format!(
            "not yet kept: run 'tproxy confirm' from a new connection within {left} s, until {until}, else everything \
             goes back to what it was before\nlog: {}\n",
            self.log().display()
        ))?;
        if !stay {
            return Ok(());
        }
        let log = self.log();
        let word = self.ear.listen().map_err(|error| {
            Failure::new(Exit::Failed, format!("{error}; the installation still waits to be confirmed"))
                .hint(format!("run 'tproxy confirm' until {until} to keep it"))
        })?;
        match word.as_slice() {
            KEPT => tell("confirmed: the installation stays\n"),
            UNINSTALLED => Err(Failure::new(Exit::Failed, "not confirmed: it was uninstalled meanwhile")),
            BACK => Err(Failure::new(Exit::Failed, "nobody confirmed: what was there before is back")
                .hint(format!("{} has the details", log.display()))),
            _ => Err(Failure::new(
                Exit::Left,
                "the process that waited has ended; whether the host went back is not known",
            )
            .hint("run 'tproxy status' to see what is there")),
        }
    }
}

/// A new log begins with the network namespace, as links in `/proc` name it; later runs go by that.
fn begin(mut log: fs::File, identity: &Identity) -> io::Result<fs::File> {
    if let (Some(inode), 0) = (identity.inode, log.metadata()?.len()) {
        writeln!(log, "{} a trial in net:[{inode}]", words::time(on_the_wall(Moment::now())))?;
    }
    Ok(log)
}

/// Puts the file in place that says that an installation waits.
fn replace(files: &Store, text: &[u8]) -> io::Result<()> {
    match (files.entry(PENDING), files.entry(UNFINISHED)) {
        (Some(pending), Some(unfinished)) => pending.replace(&unfinished, text),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// How it ended.
enum End {
    Kept,
    Uninstalled,
    Back,
}

/// The other process: waits, and goes back if nobody confirms.
fn wait(files: &Store, says: &Pending, session: &Session, undo: &Undo, mouth: OwnedFd) -> ! {
    let mut mouth = fs::File::from(mouth);
    let code = match until_the_end(files, says, session, undo) {
        Ok(End::Kept) => {
            let _ = mouth.write_all(KEPT);
            Exit::Done
        }
        Ok(End::Uninstalled) => {
            let _ = mouth.write_all(UNINSTALLED);
            Exit::Done
        }
        Ok(End::Back) => {
            log("nobody confirmed in time: what was there before is back");
            let _ = mouth.write_all(BACK);
            Exit::Done
        }
        Err(failure) => {
            log(&failure.message);
            failure.exit
        }
    };
    drop(mouth);
    std::process::exit(code as i32)
}

/// `files` is the first process's: whatever cannot be looked up now, this is the same namespace and directory.
fn until_the_end(files: &Store, says: &Pending, session: &Session, undo: &Undo) -> Result<End, Failure> {
    // Its place was there when this process was made.
    let Some(pending) = files.entry(PENDING) else { return Ok(End::Uninstalled) };
    let mut says = says.clone();
    // An uninstall begins with a note that it is under way.
    let gone = || match files.load() {
        Ok(Some(State { phase: Phase::Installed, .. })) => End::Kept,
        _ => End::Uninstalled,
    };
    let (mut end, mut again, mut asked) = (says.until, AGAIN, false);
    loop {
        let same = || says.still(&pending).is_some_and(|now| now.until == says.until);
        match watch::while_it_stays(files.directory(), end, same) {
            // Better back too early than never.
            Err(error) => tracing::warn!("waiting failed: {error}"),
            Ok(true) => {}
            Ok(false) => match says.still(&pending) {
                None => return Ok(gone()),
                Some(now) => {
                    says = now;
                    end = says.until;
                    continue;
                }
            },
        }
        // Nobody would be left to go back later.
        if let Some(number) = signal::interrupted() {
            log(&format!("asked to end by {}: going back at once", signal::name(number)));
            asked = true;
            // The way back is not cut short.
            if let Err(error) = signal::forget() {
                tracing::warn!("{error}");
            }
        }
        let mut store = files.again();
        let back = store.lock(TURN).and_then(|()| match says.still(&pending) {
            None => Ok(Some(gone())),
            // The installation or its proof took so long, and now the time to confirm has begun.
            Some(now) if now.until != says.until && !asked => Ok(None),
            Some(_) => {
                let mut session = session.clone();
                session.record.rules = store.load()?.as_ref().map(State::recorded).unwrap_or_default();
                undo.run(&session, &mut store, None)?;
                let _ = pending.remove();
                files.leave();
                Ok(Some(End::Back))
            }
        });
        match back {
            Ok(Some(end)) => return Ok(end),
            Ok(None) => {}
            // Whoever is locked out waits for nothing else.
            Err(failure) => {
                log(&format!("{}; trying again in {again:?}", failure.message));
                end = Moment::now().plus(again);
                again = AGAIN_AT_MOST.min(again * 2);
            }
        }
    }
}

/// The other process has the log as its stderr; this belongs there whatever else is logged.
fn log(line: &str) {
    let _ = writeln!(std::io::stderr(), "{} {line}", words::time(on_the_wall(Moment::now())));
}

/// `tproxy confirm`.
///
/// # Errors
/// Nothing waits to be confirmed, or no longer.
pub fn confirm() -> Result<(), Failure> {
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
    if waits.until.is_over() {
        return Err(Failure::new(
            Exit::Failed,
            "too late: the time to confirm is over, and the installation goes back",
        ));
    }
    pending.remove().map_err(|error| {
        Failure::new(Exit::Failed, format!("{} cannot be removed: {error}", pending.path().display()))
    })?;
    let _ = store.entry(LOG).map(|log| log.remove());
    print("confirmed: the installation stays\n")
}

/// Another installation must not begin while one waits: it would not know what to go back to. Nor while that one is
/// being taken back: it would be taken back too.
///
/// # Errors
/// One waits.
pub fn stop_if_pending(store: &Store) -> Result<(), Failure> {
    let Some(waits) = Pending::read(store)? else {
        // It tells of nothing that still waits.
        let _ = store.entry(PENDING).map(|pending| pending.remove());
        return Ok(());
    };
    if !waits.until.is_over() {
        let left = waits.seconds_left();
        return Err(Failure::new(
            Exit::Busy,
            format!("an installation waits to be confirmed, for {left} s more"),
        )
        .hint("run 'tproxy confirm' to keep it, or 'tproxy uninstall' to remove it"));
    }
    if !waits.until.plus(WAY_BACK).is_over() {
        return Err(Failure::new(Exit::Busy, "an installation that nobody confirmed is being taken back")
            .hint("run the command again in a minute"));
    }
    // Whoever waited is dead, or too late.
    withdraw(store);
    Ok(())
}
