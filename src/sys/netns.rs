//! Which network namespace this thread is in, and work in others.
#![allow(unsafe_code, reason = "getsockopt(SO_NETNS_COOKIE) has no wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

use super::{moment, threads};

/// `SO_NETNS_COOKIE` of the kernel's `include/uapi/asm-generic/socket.h`, since 5.14; libc has it for some targets.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// What tells this network namespace, in this start of the machine, from every other one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// A key for file names.
    pub id: String,
    /// The ID of this start of the machine; empty where a sandbox hides it.
    pub boot: String,
    /// The inode of the namespace, unless `/proc` is not mounted; its number can come back when the namespace is gone.
    pub inode: Option<u64>,
    /// What is weaker than it should be, one sentence each.
    pub notes: Vec<String>,
}

impl Identity {
    /// The cookie in the key, if the kernel gives one.
    pub fn cookie(&self) -> Option<u64> {
        let (cookie, rest) = self.id.split_once('-').unwrap_or((&self.id, ""));
        // Where the inode stands in, there are three parts.
        let stands_in = rest.contains('-') || self.boot.is_empty() && !rest.is_empty();
        (!stands_in).then(|| u64::from_str_radix(cookie, 16).ok()).flatten()
    }
}

/// Of the calling thread's network namespace: its own, and no other one's, also not a later one's.
///
/// The key is made of the namespace's cookie, which counts up and is never used again, and of the boot, because the
/// cookies of the next boot start again and `/run` may outlive one where it is a volume. Kernels before 5.14 have
/// no cookie; there the namespace's inode stands in, whose number can come back once the namespace is gone.
///
/// A run that takes itself for another one because there was no memory for a moment would find neither the record nor
/// the lock. So only what a host does not have is done without.
///
/// # Errors
/// The kernel has no cookie, and `/proc` is not mounted; or either cannot be read now.
pub fn identity() -> io::Result<Identity> {
    let mut notes = Vec::new();
    let boot = match moment::boot() {
        Ok(boot) => boot,
        Err(error) if is_absent(&error) => {
            notes.push(format!(
                "{} cannot be read ({error}), so what is recorded now looks as valid after the next start of the machine",
                moment::BOOT_ID
            ));
            String::new()
        }
        Err(error) => return Err(error),
    };
    let file = match std::fs::metadata(NAMESPACE) {
        Ok(file) => Some(file),
        Err(error) if is_absent(&error) => None,
        Err(error) => return Err(error),
    };
    let key = match (cookie()?, &file) {
        (Ok(cookie), _) => format!("{cookie:x}"),
        (Err(why), Some(file)) => {
            notes.push(format!(
                "the kernel gives network namespaces no cookie ({why}), so the record goes by an inode, which a later \
                 namespace can have too"
            ));
            format!("{:x}-{:x}", file.dev(), file.ino())
        }
        (Err(why), None) => return Err(io::Error::other(format!("{why}, and /proc is not mounted"))),
    };
    // Twelve digits are enough to tell boots apart.
    let digits = boot.chars().filter(char::is_ascii_hexdigit).take(12).collect::<String>();
    let id = if digits.is_empty() { key } else { format!("{key}-{digits}") };
    Ok(Identity { id, boot, inode: file.map(|file| file.ino()), notes })
}

/// The key alone.
///
/// # Errors
/// As those of [`identity`].
pub fn current_id() -> io::Result<String> {
    identity().map(|identity| identity.id)
}

/// The namespace of the calling thread.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// Whether this host does not have it, or hides it, at any time.
fn is_absent(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOENT | Errno::EROFS | Errno::EACCES))
}

/// Within, that this kernel has none.
fn cookie() -> io::Result<Result<u64, String>> {
    // A socket belongs to the namespace in which it was made; of all kinds this one needs nothing from the kernel.
    let socket = UnixDatagram::unbound()?;
    let mut cookie: u64 = 0;
    let mut size: libc::socklen_t = 8;
    // SAFETY: the descriptor is open, and the kernel writes at most `size` bytes to the eight of `cookie`.
    let asked = Errno::result(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    });
    match asked {
        Err(errno @ (Errno::ENOPROTOOPT | Errno::EINVAL | Errno::EOPNOTSUPP)) => Ok(Err(errno.to_string())),
        Err(errno) => Err(errno.into()),
        Ok(_) if size != 8 || cookie == 0 => Ok(Err("it gave none".to_owned())),
        Ok(_) => Ok(Ok(cookie)),
    }
}

/// Whether the calling thread is in the network namespace of a process, or of a thread.
///
/// # Errors
/// There is no such process, or `/proc` is not mounted.
pub fn is_of_process(pid: u32) -> io::Result<bool> {
    let place = |path: String| std::fs::metadata(path).map(|about| (about.dev(), about.ino()));
    let same = |file: &str| -> io::Result<bool> {
        Ok(place(format!("/proc/{pid}/{file}"))? == place(format!("/proc/thread-self/{file}"))?)
    };
    match same("ns/net") {
        // That is for those who may trace the process. Each namespace has files of its own here, for everyone to see.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => same("net/dev"),
        told => told,
    }
}

/// A network namespace, kept for as long as this value is.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// The calling thread's.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        Ok(Self(std::fs::File::open(NAMESPACE)?.into()))
    }

    /// A new and empty one.
    ///
    /// # Errors
    /// The kernel's: not permitted, no more of them.
    pub fn make() -> io::Result<Self> {
        threads::alone(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::current()
        })?
    }

    /// Does something in it. That happens in a thread that ends with it, so there is no way back that could fail.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        threads::alone(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })?
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// For tests of what needs a kernel to itself.
#[cfg(test)]
pub mod testing {
    use super::{CloneFlags, unshare};

    /// Does something in a new network namespace. `None` without root, because a thread alone cannot enter a user
    /// namespace.
    ///
    /// # Panics
    /// As `work` does; and without root where `CI` is set, because nothing may be skipped there.
    pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI must run these tests as root");
            eprintln!("skipped: making a network namespace needs root");
            return None;
        }
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        let done = std::thread::scope(|scope| scope.spawn(inside).join());
        Some(done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_name(id: &str) -> bool {
        !id.is_empty() && id.len() < 64 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
    }

    #[test]
    fn it_stays_the_same_and_is_a_file_name() {
        let id = current_id().unwrap();
        assert!(file_name(&id), "{id}");
        assert_eq!(current_id().unwrap(), id);
        assert!(identity().unwrap().notes.is_empty());
    }

    #[test]
    fn only_what_a_host_does_not_have_is_done_without() {
        for errno in [Errno::ENOENT, Errno::EROFS, Errno::EACCES] {
            assert!(is_absent(&errno.into()), "{errno}");
        }
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EIO, Errno::EINTR, Errno::EPERM] {
            assert!(!is_absent(&errno.into()), "{errno}");
        }
        assert!(!is_absent(&io::Error::other("no number")));
    }

    #[test]
    fn namespaces_of_processes_are_compared() {
        let pid = std::process::id();
        assert!(is_of_process(pid).unwrap());
        assert!(is_of_process(0).is_err(), "no such process");
        let Some(same) = testing::apart(|| is_of_process(pid).unwrap()) else { return };
        assert!(!same);
        // A user who may not trace this process.
        let elsewhere = || crate::sys::user::run_as(65534, || is_of_process(1));
        let (here, apart) = (elsewhere().unwrap(), testing::apart(|| elsewhere().unwrap()).unwrap());
        assert_eq!(here.unwrap(), is_of_process(1).unwrap());
        assert!(!apart.unwrap());
    }

    #[test]
    fn every_namespace_has_its_own() {
        let ids = || identity().map(|identity| (identity.id, identity.inode.unwrap())).unwrap();
        let before = ids();
        let Some(elsewhere) = testing::apart(ids) else { return };
        assert_ne!(elsewhere.0, before.0);
        assert_ne!(elsewhere.1, before.1);
        assert_eq!(ids(), before);
    }
}
