//! The process that waits for a confirmation, and goes back if there is none.
//!
//! What ends its wait is a mark ([`pending::mark`]), never that a file is gone: whoever empties `/run` confirms nothing.
//! What was removed is put back.
//!
//! For the lock of another process than the installing one, and of one that is stopped, it waits [`TURN`] at most:
//! whoever is locked out waits for nothing else. It then goes back without the lock, and says so in its log.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write as _};
use std::time::Duration;

use crate::exit::{Exit, Failure};
use crate::status::words;
use crate::sys::files::Entry;
use crate::sys::moment::Moment;
use crate::sys::{detach, signal, watch};

use super::pending::{self, GOING_BACK, LOG, PENDING, Pending, on_the_wall};
use super::store::{Phase, RECORD, State, Store};
use super::transaction::Session;
use super::undo::Undo;

/// What the waiting process says at its end.
pub(super) const KEPT: &[u8] = b"kept";
pub(super) const UNINSTALLED: &[u8] = b"uninstalled";
pub(super) const BACK: &[u8] = b"back";

/// How long it pauses after a way back that failed; twice as long after each further one, up to the longest.
const AGAIN: Duration = Duration::from_secs(2);
const AGAIN_AT_MOST: Duration = Duration::from_secs(300);

/// How long the other process waits for the locks of others before it goes back.
const TURN: Duration = Duration::from_secs(2);

/// How long it waits for the installing process, which may be changing or proving the installation. A proof takes 20 s
/// at most; the rest is for programs that are slow.
const UNDER_WAY: Duration = Duration::from_secs(120);

/// How it ended.
enum End {
    Kept,
    Uninstalled,
    Back,
}

/// The other process.
pub(super) struct Waiter<'a> {
    /// The first process's: whatever cannot be looked up now, this is the same namespace and directory.
    pub files: Store,
    /// What the file says that waits.
    pub says: Pending,
    /// Its log, which it has locked.
    pub log: File,
    /// What is recorded of the installation.
    pub record: RefCell<Recorded>,
    /// How the machine is looked at.
    pub session: &'a Session,
    /// What was there before.
    pub undo: &'a Undo,
    /// Where it says its word.
    pub mouth: File,
}

/// What a record says, and from which file that is.
pub(super) struct Recorded {
    pub state: State,
    pub file: Option<File>,
}

impl Waiter<'_> {
    /// Waits, and goes back if nobody confirms.
    pub fn wait(mut self) -> ! {
        let (word, code) = match self.until_the_end() {
            Ok(End::Kept) => (KEPT, Exit::Done),
            Ok(End::Uninstalled) => (UNINSTALLED, Exit::Done),
            Ok(End::Back) => {
                log("nobody confirmed in time: what was there before is back");
                (BACK, Exit::Done)
            }
            Err(failure) => {
                log(&failure.message);
                (&b""[..], failure.exit)
            }
        };
        let _ = self.mouth.write_all(word);
        drop(self);
        std::process::exit(code as i32)
    }

    fn until_the_end(&mut self) -> Result<End, Failure> {
        let (mut end, mut again, mut asked) = (self.says.until, AGAIN, false);
        loop {
            // Its place was there when this process was made.
            let Some(pending) = self.files.entry(PENDING) else { return Ok(End::Uninstalled) };
            let same = || self.is_as_it_was(&pending);
            if !watch::while_it_stays(self.files.directory(), end, same) {
                let heeded = self.heed(&pending);
                // What it says now counts, even if not all could be heeded.
                end = self.says.until;
                match heeded {
                    Ok(Some(over)) => return Ok(over),
                    Ok(None) => continue,
                    Err(failure) => {
                        log(&format!("{}; trying again in {AGAIN:?}", failure.message));
                        let left = end.since(Moment::now());
                        if signal::sleep(AGAIN.min(left)).is_ok() && !end.is_over() {
                            continue;
                        }
                    }
                }
            }
            // Nobody would be left to go back later.
            if let Some(number) = signal::interrupted() {
                log(&format!("asked to end by {}: {GOING_BACK} at once", signal::name(number)));
                asked = true;
                // The way back is not cut short.
                if let Err(error) = signal::forget() {
                    tracing::warn!("{error}");
                }
            }
            match self.turn().and_then(|store| self.go_back(store, &pending, asked)) {
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

    /// Whether its files are there and say what they said, if that can be seen now. Remembers what the record says
    /// meanwhile.
    fn is_as_it_was(&self, pending: &Entry) -> Option<bool> {
        self.remember();
        let log = self.files.entry(LOG).map_or(Ok(true), |log| log.is(&self.log)).ok()?;
        let now = self.says.still(pending).ok()?;
        Some(log && now.is_some_and(|now| now.until == self.says.until))
    }

    /// What the file says by now. What it said last holds while it cannot be read.
    fn still(&self, pending: &Entry) -> Option<Pending> {
        self.says.still(pending).unwrap_or_else(|_| Some(self.says.clone()))
    }

    /// The record is lost with its file, but not to the way back.
    fn remember(&self) {
        let Some(entry) = self.files.entry(RECORD) else { return };
        let mut known = self.record.borrow_mut();
        if known.file.as_ref().is_some_and(|file| entry.is(file).unwrap_or(true)) {
            return;
        }
        if let (Ok(file), Ok(Some(state))) = (entry.file(), self.files.load()) {
            *known = Recorded { state, file: Some(file) };
        }
    }

    /// Something was written or removed: why it is over, if it is.
    fn heed(&mut self, pending: &Entry) -> Result<Option<End>, Failure> {
        if let Some(now) = self.still(pending) {
            self.says = now;
            self.put_log_back(&self.files.again()).map_err(|error| cannot_put_back(LOG, &error))?;
            return Ok(None);
        }
        if self.is_marked()? {
            return Ok(Some(self.marked()));
        }
        let mut store = self.files.again();
        store.lock(TURN)?;
        if let Some(end) = self.why_over(&store)? {
            return Ok(Some(end));
        }
        if store.entry(RECORD).is_some_and(|record| record.is_missing()) {
            store.save(&self.record.borrow().state)?;
        }
        self.put_log_back(&store).map_err(|error| cannot_put_back(LOG, &error))?;
        self.says.put(&store).map_err(|error| cannot_put_back(PENDING, &error))?;
        log(
            "the file that says that this installation waits was removed without a confirmation, and is put back",
        );
        self.files = store.again();
        Ok(None)
    }

    /// By it others know that this process waits, and tell it that it need not.
    fn put_log_back(&mut self, files: &Store) -> io::Result<()> {
        let entry = files.entry(LOG).ok_or(io::ErrorKind::NotFound)?;
        if entry.is(&self.log)? {
            return Ok(());
        }
        entry.remove()?;
        let made = pending::make_log(files)?;
        detach::write_to(&made)?;
        self.log = made;
        Ok(())
    }

    fn is_marked(&self) -> Result<bool, Failure> {
        pending::is_marked(&self.log).map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot see whether it is confirmed: {error}"))
        })
    }

    /// How a trial ended that somebody marked as over. An uninstall begins with a note that it is under way.
    fn marked(&self) -> End {
        match self.files.load() {
            Ok(Some(State { phase: Phase::Installed, .. })) => End::Kept,
            _ => End::Uninstalled,
        }
    }

    /// Why there is nothing to go back from although nobody marked it, if so: another installation took its place while
    /// this process was stopped, or nothing is installed at all.
    fn why_over(&self, store: &Store) -> Result<Option<End>, Failure> {
        if self.is_marked()? {
            return Ok(Some(self.marked()));
        }
        let record = self.record.borrow();
        let others = |state: &State| {
            state.config != record.state.config && Some(state.config.as_str()) != self.undo.config()
        };
        let replaced = Pending::read(store)?.is_some_and(|waits| !waits.is_the_trial_of(&self.says))
            || store.load()?.as_ref().is_some_and(others);
        if replaced {
            log("another installation took the place of this one");
            return Ok(Some(End::Uninstalled));
        }
        let mut session = self.session.clone();
        session.record.rules = record.state.recorded();
        let is_gone = session.look()?.installed().is_empty();
        Ok(is_gone.then_some(End::Uninstalled))
    }

    fn go_back(&self, mut store: Store, pending: &Entry, asked: bool) -> Result<Option<End>, Failure> {
        match self.still(pending) {
            None => {
                if let Some(end) = self.why_over(&store)? {
                    return Ok(Some(end));
                }
            }
            // The installation or its proof took so long, and now the time to confirm has begun.
            Some(now) if now.until != self.says.until && !asked => return Ok(None),
            Some(_) => {}
        }
        let mut session = self.session.clone();
        let known = || self.record.borrow().state.recorded();
        session.record.rules = store.load()?.as_ref().map_or_else(known, State::recorded);
        self.undo.run(&session, &mut store, None)?;
        // Left behind, it would tell of an installation that still waits.
        if let Err(error) = pending.remove().or_else(|_| pending.remove()) {
            log(&format!("{} cannot be removed: {error}", pending.path().display()));
        }
        self.files.leave();
        Ok(Some(End::Back))
    }

    /// The way back's turn: with the lock, or without it where another process keeps it too long.
    fn turn(&self) -> Result<Store, Failure> {
        let mut store = self.files.again();
        let longest = Moment::now().plus(UNDER_WAY);
        let under_way = |store: &Store| detach::is_heard(&self.mouth) && self.says.is_under_way(store);
        let why = loop {
            match store.lock(TURN) {
                Ok(()) if store.remembers() => return Ok(store),
                // The first process had the lock: what refuses it now may pass, and the record has to go back too.
                Ok(()) => break store.closed().unwrap_or_default().to_owned(),
                Err(failure) if failure.exit != Exit::Busy => return Err(failure),
                // It has not come to the end of its change, or of its proof.
                Err(_) if under_way(&store) && !longest.is_over() => {}
                Err(failure) => break failure.message,
            }
        };
        log(&format!("{why}: {GOING_BACK} without the lock"));
        store.go_without_lock(&self.files);
        Ok(store)
    }
}

fn cannot_put_back(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("the file '{what}' of this trial was removed and cannot be put back: {error}"),
    )
}

/// The other process has the log as its stderr; this belongs there whatever else is logged.
fn log(line: &str) {
    let _ = writeln!(io::stderr(), "{} {line}", words::time(on_the_wall(Moment::now())));
}
