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
//! meanwhile, for which the waiting one waits, and lets the time begin anew before it gives the lock away. If it is
//! killed, the lock is free, and the host goes back at the time that was promised first. For the lock of any other
//! process, and of one that is stopped, the waiting one waits [`TURN`] at most: whoever is locked out waits for nothing
//! else. It then goes back without the lock, and says so in its log.
//!
//! The waiting process has locked its log. The kernel unlocks it however that process ends; so everybody can see
//! whether an installation still goes back by itself.

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
use crate::sys::{first, lock, signal, watch};

use super::install::PATIENCE;
use super::pending::{LOG, PENDING, Pending, UNFINISHED, is_abandoned, on_the_wall, withdraw};
use super::request::Format;
use super::show;
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

/// How long the other process waits for the locks of others before it goes back.
const TURN: Duration = Duration::from_secs(2);

/// How long it waits for the installing process, which may be changing or proving the installation. A proof takes 20 s
/// at most; the rest is for programs that are slow.
const UNDER_WAY: Duration = Duration::from_secs(120);

/// Within this time after its end, an installation that nobody confirmed is gone again, unless the way back fails or
/// the other process is stopped.
const WAY_BACK: Duration = Duration::from_secs(60);

/// An installation that waits to be confirmed.
#[derive(Debug)]
pub struct Guard {
    files: Store,
    says: Pending,
    ear: Ear,
    /// Why this process has to stay, if it has to.
    takes_along: Option<&'static str>,
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
        let failed_log = |error| failed("the log of the confirmation", &error);
        let mut log_file = log.keep(true).map_err(failed_log)?;
        if !lock::keep(&log_file).map_err(failed_log)? {
            // One that waits in vain for an earlier installation, because somebody has stopped it.
            log.remove().map_err(failed_log)?;
            log_file = log.keep(true).map_err(failed_log)?;
            lock::keep(&log_file).map_err(failed_log)?;
        }
        let log_file = begin(log_file, files.identity()).map_err(failed_log)?;
        replace(&files, &text).map_err(|error| failed("the confirmation", &error))?;
        // Whoever waits for a lock must not wait for a process that only waits itself.
        match detach(&log_file, || store.abandon_lock()) {
            Ok(Side::Here(ear)) => Ok(Self { files, says, ear, takes_along: first::takes_others_along() }),
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

    /// Whether the host still goes back when the time is over. The lock must still be held.
    ///
    /// # Errors
    /// The other process has ended, or went back already because this one was stopped too long.
    pub fn check(&mut self) -> Result<(), Failure> {
        match self.ear.has_heard() {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(error) => {
                tracing::warn!(
                    "cannot see whether the process that waits for the confirmation is there: {error}"
                );
                return Ok(());
            }
        }
        let why = match self.ear.listen() {
            Ok(word) if word == BACK => "the time to confirm was over before the installation was complete",
            _ => "the process that waits for the confirmation has ended",
        };
        Err(Failure::new(Exit::Failed, why).hint("install without --confirm, or with a longer time"))
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
    pub fn announce(mut self, stay: bool, format: Format) -> Result<(), Failure> {
        let tell = |text: &str| match format {
            Format::Text => print(text),
            Format::Json => Ok(()),
        };
        let until = words::time(self.until());
        let left = self.says.seconds_left();
        let told = tell(&format!(
            "not yet kept: run 'tproxy confirm' from a new connection within {left} s, until {until}, else everything \
             goes back to what it was before\nlog: {}\n",
            self.log().display()
        ));
        match self.takes_along {
            Some(why) if !stay => tracing::info!("tproxy stays, as with --foreground: {why}"),
            None if first::is_contained() => tracing::info!(
                "nothing goes back once process 1 of this PID namespace has ended, because the kernel kills all others \
                 there with it"
            ),
            _ => {}
        }
        if !stay && self.takes_along.is_none() {
            return told;
        }
        let log = self.log();
        let word = self.word(&until)?;
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

    /// What the other process says at its end. Where that one would be killed with this one, it is asked to go back
    /// before this one does as it is asked.
    fn word(&mut self, until: &str) -> Result<Vec<u8>, Failure> {
        loop {
            let error = match self.ear.listen() {
                Ok(word) => return Ok(word),
                Err(error) => error,
            };
            if self.takes_along.is_none() || signal::interrupted().is_none() {
                return Err(Failure::new(
                    Exit::Failed,
                    format!("{error}; the installation still waits to be confirmed"),
                )
                .hint(format!("run 'tproxy confirm' until {until} to keep it")));
            }
            let asked = self.ear.ask_to_end().and_then(|()| Ok(signal::forget()?));
            asked.map_err(|error| {
                Failure::new(Exit::Left, format!("the installation cannot be taken back: {error}"))
                    .hint("run 'tproxy uninstall' to remove it")
            })?;
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
    let code = match until_the_end(files, says, session, undo, &mouth) {
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
fn until_the_end(
    files: &Store,
    says: &Pending,
    session: &Session,
    undo: &Undo,
    mouth: &fs::File,
) -> Result<End, Failure> {
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
        let back = turn(files, &says, mouth).and_then(|mut store| match says.still(&pending) {
            None => Ok(Some(gone())),
            // The installation or its proof took so long, and now the time to confirm has begun.
            Some(now) if now.until != says.until && !asked => Ok(None),
            Some(_) => {
                let mut session = session.clone();
                session.record.rules = store.load()?.as_ref().map(State::recorded).unwrap_or_default();
                undo.run(&session, &mut store, None)?;
                // Left behind, it would tell of an installation that still waits.
                if let Err(error) = pending.remove().or_else(|_| pending.remove()) {
                    log(&format!("{} cannot be removed: {error}", pending.path().display()));
                }
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

/// The way back's turn: with the lock, or without it where another process keeps it too long.
fn turn(files: &Store, says: &Pending, mouth: &fs::File) -> Result<Store, Failure> {
    let mut store = files.again();
    let longest = Moment::now().plus(UNDER_WAY);
    loop {
        match store.lock(TURN) {
            Ok(()) if store.remembers() => return Ok(store),
            // The first process had the lock: what refuses it now may pass, and the record has to go back too.
            Ok(()) => {
                log(&format!("going back without the lock: {}", store.closed().unwrap_or_default()));
                store.go_without_lock(files);
                return Ok(store);
            }
            Err(failure) if failure.exit != Exit::Busy => return Err(failure),
            // It has not come to the end of its change, or of its proof.
            Err(_) if detach::is_heard(mouth) && says.is_under_way(&store) && !longest.is_over() => {}
            Err(failure) => {
                log(&format!("{}: going back without the lock", failure.message));
                store.go_without_lock(files);
                return Ok(store);
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
    let too_late = || {
        let message = "too late: the time to confirm is over, and the installation goes back";
        Failure::new(Exit::Failed, message)
    };
    let abandoned = is_abandoned(&store);
    if waits.until.is_over() && !abandoned {
        return Err(too_late());
    }
    let there = pending.take().map_err(|error| {
        Failure::new(Exit::Failed, format!("{} cannot be removed: {error}", pending.path().display()))
    })?;
    if !there {
        // The way back did not wait for the lock of this process.
        return Err(too_late());
    }
    let _ = store.entry(LOG).map(|log| log.remove());
    // It does, whether anybody hears of it or not.
    show::tell(if abandoned {
        "confirmed: the installation stays; the process that would have taken it back had ended already, so run \
         'tproxy status' to see whether all of it is there\n"
    } else {
        "confirmed: the installation stays\n"
    });
    Ok(())
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
    if !waits.until.plus(WAY_BACK).is_over() {
        return Err(Failure::new(Exit::Busy, "an installation that nobody confirmed is being taken back")
            .hint("run the command again in a minute"));
    }
    // The one that waits is too late.
    withdraw(store);
    Ok(())
}
