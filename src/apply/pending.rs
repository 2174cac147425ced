//! The file that says that an installation waits to be confirmed, and until when; and the log of the process that waits.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::exit::Failure;
use crate::status::words;
use crate::sys::files::{Entry, Unread};
use crate::sys::moment::Moment;
use crate::sys::netns::Identity;
use crate::sys::{self, lock};

use super::closed::unread;
use super::store::Store;
pub(super) use super::store::{PENDING, UNFINISHED_PENDING as UNFINISHED};

/// What the name of the file ends in that says what became of it.
pub(super) const LOG: &str = "log";

/// More than it ever says, in bytes.
const LARGEST: u64 = 64 << 10;

/// The permissions of the log of a trial that is over, and the one that it lacks then.
const OVER: u32 = 0o400;
const MAY_WRITE: u32 = 0o200;

/// What the log says of a way back that has begun.
pub(super) const GOING_BACK: &str = "going back";

/// More than is read of the log, in bytes.
const LONGEST_LOG: u64 = 16 << 20;

/// The file's format.
const SCHEMA: u32 = 2;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    schema: u32,
    /// The inode of the network namespace, as in the record.
    #[serde(default)]
    network_namespace: Option<u64>,
    /// The start of the machine since which the two times count.
    boot: String,
    /// Until when it may be confirmed.
    pub until: Moment,
    /// When the installation began.
    begun: Moment,
    /// The installing process; with the beginning it tells one installation from another.
    installer: u32,
    /// Whether a proof comes first (`--verify`), after which the time to confirm begins anew.
    proving: bool,
}

impl Pending {
    /// Of an installation by this process that begins now.
    pub fn new(identity: &Identity, time: Duration, proving: bool) -> Self {
        let begun = Moment::now();
        let (until, installer) = (begun.plus(time), std::process::id());
        let (boot, network_namespace) = (identity.boot.clone(), identity.inode);
        Self { schema: SCHEMA, network_namespace, boot, until, begun, installer, proving }
    }

    /// The same with a time that begins now, after the proof.
    pub fn anew(&self, time: Duration) -> Self {
        Self { until: Moment::now().plus(time), proving: false, ..self.clone() }
    }

    /// What waits, if the file is whole and of this boot: the times of another one mean nothing.
    ///
    /// # Errors
    /// There is something, but it is no file, or it cannot be read now.
    pub fn read(store: &Store) -> Result<Option<Self>, Failure> {
        let Some(entry) = store.entry(PENDING) else { return Ok(None) };
        let text = match entry.read(LARGEST) {
            Ok(text) => text.unwrap_or_default(),
            Err(error @ Unread::Foreign { .. }) => {
                tracing::warn!("{} is passed over: {error}", entry.path().display());
                return Ok(None);
            }
            Err(error) => return Err(unread(&entry.path(), &error)),
        };
        let says: Option<Self> = serde_json::from_slice(&text).ok();
        Ok(says.filter(|says| says.schema == SCHEMA && says.boot == store.identity().boot))
    }

    /// What this says by now, unless it is gone or another's.
    ///
    /// # Errors
    /// The file cannot be read now, which is no confirmation.
    pub fn still(&self, entry: &Entry) -> Result<Option<Self>, Unread> {
        let Some(text) = entry.read(LARGEST)? else { return Ok(None) };
        let says: Self = serde_json::from_slice(&text).unwrap_or_else(|_| self.clone());
        Ok(Some(says).filter(|says| says.is_the_trial_of(self)))
    }

    /// Whether both are of one installation, however its time was changed.
    pub fn is_the_trial_of(&self, other: &Self) -> bool {
        (self.begun, self.installer) == (other.begun, other.installer)
    }

    /// Puts the file in place.
    ///
    /// # Errors
    /// The kernel's: no space, a read-only file system, no directory any more.
    pub fn put(&self, files: &Store) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        match (files.entry(PENDING), files.entry(UNFINISHED)) {
            (Some(pending), Some(unfinished)) => pending.replace(&unfinished, &text),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Whether the installing process holds the lock, as far as that can be seen.
    pub fn is_locked_by_installer(&self, store: &Store) -> bool {
        store.holder().is_some_and(|holder| holder.pid == self.installer)
    }

    /// Whether the installing process goes on with it: it holds the lock, and nobody has stopped it.
    pub fn is_under_way(&self, store: &Store) -> bool {
        self.is_locked_by_installer(store) && !sys::is_stopped(self.installer)
    }

    /// How many seconds are left, rounded up: a whole number that was asked for is what is told.
    pub fn seconds_left(&self) -> u64 {
        u64::try_from(self.until.since(Moment::now()).as_millis().div_ceil(1000)).unwrap_or(u64::MAX)
    }
}

/// How an installation that has to be confirmed stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// The time to confirm begins when packets have proved it.
    Proving,
    /// It waits until this time, in seconds since 1970.
    Waits(u64),
    /// The time was over then, and it goes back or tries to.
    Over(u64),
    /// The process that waited has ended, so nothing goes back, now or then.
    Abandoned(u64),
    /// The process that waits is stopped, so nothing goes back until it continues.
    Stopped {
        /// Until when it may be confirmed, as of the others.
        until: u64,
        /// That process, in this PID namespace.
        pid: u32,
    },
}

impl Trial {
    /// Whether nothing goes back by itself when the time is over.
    pub fn is_stuck(self) -> bool {
        matches!(self, Self::Abandoned(_) | Self::Stopped { .. })
    }
}

/// Whether an installation waits, and the process has ended that goes back when the time is over. That one has locked
/// its log, and the kernel unlocks that however it ends. A log that is gone tells nothing.
pub(super) fn is_abandoned(store: &Store) -> bool {
    let log = store.entry(LOG).and_then(|log| log.file().ok());
    let ended = log.is_some_and(|log| lock::is_kept(&log).is_ok_and(|kept| !kept));
    // It removes the other file before it ends.
    ended && matches!(Pending::read(store), Ok(Some(_)))
}

/// The process that waits, if it is stopped and in this PID namespace.
pub(super) fn stopped(store: &Store) -> Option<u32> {
    let log = store.entry(LOG)?.file().ok()?.metadata().ok()?;
    sys::writing_errors_to(log.dev(), log.ino()).filter(|pid| sys::is_stopped(*pid))
}

/// Whether a way back has begun that may go on, as far as its log says.
pub(super) fn is_going_back(store: &Store) -> bool {
    let text = store.entry(LOG).and_then(|log| log.read(LONGEST_LOG).ok()?);
    text.is_some_and(|text| String::from_utf8_lossy(&text).contains(GOING_BACK))
}

/// Makes a log, which begins with the network namespace, as links in `/proc` name it; later runs go by that. Whoever has
/// this open file has locked it, until all of them have closed it.
///
/// # Errors
/// The kernel's.
pub(super) fn make_log(files: &Store) -> io::Result<File> {
    let entry = files.entry(LOG).ok_or(io::ErrorKind::NotFound)?;
    let mut log = entry.keep(true)?;
    if is_marked(&log)? || !lock::keep(&log)? {
        // Of an earlier installation, for which a process waits in vain that somebody has stopped.
        entry.remove()?;
        log = entry.keep(true)?;
        lock::keep(&log)?;
    }
    let identity = files.identity();
    if let (Some(inode), 0) = (identity.inode, log.metadata()?.len()) {
        writeln!(log, "{} a trial in net:[{inode}]", words::time(on_the_wall(Moment::now())))?;
    }
    Ok(log)
}

/// Tells the process that waits that the trial is over, by the permissions of its log. It has that file open, whoever
/// removes the name; and no space is needed. Must come before the file is removed that says that an installation waits:
/// without this mark, that is somebody's mistake, and is put back.
///
/// # Errors
/// The kernel's.
pub(super) fn mark(log: &File) -> io::Result<()> {
    let over = || log.set_permissions(Permissions::from_mode(OVER));
    over().or_else(|_| over())
}

/// Whether [`mark`] was.
///
/// # Errors
/// The kernel's.
pub(super) fn is_marked(log: &File) -> io::Result<bool> {
    Ok(log.metadata()?.mode() & MAY_WRITE == 0)
}

/// How an installation stands that has to be confirmed, if there is one.
///
/// # Errors
/// As those of [`Pending::read`].
pub fn trial(store: &Store) -> Result<Option<Trial>, Failure> {
    let Some(waits) = Pending::read(store)? else { return Ok(None) };
    if is_abandoned(store) {
        return Ok(Some(Trial::Abandoned(on_the_wall(waits.until))));
    }
    if let Some(pid) = stopped(store) {
        return Ok(Some(Trial::Stopped { until: on_the_wall(waits.until), pid }));
    }
    // Who was killed in a proof left the lock to whoever goes back, and the time as it was promised first.
    if waits.proving && waits.is_locked_by_installer(store) {
        return Ok(Some(Trial::Proving));
    }
    let until = on_the_wall(waits.until);
    Ok(Some(if waits.until.is_over() { Trial::Over(until) } else { Trial::Waits(until) }))
}

/// What waits need not wait any more.
pub fn withdraw(store: &Store) {
    let log = || store.entry(LOG).and_then(|log| log.file().ok());
    if let Some(Err(error)) = log().or_else(log).map(|log| mark(&log)) {
        tracing::debug!("the process that waits for a confirmation cannot be told that it is over: {error}");
    }
    for kind in [UNFINISHED, PENDING, LOG] {
        let _ = store.entry(kind).map(|entry| entry.remove());
    }
}

/// When that was or will be, in seconds since 1970, going by what the clock on the wall says now.
pub(super) fn on_the_wall(at: Moment) -> u64 {
    let (now, wall) = (Moment::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    wall.saturating_add(at.since(now)).saturating_sub(now.since(at)).as_secs()
}
