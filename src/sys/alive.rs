//! Whether other network namespaces are still there.
#![allow(unsafe_code, reason = "open_by_handle_at(2) has no wrapper for file systems without a path")]

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::errno::Errno;

/// Of the first user and the first PID namespace (`include/linux/proc_ns.h` of the kernel; in its uapi since 6.18).
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Capabilities by their numbers (`include/uapi/linux/capability.h`).
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;

/// The file system of namespaces, where `open_by_handle_at(2)` looks for it (`FD_NSFS_ROOT`, since 6.18), and the type of
/// its handles (`FILEID_NSFS`).
const NSFS: libc::c_int = -10003;
const NSFS_HANDLE: libc::c_int = 0xf1;

/// `struct file_handle` with `struct nsfs_file_handle` in it (`include/uapi/linux/nsfs.h`).
#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    id: u64,
    namespace: u32,
    inode: u32,
}

/// How it is found out here whether a namespace is there.
#[derive(Debug)]
pub enum Alive {
    /// The kernel is asked (Linux 6.18).
    Asked,
    /// These are all, by their inodes.
    Seen(BTreeSet<u64>),
}

impl Alive {
    /// The kernel's own answer. `None`: it gives none, or not to this process. It has to be one that may open every
    /// namespace, because one that it may not open looks like one that is gone; `cookie` and `inode` are those of its
    /// own, to try it out.
    pub fn asked(cookie: u64, inode: u64) -> Option<Self> {
        let may = is_first("user", FIRST_USER_NAMESPACE) && has_capability(CAP_SYS_ADMIN);
        (may && open(cookie, inode).is_ok()).then_some(Self::Asked)
    }

    /// All that processes, their open files and mounts hold. `None`: not all of them can be seen from here.
    pub fn seen() -> Option<Self> {
        let mounted_here = fs::read_link("/proc/self").ok()?.to_str()? == std::process::id().to_string();
        let sees_all = mounted_here
            && is_first("user", FIRST_USER_NAMESPACE)
            && is_first("pid", FIRST_PID_NAMESPACE)
            && has_capability(CAP_SYS_PTRACE);
        // What goes from one process to another while one looks is seen the second time.
        let mut all = sees_all.then(|| scan().ok())??;
        all.append(&mut scan().ok()?);
        Some(Self::Seen(all))
    }

    /// Whether it is known that a namespace is gone. One that was made later can have the same inode, but not the same
    /// cookie.
    pub fn is_gone(&self, cookie: u64, inode: u64) -> bool {
        match self {
            Self::Asked => matches!(open(cookie, inode), Err(Errno::ESTALE)),
            Self::Seen(all) => !all.contains(&inode),
        }
    }
}

fn is_first(kind: &str, inode: u64) -> bool {
    fs::metadata(format!("/proc/self/ns/{kind}")).is_ok_and(|file| file.ino() == inode)
}

fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> number & 1 == 1)
}

/// Opens a network namespace that nothing here may lead to.
fn open(cookie: u64, inode: u64) -> Result<OwnedFd, Errno> {
    let mut handle = Handle {
        bytes: 16,
        kind: NSFS_HANDLE,
        id: cookie,
        namespace: libc::CLONE_NEWNET.cast_unsigned(),
        inode: u32::try_from(inode).map_err(|_| Errno::EOVERFLOW)?,
    };
    // SAFETY: the kernel reads eight bytes and the sixteen behind them that the first four promise.
    let opened = unsafe {
        libc::syscall(libc::SYS_open_by_handle_at, NSFS, &raw mut handle, libc::O_RDONLY | libc::O_CLOEXEC)
    };
    let opened = Errno::result(opened)?;
    // SAFETY: the kernel just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(opened).map_err(|_| Errno::EOVERFLOW)?) })
}

/// The inodes of all network namespaces that processes show.
///
/// # Errors
/// A process cannot be looked into, although it is still there.
fn scan() -> io::Result<BTreeSet<u64>> {
    let (mut found, mut mounts) = (BTreeSet::new(), HashSet::new());
    for process in numbers(Path::new("/proc"))? {
        look_into(&Path::new("/proc").join(process), &mut found, &mut mounts)?;
    }
    Ok(found)
}

/// Those that one process shows; of mount namespaces that were looked at before, nothing is read again.
fn look_into(process: &Path, found: &mut BTreeSet<u64>, mounts: &mut HashSet<u64>) -> io::Result<()> {
    for thread in there(numbers(&process.join("task")))?.unwrap_or_default() {
        let thread = process.join("task").join(thread);
        found.extend(there(fs::metadata(thread.join("ns/net")))?.map(|file| file.ino()));
        let Some(mount) = there(fs::metadata(thread.join("ns/mnt")))? else { continue };
        if mounts.insert(mount.ino()) {
            let mounted = there(fs::read(thread.join("mountinfo")))?.unwrap_or_default();
            let mounted = String::from_utf8_lossy(&mounted);
            found.extend(mounted.split_ascii_whitespace().filter_map(inode_of));
        }
    }
    // Threads may have files of their own, as those of this program never have.
    for file in there(numbers(&process.join("fd")))?.unwrap_or_default() {
        let leads = there(fs::read_link(process.join("fd").join(file)))?;
        found.extend(leads.iter().filter_map(|to| inode_of(to.to_str()?)));
    }
    Ok(())
}

/// The entries that are numbers.
fn numbers(dir: &Path) -> io::Result<Vec<String>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
            numbers.push(name);
        }
    }
    Ok(numbers)
}

/// Nothing where the process has ended meanwhile.
fn there<T>(looked: io::Result<T>) -> io::Result<Option<T>> {
    match looked {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        looked => looked.map(Some),
    }
}

/// Of a network namespace as links and mounts name it: `net:[4026531833]`.
pub fn inode_of(text: &str) -> Option<u64> {
    text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netns::{self, Namespace};

    fn own() -> (u64, u64) {
        let identity = netns::identity().unwrap();
        (identity.cookie().unwrap(), identity.inode.unwrap())
    }

    #[test]
    fn names() {
        assert_eq!(inode_of("net:[4026531833]"), Some(4_026_531_833));
        for other in ["mnt:[4026531833]", "net:[]", "net:[x]", "net:[1", "socket:[1]", "/net:[1]"] {
            assert_eq!(inode_of(other), None, "{other}");
        }
    }

    /// What this process shows: it may look into itself wherever it runs.
    fn shown() -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        look_into(Path::new("/proc/self"), &mut found, &mut HashSet::new()).unwrap();
        found
    }

    /// Both ways see what an open file alone holds, and that it is gone then.
    #[test]
    fn a_namespace_is_there_as_long_as_anything_holds_it() {
        let Some((held, (cookie, inode))) = netns::testing::apart(|| (Namespace::current().unwrap(), own()))
        else {
            return;
        };
        let (own_cookie, own_inode) = own();
        let asked = Alive::asked(own_cookie, own_inode);
        if let Some(asked) = &asked {
            assert!(!asked.is_gone(own_cookie, own_inode) && !asked.is_gone(cookie, inode));
            // Another one of the same inode.
            assert!(asked.is_gone(cookie + (1 << 40), inode));
        }
        let seen = Alive::Seen(shown());
        assert!(!seen.is_gone(own_cookie, own_inode) && !seen.is_gone(cookie, inode));
        drop(held);
        // It takes the kernel a moment, and another test may have got the same inode.
        while shown().contains(&inode) {
            std::thread::yield_now();
        }
        while asked.as_ref().is_some_and(|asked| !asked.is_gone(cookie, inode)) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_thread_alone_holds_it_too() {
        netns::testing::apart(|| {
            let (_, inode) = own();
            assert!(shown().contains(&inode));
        });
    }
}
