//! An installation that comes undone by itself unless somebody, who by that shows that the host can still be
//! reached, says that it may stay.
//!
//! A second process waits ([`super::wait`]). It is made before anything is changed, it has a session of its own, so
//! neither the end of the terminal nor of the process group reaches it, and what was there before is in its memory. A
//! file says that it waits.
//!
//! The end of the time is in that file, and everybody asks the same clock, that of the boot, whether it is over: the
//! clock on the wall can be set meanwhile, and is only what people are told by.
//!
//! The time runs from before the change. A proof (`--verify`) may last longer: the installing process holds the lock
//! meanwhile, for which the waiting one waits, and lets the time begin anew before it gives the lock away. If it is
//! killed, the lock is free, and the host goes back at the time that was promised first.
//!
//! The waiting process has locked its log. The kernel unlocks it however that process ends; so everybody can see
//! whether an installation still goes back by itself.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::exit::{Exit, Failure};
use crate::present;
use crate::status::words;
use crate::stdout::print;
use crate::sys::detach::{self, Ear, Side, detach};
use crate::sys::{first, signal};

use super::pending::{self, LOG, Pending, on_the_wall, withdraw};
use super::request::Format;
use super::store::{State, Store};
use super::transaction::Session;
use super::undo::Undo;
use super::wait::{BACK, KEPT, Recorded, UNINSTALLED, Waiter};

/// An installation that waits to be confirmed.
#[derive(Debug)]
pub struct Guard {
    files: Store,
    says: Pending,
    /// The log of the other process, which is told by it that the trial is over.
    log: File,
    ear: Ear,
    /// Why this process has to stay, if it has to.
    takes_along: Option<&'static str>,
}

impl Guard {
    /// Starts to wait, before anything is changed; `record` is what will be recorded of the change.
    ///
    /// # Errors
    /// `/run` cannot be written, or there can be no further process.
    pub fn start(
        store: &mut Store,
        session: &Session,
        undo: &Undo,
        record: &State,
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
        let says = Pending::new(files.identity(), time, proving);
        let failed_log = |error| failed("the log of the confirmation", &error);
        let locked = pending::make_log(&files).map_err(failed_log)?;
        // Another open file, so that the lock ends with the other process.
        let log = files.entry(LOG).ok_or_else(|| failed_log(io::ErrorKind::NotFound.into()))?;
        let log = log.file().map_err(|error| failed("the log of the confirmation", &error))?;
        says.put(&files).map_err(|error| failed("the confirmation", &error))?;
        // No other run waits for the lock as long as this process waits for a confirmation.
        match detach(&locked, || store.abandon_lock()) {
            Ok(Side::Here(ear)) => {
                Ok(Self { files, says, log, ear, takes_along: first::takes_others_along() })
            }
            Ok(Side::There(mouth)) => {
                drop(log);
                detach::let_go_of_inherited();
                let record = RefCell::new(Recorded { state: record.clone(), file: None });
                Waiter { files, says, log: locked, record, session, undo, mouth: mouth.into() }.wait()
            }
            Err(error) => {
                withdraw(&files);
                Err(failed("no process to wait for the confirmation", &error))
            }
        }
    }

    /// There is nothing to confirm after all.
    pub fn cancel(self) {
        // By way of its open file, too: the directory may be another one by now.
        if let Err(error) = pending::mark(&self.log) {
            tracing::debug!("{}: {error}", self.log_path().display());
        }
        for files in [&self.files, &self.files.anew()] {
            withdraw(files);
            files.leave();
        }
    }

    /// Lets the time begin now; the lock must still be held. If that cannot be written, it ends as it was to end
    /// before.
    pub fn begin(&mut self, time: Duration) {
        let says = self.says.anew(time);
        match says.put(&self.files) {
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
    pub fn log_path(&self) -> PathBuf {
        self.files.path(LOG)
    }

    /// Says how to confirm, and until when, where people are told; with `stay`, waits for it.
    ///
    /// # Errors
    /// With `stay`: nobody confirmed, and what was there before is back, or the process that waited was killed.
    pub fn announce(mut self, stay: bool, format: Format) -> Result<(), Failure> {
        let tell = |text: &str| match format {
            Format::Text => print(&present::lines(text)),
            Format::Json => Ok(()),
        };
        let until = words::time(self.until());
        let left = self.says.seconds_left();
        let told = tell(&format!(
            "not yet kept: run 'tproxy confirm' from a new connection within {left} s, until {until}, else everything \
             goes back to what it was before\nlog: {}\n",
            self.log_path().display()
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
        let log = self.log_path();
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
