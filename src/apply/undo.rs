//! What was there before a run, and the way back to it.
//!
//! Whatever goes wrong on the way back ends in [`Exit::Left`]: what is left is named, and a trial's other process
//! keeps waiting, because it may succeed later.

use crate::backend::firewalld::{Backup, DIRECT_XML};
use crate::exit::{Exit, Failure};
use crate::host::{self, Interfaces, PASSTHROUGH};

use super::found::Found;
use super::journal::Journal;
use super::passthrough::Passthrough;
use super::persist;
use super::scene::{Goal, Scene};
use super::store::{RECORD, Store};
use super::transaction::Session;

/// What was there before a run.
#[derive(Debug, Clone)]
pub struct Undo {
    rules: Goal,
    passthrough: bool,
    record: Found,
    /// Whether the run stores rules in firewalld's file.
    stores: bool,
    direct_xml: Option<Backup>,
}

impl Undo {
    /// Remembers it. `stores` says that the run stores rules in firewalld's file.
    pub fn new(scene: &Scene, interfaces: &Interfaces, record: &Found, stores: bool) -> Self {
        Self {
            rules: scene.as_goal(),
            passthrough: interfaces.has(PASSTHROUGH),
            record: record.clone(),
            stores,
            direct_xml: persist::backup(stores),
        }
    }

    /// The configuration that was recorded before, in the text of its file.
    pub fn config(&self) -> Option<&str> {
        match &self.record {
            Found::Record(state) => Some(&state.config),
            Found::Unusable(_) | Found::Missing => None,
        }
    }

    /// firewalld's file is about to change.
    pub fn before_firewalld(&mut self, journal: &mut Journal) {
        // What could not be read at the beginning can perhaps be now, and is still as it was.
        if self.direct_xml.is_none() {
            self.direct_xml = persist::backup(self.stores);
        }
        journal.touches_firewalld();
    }

    /// Goes back to it. What others changed since then stays. `journal` says what the run may have changed; without it
    /// that may be anything.
    ///
    /// # Errors
    /// Something is left that should not be, or missing ([`Exit::Left`]). The state file then stays as it is: it says
    /// that a change was under way.
    pub fn run(
        &self,
        session: &Session,
        store: &mut Store,
        journal: Option<&Journal>,
    ) -> Result<(), Failure> {
        let mut failures = Vec::new();
        let rules = journal.is_none_or(Journal::has_rules).then(|| session.take_back(&self.rules, journal));
        match rules {
            // Rules that are left need the address.
            Some(Err(failure)) => {
                let address = journal.and_then(Journal::address).map_or(String::new(), |interface| {
                    format!("\n  the address ::6 of {interface}, which IPv6 rules need")
                });
                failures.push(Failure { message: failure.message + &address, ..failure });
            }
            _ if journal.is_none_or(|journal| journal.address().is_some()) => {
                failures.extend(self.take_back_address(session).err());
            }
            _ => {}
        }
        if journal.is_none_or(Journal::has_firewalld) {
            failures.extend(self.take_back_file(session).err());
        }
        if failures.is_empty() {
            failures.extend(self.take_back_record(store).err());
        }
        if failures.is_empty() {
            return Ok(());
        }
        let hint = failures.iter().find_map(|failure| failure.hint.clone());
        let messages: Vec<_> = failures.into_iter().map(|failure| failure.message).collect();
        Err(Failure { hint, ..Failure::new(Exit::Left, messages.join("\n")) })
    }

    fn take_back_address(&self, session: &Session) -> Result<(), Failure> {
        let patience = session.patience.on_the_way_back();
        let word = if self.passthrough { "missing" } else { "there" };
        let interfaces = patience.persist(host::interfaces).map_err(|failure| {
            Failure::new(Exit::Left, format!("{failure}; the address ::6 of it is perhaps still {word}"))
        })?;
        let mut passthrough = Passthrough::new(&interfaces, true);
        patience.persist(|| passthrough.bring(self.passthrough)).map_err(|error| {
            let name = interfaces.loopback();
            let (what, command) =
                if self.passthrough { ("put back on", "add") } else { ("removed from", "del") };
            let message = format!("the address ::6 could not be {what} {name}: {error}; it is still {word}");
            Failure::new(Exit::Left, message).hint(format!("run 'ip -6 addr {command} ::6/128 dev {name}'"))
        })
    }

    fn take_back_file(&self, session: &Session) -> Result<(), Failure> {
        // What could not be read was not written either.
        let Some(backup) = &self.direct_xml else { return Ok(()) };
        let patience = session.patience.on_the_way_back();
        let edited = patience.persist(|| backup.put_back()).map_err(|failure| {
            let message = format!("{failure}; {DIRECT_XML} is perhaps still as this run wrote it");
            Failure { message, exit: Exit::Left, ..failure }
        })?;
        if edited {
            tracing::warn!(
                "{DIRECT_XML} was changed by others meanwhile: that stays, and tproxy's part is as before"
            );
        }
        Ok(())
    }

    fn take_back_record(&self, store: &mut Store) -> Result<(), Failure> {
        const LEFT: &str =
            "all else is as it was before, but that file still says that a change is under way";
        let put_back = match &self.record {
            Found::Record(state) => Some(store.save(state)),
            Found::Unusable(Some(text)) => Some(store.restore(text)),
            Found::Unusable(None) | Found::Missing => None,
        };
        if let Some(done) = put_back {
            return done.map_err(|failure| Failure {
                message: format!("{failure}; {LEFT}"),
                exit: Exit::Left,
                ..failure
            });
        }
        let record = store.path(RECORD);
        let was_ours = store.remembers();
        store.remove();
        if was_ours && record.symlink_metadata().is_ok() {
            let message = format!("{} could not be removed; {LEFT}", record.display());
            return Err(Failure::new(Exit::Left, message).hint("remove that file"));
        }
        Ok(())
    }

    /// Goes back after a failure, and says in its message how that went.
    #[must_use]
    pub fn after(
        &self,
        failure: Failure,
        session: &Session,
        store: &mut Store,
        journal: &Journal,
    ) -> Failure {
        match self.run(session, store, Some(journal)) {
            Ok(()) => {
                Failure { message: format!("{}\nthe host is as it was before", failure.message), ..failure }
            }
            Err(left) => Failure { message: format!("{}\n{}", failure.message, left.message), ..left },
        }
    }
}
