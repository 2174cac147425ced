//! The lock that the legacy programs take, unless it is in another user's hands.
//!
//! The programs open a path and lock what they find. Where others can write the directory, as in a `/run` of mode 1777,
//! any user can put a FIFO there, which keeps the programs waiting for a writer, or a file of their own, which they can
//! keep locked. A file of root's that everybody may open (kubelet makes it so) can be locked by everybody too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::sys::files::{self, NoDir};
use crate::sys::lock::{self, Keepers};
use crate::sys::run;

/// What a program can lock and no other process with it: a file that each process has for itself, and that only root and
/// its own user can open. Programs older than 1.8.6 know no other lock than their own.
const PRIVATE: &str = "/proc/self/environ";

/// How often the file is looked for that others make and remove meanwhile.
const TRIES: usize = 10;

/// How long a process that nobody sees may have the lock. Those of root in other containers let go of it sooner.
const UNSEEN: Duration = Duration::from_secs(2);

/// How often is looked meanwhile.
const PAUSE: Duration = Duration::from_millis(20);

/// Another user was seen to keep the lock while a program waited.
static KEPT: AtomicBool = AtomicBool::new(false);

/// Why the lock is not taken.
#[derive(Debug, PartialEq, Eq)]
enum Obstacle {
    /// It cannot be made here.
    Lacking(String),
    /// Another user can keep it, or does.
    Others(String),
}

/// Where the legacy programs lock (`XT_LOCK_NAME` in their source).
pub fn path() -> PathBuf {
    run::xtables_lock().unwrap_or_else(|| PathBuf::from("/run/xtables.lock"))
}

/// What the programs are to lock in the place of [`path`], if anything; says why.
pub fn another() -> Option<&'static str> {
    static SAID: Once = Once::new();
    let path = path();
    let obstacle = obstacle(&path)?;
    SAID.call_once(|| match obstacle {
        Obstacle::Lacking(why) => {
            tracing::info!(
                "the xtables lock {} cannot be made ({why}), so only other runs of tproxy are kept out",
                path.display()
            );
        }
        Obstacle::Others(why) => {
            tracing::warn!(
                "the xtables lock {} is passed over, because another user could keep it: {why}; other programs that \
                 change legacy tables at the same time are not kept out",
                path.display()
            );
        }
    });
    Some(PRIVATE)
}

/// A program has waited in vain: remembers whether another user can be the reason.
pub fn waited() {
    let others = fs::metadata(path()).is_ok_and(|file| others_open(file.mode()));
    if others && lock::keepers(&path()) != Keepers::Root {
        KEPT.store(true, Ordering::Relaxed);
    }
}

fn obstacle(path: &Path) -> Option<Obstacle> {
    let real = match files::place(path) {
        Ok(real) => real,
        Err(NoDir::Foreign(why)) => return Some(Obstacle::Others(why)),
        Err(NoDir::Io { source, .. }) => return Some(Obstacle::Lacking(source.to_string())),
    };
    for _ in 0..TRIES {
        match fs::symlink_metadata(&real) {
            Ok(found) => return in_the_way(&real, &found),
            // Before somebody else makes something of that name.
            Err(error) if error.kind() == ErrorKind::NotFound => match make(&real) {
                Ok(()) => return None,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Some(Obstacle::Lacking(error.to_string())),
            },
            Err(error) => return Some(Obstacle::Lacking(error.to_string())),
        }
    }
    Some(Obstacle::Others("it comes and goes".to_owned()))
}

fn in_the_way(path: &Path, found: &fs::Metadata) -> Option<Obstacle> {
    let kind = found.file_type();
    let owner = found.uid();
    let what = match kind {
        _ if kind.is_symlink() => "a symbolic link",
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_socket() => "a socket",
        _ if !kind.is_file() => "a device",
        _ if owner != nix::unistd::geteuid().as_raw() => "a file",
        _ if !others_open(found.mode()) => return None,
        _ => return kept(path).map(Obstacle::Others),
    };
    Some(Obstacle::Others(format!("it is {what} of UID {owner}")))
}

/// Who keeps the lock that is not waited for, if anybody does.
fn kept(path: &Path) -> Option<String> {
    let others = || {
        let holder = lock::holder(path).map_or("another process".to_owned(), |holder| holder.to_string());
        Some(format!("it is held by {holder}, and not by root alone"))
    };
    if KEPT.load(Ordering::Relaxed) {
        return others();
    }
    let end = Instant::now() + UNSEEN;
    loop {
        match lock::keepers(path) {
            Keepers::Others => return others(),
            Keepers::Root => return None,
            Keepers::Nobody => {}
        }
        // The list of locks leaves out those of other PID namespaces and those whose taker has ended and left them to a
        // child.
        if !File::open(path).and_then(|file| lock::is_kept(&file)).unwrap_or(false) {
            return None;
        }
        if Instant::now() >= end {
            KEPT.store(true, Ordering::Relaxed);
            return Some(format!(
                "a process that is not visible here has held it for {} s",
                UNSEEN.as_secs()
            ));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether others than the owner can open a file, and so lock it.
fn others_open(mode: u32) -> bool {
    mode & 0o066 != 0
}

/// As the programs do, but never through a link.
fn make(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn only_a_file_of_ones_own_is_shared() {
        let dir = std::env::temp_dir().join(format!("tproxy-xtables-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let fifo = dir.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink(dir.join("file"), dir.join("link")).unwrap();
        let seen = |name: &str| obstacle(&dir.join(name));
        let others = |what: &str| {
            let uid = nix::unistd::geteuid();
            Some(Obstacle::Others(format!("it is {what} of UID {uid}")))
        };
        let found = [seen("fifo"), seen("link"), seen("file"), seen("file")];
        let made = fs::metadata(dir.join("file")).unwrap().mode() & 0o777;
        let missing = seen("missing/file");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        let open = seen("file");
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found, [others("a FIFO"), others("a symbolic link"), None, None]);
        assert_eq!(made, 0o600);
        assert!(matches!(missing, Some(Obstacle::Lacking(_))), "{missing:?}");
        assert!(matches!(&open, Some(Obstacle::Others(why)) if why.contains("mode 0777")), "{open:?}");
    }
}
