//! What was there before a run, and the way back to it.

use crate::backend::firewalld::Backup;
use crate::exit::Failure;
use crate::host::{self, Interfaces, PASSTHROUGH};

use super::passthrough::Passthrough;
use super::persist;
use super::scene::{Goal, Scene};
use super::store::{State, Store};
use super::transaction::Session;

/// What was there before a run.
#[derive(Debug, Clone)]
pub struct Undo {
    rules: Goal,
    passthrough: bool,
    state: Option<State>,
    direct_xml: Option<Backup>,
}

impl Undo {
    /// Remembers it.
    pub fn new(scene: &Scene, interfaces: &Interfaces, state: Option<&State>) -> Self {
        Self {
            rules: scene.as_goal(),
            passthrough: interfaces.has(PASSTHROUGH),
            state: state.cloned(),
            direct_xml: persist::backup(),
        }
    }

    /// Goes back to it. What others changed since then stays.
    ///
    /// # Errors
    /// Rules are left that should not be, or missing ([`crate::exit::Exit::Left`]). The state file then stays as it
    /// is: it says that a change was under way.
    pub fn run(&self, session: &Session, store: &mut Store) -> Result<(), Failure> {
        session.take_back(&self.rules)?;
        let interfaces = host::interfaces()?;
        if let Err(error) = Passthrough::new(&interfaces, true).bring(self.passthrough) {
            tracing::warn!("the address ::6 on {} could not be put back: {error}", interfaces.loopback());
        }
        if let Some(Err(failure)) = self.direct_xml.as_ref().map(Backup::put_back) {
            tracing::warn!("{failure}");
        }
        if let Some(state) = &self.state {
            return store.save(state);
        }
        store.remove();
        Ok(())
    }

    /// Goes back after a failure, and says in its message how that went.
    #[must_use]
    pub fn after(&self, failure: Failure, session: &Session, store: &mut Store) -> Failure {
        match self.run(session, store) {
            Ok(()) => {
                Failure { message: format!("{}\nthe host is as it was before", failure.message), ..failure }
            }
            Err(left) => Failure { message: format!("{}\n{}", failure.message, left.message), ..left },
        }
    }
}
