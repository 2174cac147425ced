//! What a run leaves for the next one: a lock, so that there is only one at a time, and a state file, one of each
//! for every network namespace, in `/run/tproxy`.
//!
//! That lock is a file, and also a name of the network namespace: two containers of a pod have the same rules and
//! different files.
//!
//! The state is a hint, never the truth: the truth is in the kernel. It is needed for rules without comments and
//! for what was added beside rules. Where `/run` cannot be written, a run does without both and says so.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::degrade::LeftOut;
use crate::backend::Backend;
use crate::backend::iptables::owned::RecordedRule;
use crate::backend::iptables::situation::Recorded;
use crate::backend::iptables::tools::Variant;
use crate::config::{self, Config};
use crate::exit::{Exit, Failure};
use crate::plan::Family;
use crate::sys::lock::{self, FileLock, Holder, LockError};
use crate::sys::netns;
use crate::sys::turn::{self, TurnError};
use crate::verify::turn::Turn;

/// Where state and locks are, in memory: what they describe does not survive a restart either.
const DIRECTORY: &str = "/run/tproxy";

/// Of the lock that belongs to the network namespace.
const NAME: &str = "tproxy lock";

/// How often the directory is made again that somebody removed at the same time.
const DIRECTORY_TRIES: usize = 100;

/// What the name of the state file ends in.
pub const RECORD: &str = "json";

/// The state file's format.
const SCHEMA: u32 = 1;

/// How far a run came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Written before anything is changed. Found later, it means that a run was killed.
    #[default]
    Changing,
    /// All that the state says is there.
    Installed,
}

/// What an installation did, and on whose behalf.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// Of this file's format.
    pub schema: u32,
    /// The program's.
    pub version: String,
    /// How far it came.
    pub phase: Phase,
    /// Seconds since 1970.
    pub installed_at: u64,
    /// `iptables` or `nftables`; none in files of versions that knew iptables alone.
    pub backend: String,
    /// `nft` or `legacy`; none of nftables.
    pub variant: String,
    /// The sidecar's UID.
    pub sidecar_uid: u32,
    /// The configuration, as the text of a configuration file.
    pub config: String,
    /// What of the configuration this host turned out not to be able to do.
    pub left_out: Vec<LeftOut>,
    /// Whether the sidecar's IPv6 source address on the loopback interface is our doing.
    pub added_passthrough: bool,
    /// Rules of ours in shared chains that carry no comment, IPv4.
    pub uncommented_v4: Vec<RecordedRule>,
    /// The same, IPv6.
    pub uncommented_v6: Vec<RecordedRule>,
}

impl State {
    /// Of an installation that begins now.
    pub fn new(config: &Config, backend: Backend, sidecar_uid: u32) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            installed_at: now.as_secs(),
            backend: backend.name().to_owned(),
            variant: backend.variant().map(|variant| variant.to_string()).unwrap_or_default(),
            sidecar_uid,
            config: config::show::yaml(config, None),
            ..Self::default()
        }
    }

    /// The variant of iptables that the installation went by, if it did.
    pub fn variant(&self) -> Option<Variant> {
        Variant::BOTH.into_iter().find(|variant| variant.to_string() == self.variant)
    }

    /// The configuration in the text of a state file; `None` of any other text.
    pub fn config_in(text: &str) -> Option<String> {
        let state: Self = serde_json::from_str(text).ok()?;
        (state.schema == SCHEMA).then_some(state.config)
    }

    /// Whether it tells of the same installation, whenever that was made.
    pub fn says_the_same(&self, other: &Self) -> bool {
        *self == Self { installed_at: self.installed_at, version: self.version.clone(), ..other.clone() }
    }

    /// The rules without comment of a family.
    pub fn uncommented_mut(&mut self, family: Family) -> &mut Vec<RecordedRule> {
        match family {
            Family::V4 => &mut self.uncommented_v4,
            Family::V6 => &mut self.uncommented_v6,
        }
    }

    /// The rules without comment, by family.
    pub fn recorded(&self) -> Recorded {
        Recorded::from([(Family::V4, self.uncommented_v4.clone()), (Family::V6, self.uncommented_v6.clone())])
    }
}

/// The lock and the state file of this network namespace.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    id: String,
    lock: Option<FileLock>,
    /// The same among all processes of the network namespace, whatever files they see.
    namespace: Option<turn::Turn>,
    /// Beside the lock, the turn to verify.
    turn: Option<Turn>,
    usable: bool,
}

impl Store {
    /// Takes the lock, waiting so long for another run at most.
    ///
    /// # Errors
    /// Another run holds the lock ([`Exit::Busy`]). A directory that cannot be written is no error.
    pub fn open(wait: Duration) -> Result<Self, Failure> {
        let start = Instant::now();
        let mut store = Self::unlocked()?;
        let path = store.lock_path();
        let lock = || {
            private_directory(&store.directory)
                .map_err(|source| LockError::Io { path: path.clone(), source })
                .and_then(|()| FileLock::acquire(&path, wait))
        };
        // An uninstall that ends just now takes the directory away under whoever waits for its lock.
        let gone = |error: &LockError| matches!(error, LockError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
        let mut tries = std::iter::repeat_with(lock).take(DIRECTORY_TRIES);
        let locked = tries.find(|result| !result.as_ref().is_err_and(gone)).unwrap_or_else(lock);
        match locked {
            Ok(lock) => {
                // A killed run's restore program goes on; the next run must not look before it has ended.
                if let Err(error) = lock.share_with_children() {
                    tracing::debug!("the lock is not shared with children: {error}");
                }
                store.lock = Some(lock);
                store.usable = true;
            }
            Err(LockError::Io { source, .. }) => {
                tracing::info!(
                    "no record of this run, and no lock file: {} cannot be written ({source})",
                    store.directory.display()
                );
            }
            Err(error @ LockError::Busy { .. }) => {
                return Err(busy(&error));
            }
            Err(error @ LockError::Interrupted { .. }) => {
                return Err(Failure::new(Exit::Failed, error.to_string()));
            }
        }
        store.namespace = namespace(wait.saturating_sub(start.elapsed()))?;
        Ok(store)
    }

    /// For reading only.
    pub fn unlocked() -> Result<Self, Failure> {
        let id = netns::current_id().map_err(|error| {
            Failure::new(Exit::Host, format!("this network namespace has no identity: {error}"))
        })?;
        Ok(Self {
            directory: PathBuf::from(DIRECTORY),
            id,
            lock: None,
            namespace: None,
            turn: None,
            usable: false,
        })
    }

    /// Who holds the lock now, as far as that can be seen.
    pub fn holder(&self) -> Option<Holder> {
        lock::holder(&self.lock_path())
    }

    /// Whether what is saved here will be found again.
    pub fn remembers(&self) -> bool {
        self.usable
    }

    /// What the last run left, if it is readable.
    pub fn load(&self) -> Option<State> {
        let path = self.state_path();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!("{} cannot be read: {error}", path.display());
                return None;
            }
        };
        let state: Option<State> = serde_json::from_str(&text)
            .inspect_err(|error| tracing::warn!("{} is not a state file: {error}", path.display()))
            .ok();
        state.filter(|state| {
            let known = state.schema == SCHEMA;
            if !known {
                tracing::warn!(
                    "{} has a format that this version does not know; it is passed over",
                    path.display()
                );
            }
            known
        })
    }

    /// Replaces the state, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written although the directory could be locked.
    pub fn save(&self, state: &State) -> Result<(), Failure> {
        if !self.usable {
            return Ok(());
        }
        let path = self.state_path();
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(Exit::Failed, format!("{} cannot be written: {error}", path.display()))
        };
        let text = serde_json::to_vec_pretty(state).map_err(|error| failed(&error))?;
        write_whole(&path, &text).map_err(|error| failed(&error))
    }

    /// Replaces the state where the one that is there will do as well, and only warns when it cannot be written.
    pub fn note(&self, state: &State) {
        if let Err(failure) = self.save(state) {
            tracing::warn!("{failure}; what it says of an earlier step stays");
        }
    }

    /// Removes the state, the lock, and the directory if nothing else is in it.
    pub fn remove(&mut self) {
        if !self.usable {
            return;
        }
        self.usable = false;
        // Another run may make either again at once; what is still in use is simply not removed.
        let path = self.state_path();
        let _ = fs::remove_file(unfinished(&path));
        let _ = fs::remove_file(path);
        if let Some(lock) = self.lock.take() {
            let _ = lock.remove();
        }
        let _ = fs::remove_dir(&self.directory);
    }

    fn forget_if_empty(&mut self) {
        if self.usable && !self.state_path().exists() {
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
        &self.directory
    }

    /// A file of this network namespace.
    pub fn path(&self, kind: &str) -> PathBuf {
        self.directory.join(format!("{}.{kind}", self.id))
    }

    fn state_path(&self) -> PathBuf {
        self.path(RECORD)
    }

    fn lock_path(&self) -> PathBuf {
        self.path("lock")
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

fn private_directory(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// What a file is written as before it takes its name; a run that is killed meanwhile leaves it.
fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = unfinished(path);
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let written = file.write_all(text).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}
