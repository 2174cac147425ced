//! What a run leaves for the next one: a lock, so that there is only one at a time, and a state file, one of each
//! for every network namespace, in `/run/tproxy`.
//!
//! That lock is a file, and also a name of the network namespace: two containers of a pod have the same rules and
//! different files.
//!
//! The state is a hint, never the truth: the truth is in the kernel. It is needed for rules without comments and
//! for what was added beside rules. Where `/run` cannot be written, a run does without both and says so.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::closed::{cannot_be, distrust, is_lacking, say_once, unread};
use super::found::{Found, is_missing};
pub use super::state::{Phase, State};
use crate::exit::{Exit, Failure};
use crate::sys::files::{Dir, Entry, NoDir};
use crate::sys::lock::{self, FileLock, Holder, LockError};
use crate::sys::netns::{self, Identity};
use crate::sys::turn::{self, TurnError};
use crate::verify::turn::Turn;

/// Where state and locks are, in memory: what they describe does not survive a restart either.
pub(super) const DIRECTORY: &str = "/run/tproxy";

/// Of the lock that belongs to the network namespace.
const NAME: &str = "tproxy lock";

/// How often the directory is made again that somebody removed at the same time.
const DIRECTORY_TRIES: usize = 100;

/// What the name of the state file ends in.
pub const RECORD: &str = "json";

/// What the name of the file ends in that says that an installation waits to be confirmed.
pub(super) const PENDING: &str = "pending";

/// What the name of the lock ends in.
pub(super) const LOCK: &str = "lock";

/// What the name of the file ends in that it is written as first; a run that is killed meanwhile leaves it.
pub(super) const UNFINISHED: &str = "new";

/// The same of the file that says that an installation waits to be confirmed.
pub(super) const UNFINISHED_PENDING: &str = "pending.new";

/// The longest record, in bytes: a configuration and its rules, with room to spare.
pub(super) const LARGEST: u64 = 64 << 20;

/// The lock and the state file of this network namespace.
#[derive(Debug)]
pub struct Store {
    place: Place,
    identity: Identity,
    lock: Option<FileLock>,
    /// The same among all processes of the network namespace, whatever files they see.
    namespace: Option<turn::Turn>,
    /// Beside the lock, the turn to verify.
    turn: Option<Turn>,
    usable: bool,
}

/// The directory of all network namespaces.
#[derive(Debug, Clone)]
enum Place {
    /// Nobody else can write it.
    Ours(Dir),
    /// It is not there yet.
    Missing,
    /// It is not to be used.
    Closed(String),
}

impl Store {
    /// Takes the lock, waiting so long for another run at most.
    ///
    /// # Errors
    /// Another run holds the lock ([`Exit::Busy`]). A directory that cannot be written is no error.
    pub fn open(wait: Duration) -> Result<Self, Failure> {
        let mut store = Self::unlocked()?;
        store.lock(wait)?;
        Ok(store)
    }

    /// For reading only, as long as it is not locked. Directory and namespace are looked up here and nowhere else.
    ///
    /// # Errors
    /// The network namespace has no identity, or either cannot be looked up now. A directory that is missing, or that
    /// others can write, is no error.
    pub fn unlocked() -> Result<Self, Failure> {
        let identity = netns::identity().map_err(|error| {
            // What a host does not have is told from what fails now by having no number.
            let exit = if error.raw_os_error().is_none() { Exit::Host } else { Exit::Failed };
            Failure::new(exit, format!("cannot identify this network namespace: {error}"))
        })?;
        say_once(&identity.notes);
        let place = match Dir::open(Path::new(DIRECTORY)) {
            Ok(dir) => Place::Ours(dir),
            Err(NoDir::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Place::Missing,
            // What is there belongs to root, who is refused that by no host for good.
            Err(NoDir::Io { source, .. })
                if is_lacking(&source) && source.raw_os_error() != Some(Errno::EPERM as i32) =>
            {
                Place::Closed(cannot_be("read", &source))
            }
            Err(error @ NoDir::Io { .. }) => return Err(Failure::new(Exit::Failed, error.to_string())),
            Err(NoDir::Foreign(why)) => Place::Closed(distrust(why)),
        };
        Ok(Self::at(place, identity))
    }

    /// The same files for another process or a later time, not locked.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::at(self.place.clone(), self.identity.clone())
    }

    /// The same files, in the directory that has its name now.
    #[must_use]
    pub fn anew(&self) -> Self {
        let place = Dir::open(Path::new(DIRECTORY)).map_or_else(|_| self.place.clone(), Place::Ours);
        Self::at(place, self.identity.clone())
    }

    fn at(place: Place, identity: Identity) -> Self {
        Self { place, identity, lock: None, namespace: None, turn: None, usable: false }
    }

    /// Takes the lock, waiting so long for another run at most.
    ///
    /// # Errors
    /// As those of [`Store::open`].
    pub fn lock(&mut self, wait: Duration) -> Result<(), Failure> {
        let start = Instant::now();
        // An uninstall that ends just now takes the directory away under whoever waits for its lock.
        let mut locked = self.lock_file(wait);
        for _ in 0..DIRECTORY_TRIES {
            let Err(LockError::Io { source, .. }) = &locked else { break };
            if source.kind() != io::ErrorKind::NotFound || matches!(self.place, Place::Closed(_)) {
                break;
            }
            self.place = Place::Missing;
            locked = self.lock_file(wait);
        }
        match locked {
            Ok(lock) => {
                // A killed run's restore program goes on; the next run must not look before it has ended.
                if let Err(error) = lock.share_with_children() {
                    tracing::debug!("the lock is not shared with children: {error}");
                }
                self.lock = Some(lock);
                self.usable = true;
            }
            // It was said why.
            Err(LockError::Io { .. }) if matches!(self.place, Place::Closed(_)) => {}
            Err(LockError::Io { source, .. }) if is_lacking(&source) => {
                let why = cannot_be("written", &source);
                tracing::info!("no record of this run, and no lock file: {why}");
                self.place = Place::Closed(why);
            }
            Err(error @ LockError::Busy { .. }) => return Err(busy(&error)),
            Err(error @ (LockError::Interrupted { .. } | LockError::Io { .. })) => {
                return Err(Failure::new(Exit::Failed, error.to_string()));
            }
        }
        self.namespace = namespace(wait.saturating_sub(start.elapsed()))?;
        Ok(())
    }

    /// Goes on without the lock, which another process has or the kernel refuses now, with the directory of `files`.
    pub fn go_without_lock(&mut self, files: &Self) {
        self.place = files.place.clone();
        self.usable = matches!(self.place, Place::Ours(_));
    }

    /// Removes what a run that was killed has left half-written. The lock must be held.
    ///
    /// # Errors
    /// Something has one of these names that cannot be removed: nothing could be written by way of it either.
    pub fn sweep_unfinished(&self) -> Result<(), Failure> {
        for entry in [UNFINISHED, UNFINISHED_PENDING].into_iter().filter_map(|kind| self.entry(kind)) {
            if !self.usable {
                continue;
            }
            entry.remove().map_err(|error| {
                let message = format!(
                    "{} is in the way of a file and cannot be removed: {error}",
                    entry.path().display()
                );
                Failure::new(Exit::Failed, message).hint("look what it is, and remove it")
            })?;
        }
        Ok(())
    }

    fn lock_file(&mut self, wait: Duration) -> Result<FileLock, LockError> {
        let closed = || LockError::Io { path: DIRECTORY.into(), source: Errno::EACCES.into() };
        match &self.place {
            Place::Closed(_) => return Err(closed()),
            Place::Ours(_) => {}
            Place::Missing => match Dir::make(Path::new(DIRECTORY)) {
                Ok(dir) => self.place = Place::Ours(dir),
                Err(NoDir::Io { path, source }) => return Err(LockError::Io { path, source }),
                Err(NoDir::Foreign(why)) => {
                    self.place = Place::Closed(distrust(why));
                    return Err(closed());
                }
            },
        }
        let lock = self.entry(LOCK).ok_or_else(closed)?;
        FileLock::acquire(&lock, wait)
    }

    /// Who holds the lock now, as far as that can be seen.
    pub fn holder(&self) -> Option<Holder> {
        lock::holder(&self.path(LOCK))
    }

    /// Reads what is kept here, and no more: on a file system that does not answer that waits.
    ///
    /// # Errors
    /// Something has the name of a file and is none ([`Exit::Usage`]).
    pub fn must_answer(&self) -> Result<(), Failure> {
        for entry in [RECORD, PENDING].into_iter().filter_map(|kind| self.entry(kind)) {
            if let Err(error) = entry.read(LARGEST).map(drop)
                && error.is_misnamed()
            {
                return Err(unread(&entry.path(), &error));
            }
        }
        Ok(())
    }

    /// The directory of all network namespaces, where nobody else can write it.
    pub(super) fn dir(&self) -> Option<&Dir> {
        match &self.place {
            Place::Ours(dir) => Some(dir),
            Place::Missing | Place::Closed(_) => None,
        }
    }

    /// Why nothing is kept here, if nothing can be.
    pub fn closed(&self) -> Option<&str> {
        match &self.place {
            Place::Closed(why) => Some(why),
            _ => None,
        }
    }

    /// What tells this network namespace, and this start of the machine, from others.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether what is saved here will be found again.
    pub fn remembers(&self) -> bool {
        self.usable
    }

    /// What the last run left. A text that is no record is passed over.
    ///
    /// # Errors
    /// There is something, but it is no file ([`Exit::Usage`]), or it cannot be read now.
    pub fn load(&self) -> Result<Option<State>, Failure> {
        self.find().map(Found::state)
    }

    /// The same, which also tells no record from one that cannot be used.
    ///
    /// # Errors
    /// As those of [`Store::load`].
    pub fn find(&self) -> Result<Found, Failure> {
        match self.entry(RECORD) {
            Some(record) => Found::read(&record),
            None if is_missing(&self.path(RECORD)) => Ok(Found::Missing),
            // It was said why.
            None => Ok(Found::Unusable(None)),
        }
    }

    /// Replaces the state, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written although the directory could be locked.
    pub fn save(&self, state: &State) -> Result<(), Failure> {
        self.put(|| Ok(serde_json::to_vec_pretty(state)?))
    }

    /// Puts a text back that was no record.
    ///
    /// # Errors
    /// As those of [`Store::save`].
    pub fn restore(&self, text: &[u8]) -> Result<(), Failure> {
        self.put(|| Ok(text.to_vec()))
    }

    fn put(&self, text: impl FnOnce() -> io::Result<Vec<u8>>) -> Result<(), Failure> {
        let (Some(record), Some(unfinished), true) =
            (self.entry(RECORD), self.entry(UNFINISHED), self.usable)
        else {
            return Ok(());
        };
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(Exit::Failed, format!("{} cannot be written: {error}", record.path().display()))
        };
        let text = text().map_err(|error| failed(&error))?;
        record.replace(&unfinished, &text).map_err(|error| failed(&error))
    }

    /// Replaces the state where the one that is there will do as well, and only warns when it cannot be written.
    pub fn note(&self, state: &State) {
        if let Err(failure) = self.save(state) {
            tracing::warn!("{failure}; what it says of an earlier step stays");
        }
    }

    /// Removes the state, the lock, and the directory if nothing else is in it. Whether the state stays, because it
    /// cannot be removed.
    pub fn remove(&mut self) -> bool {
        if !self.usable {
            return false;
        }
        self.usable = false;
        let mut stays = false;
        // Another run may make either again at once; what is still in use is simply not removed.
        for kind in [UNFINISHED, RECORD] {
            if let Some(Err(error)) = self.entry(kind).map(|entry| entry.remove())
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("{} cannot be removed: {error}", self.path(kind).display());
                stays |= kind == RECORD;
            }
        }
        if let Some(lock) = self.lock.take() {
            let _ = lock.remove();
        }
        self.leave();
        stays
    }

    /// Removes the directory, if nothing is left in it.
    pub fn leave(&self) {
        if let Some(dir) = self.dir() {
            dir.remove_if_empty();
        }
    }

    fn forget_if_empty(&mut self) {
        if self.usable && self.entry(RECORD).is_none_or(|record| record.is_missing()) {
            self.remove();
        }
    }

    /// Keeps a turn to verify for as long as the lock.
    pub fn keep(&mut self, turn: Turn) {
        self.turn = Some(turn);
    }

    /// Lets go of the lock in a process made by fork.
    pub fn abandon_lock(&mut self) {
        self.usable = false;
        // The first process has it too.
        self.turn = None;
        self.namespace = None;
        if let Some(lock) = self.lock.take() {
            lock.abandon();
        }
    }

    /// Where the files of all network namespaces are.
    pub fn directory(&self) -> &Path {
        Path::new(DIRECTORY)
    }

    /// A file of this network namespace, for people.
    pub fn path(&self, kind: &str) -> PathBuf {
        self.directory().join(self.name(kind))
    }

    /// A file of this network namespace; `None` where there is no directory to have it.
    pub fn entry(&self, kind: &str) -> Option<Entry> {
        self.dir().map(|dir| dir.entry(self.name(kind)))
    }

    fn name(&self, kind: &str) -> String {
        format!("{}.{kind}", self.identity.id)
    }
}

/// A run that stopped before it changed anything leaves nothing either.
impl Drop for Store {
    fn drop(&mut self) {
        self.forget_if_empty();
    }
}

/// The lock of the network namespace. Where a stranger is in the way, or there is no such lock, a run goes without.
fn namespace(wait: Duration) -> Result<Option<turn::Turn>, Failure> {
    match turn::Turn::take(NAME, wait) {
        Ok(lock) => {
            if let Err(error) = lock.share_with_children() {
                tracing::debug!("the lock of the network namespace is not shared with children: {error}");
            }
            Ok(Some(lock))
        }
        Err(error @ TurnError::Busy(_)) => Err(busy(&error)),
        Err(error @ TurnError::Interrupted(_)) => Err(Failure::new(Exit::Failed, error.to_string())),
        // An ordinary user must not be able to keep root from it.
        Err(error @ (TurnError::Unproven(_) | TurnError::Stranger(_) | TurnError::Io(_))) => {
            tracing::warn!("another run at the same time in another container would not be noticed: {error}");
            Ok(None)
        }
    }
}

fn busy(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Busy, format!("another tproxy is at work: {error}"))
        .hint("run the command again when that process has ended")
}
