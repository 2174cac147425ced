//! The open files of all processes, looked through with an end: every user can have as many as they like.
#![allow(unsafe_code, reason = "statx has no wrapper")]

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::holder::{Holder, process};
use super::signal;

const ROOT: u32 = 0;

/// How much a search looks at: descriptors, and processes, each of which counts as one more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Of one process before all others had their turn: what a program opens first, it has all the time.
    pub first: usize,
    /// Of the processes of one user, so that none of them hides those of others behind theirs.
    pub of_a_user: usize,
    /// In all.
    pub in_all: usize,
    /// Ends when a signal asked this process to stop.
    pub until_signal: bool,
}

/// For questions whose answer only names a process. A descriptor takes some microseconds.
const NAMES: Limits = Limits { first: 1000, of_a_user: 20_000, in_all: 100_000, until_signal: true };

/// For the question who keeps a lock, which decides what a run does. Signals do not cut it short: a roll back asks it too.
pub(super) const KEEPERS: Limits =
    Limits { first: 1000, of_a_user: 100_000, in_all: 100_000, until_signal: false };

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// All was looked at, or the visitor had enough.
    Whole,
    /// A limit was reached.
    Cut,
}

/// Processes with an open socket, each by the socket's inode; seen only by those who may look into other users'
/// processes. `sockets`: inodes, and who made each. One search serves all of them. A socket that a user made is looked
/// for in the processes of that user and of root, one that root made in all: many programs make their sockets as root and
/// then become another user. What is not found in a bounded time is absent.
pub fn socket_holders(sockets: impl IntoIterator<Item = (u32, u32)>) -> HashMap<u32, Holder> {
    holders_below(Path::new("/proc"), sockets, NAMES).0
}

/// The same for one socket, whoever made it.
pub fn socket_holder(inode: u32) -> Option<Holder> {
    socket_holders([(inode, ROOT)]).remove(&inode)
}

/// The second result is the number of descriptors that were looked at.
fn holders_below(
    root: &Path,
    sockets: impl IntoIterator<Item = (u32, u32)>,
    limits: Limits,
) -> (HashMap<u32, Holder>, usize) {
    let (mut wanted, makers): (HashSet<u32>, HashSet<u32>) = sockets.into_iter().unzip();
    let mut found: HashMap<u32, u32> = HashMap::new();
    let mut looks = 0;
    if wanted.is_empty() {
        return (HashMap::new(), looks);
    }
    let turn = |uid: u32| match uid {
        _ if uid != ROOT && makers.contains(&uid) => Some(0),
        ROOT => Some(1),
        _ => makers.contains(&ROOT).then_some(2),
    };
    search(root, "fd", turn, limits, |pid, file| {
        looks += 1;
        if let Some(inode) = socket_of(file).filter(|inode| wanted.remove(inode)) {
            found.insert(inode, pid);
        }
        wanted.is_empty()
    });
    let mut known: HashMap<u32, Holder> = HashMap::new();
    let named = |(inode, pid): (u32, u32)| (inode, known.entry(pid).or_insert_with(|| process(pid)).clone());
    (found.into_iter().map(named).collect(), looks)
}

/// The inode of a socket, from a link such as `socket:[4242]`.
fn socket_of(file: &Path) -> Option<u32> {
    let to = fs::read_link(file).ok()?;
    to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Device and inode of an open file, by its name in `/proc/PID/fd`. Its file system is asked for nothing that it does not
/// know (`AT_STATX_DONT_SYNC`): that of another machine may never answer.
pub(super) fn identity(file: &Path) -> Option<(u64, u64)> {
    let name = CString::new(file.as_os_str().as_bytes()).ok()?;
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the name ends with a zero byte, and the kernel writes no more than the structure.
    let done = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            name.as_ptr(),
            libc::AT_STATX_DONT_SYNC,
            libc::STATX_INO,
            found.as_mut_ptr(),
        )
    };
    // SAFETY: all of it is numbers, of which zero is one.
    let found = unsafe { found.assume_init() };
    (done == 0).then(|| (libc::makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino))
}

/// Shows the entries of `ROOT/PID/FILES` to `visit`, which says when it has enough. `turn`: which users' processes are
/// looked at, and whose come first.
pub(super) fn search(
    root: &Path,
    files: &str,
    turn: impl Fn(u32) -> Option<u8>,
    limits: Limits,
    mut visit: impl FnMut(u32, &Path) -> bool,
) -> End {
    let Ok(entries) = fs::read_dir(root) else { return End::Cut };
    let mut processes: Vec<(u8, u32, u32)> = entries
        .map_while(Result::ok)
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            // A process's directory is its effective user's, also where its files are root's alone.
            let uid = entry.metadata().ok()?.uid();
            Some((turn(uid)?, pid, uid))
        })
        .collect();
    processes.sort_unstable();
    let mut end = End::Whole;
    let mut in_all = 0;
    let mut by_user: HashMap<u32, usize> = HashMap::new();
    for round in [0..limits.first, limits.first..usize::MAX] {
        let mut larger = Vec::new();
        for (turn, pid, uid) in processes {
            let of_user = by_user.entry(uid).or_default();
            let mut spend = || {
                *of_user += 1;
                in_all += 1;
                *of_user <= limits.of_a_user && in_all <= limits.in_all
            };
            if limits.until_signal && signal::interrupted().is_some() {
                return End::Cut;
            }
            if !spend() {
                end = End::Cut;
                continue;
            }
            let Ok(open) = fs::read_dir(root.join(pid.to_string()).join(files)) else { continue };
            for (nth, file) in open.map_while(Result::ok).enumerate().skip(round.start) {
                if nth >= round.end {
                    larger.push((turn, pid, uid));
                    break;
                }
                if !spend() {
                    end = End::Cut;
                    break;
                }
                if visit(pid, &file.path()) {
                    return End::Whole;
                }
            }
        }
        processes = larger;
    }
    end
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::path::PathBuf;

    use super::*;

    const ALL: Limits = Limits { first: 1000, of_a_user: 9000, in_all: 9000, until_signal: false };

    /// A directory like `/proc`, with so many sockets in each process; they count on from 1.
    struct Proc(PathBuf);

    impl Proc {
        fn with(name: &str, processes: &[(u32, u32)]) -> Self {
            let root = std::env::temp_dir().join(format!("tproxy-{name}-{}", std::process::id()));
            let mut inode = 0;
            for (pid, sockets) in processes {
                let fd = root.join(pid.to_string()).join("fd");
                fs::create_dir_all(&fd).unwrap();
                for nth in 0..*sockets {
                    inode += 1;
                    std::os::unix::fs::symlink(format!("socket:[{inode}]"), fd.join(nth.to_string()))
                        .unwrap();
                }
            }
            Self(root)
        }

        fn uid(&self) -> u32 {
            fs::metadata(&self.0).unwrap().uid()
        }
    }

    impl Drop for Proc {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn many_sockets_are_looked_for_at_once() {
        let proc = Proc::with("once", &[(4_000_001, 2000), (4_000_002, 1)]);
        let (found, looks) = holders_below(&proc.0, (1..=2001).map(|inode| (inode, ROOT)), ALL);
        assert_eq!((found.len(), looks), (2001, 2001));
        assert_eq!((found[&1].pid, found[&2000].pid, found[&2001].pid), (4_000_001, 4_000_001, 4_000_002));
        // The last one is among the first of its process, so nearly half of the other's are not looked at.
        let (found, looks) = holders_below(&proc.0, [(2001, ROOT)], ALL);
        assert_eq!((found.len(), looks), (1, 1001));
        assert_eq!(holders_below(&proc.0, [], ALL), (HashMap::new(), 0));
    }

    #[test]
    fn a_search_has_an_end() {
        let proc = Proc::with("end", &[(4_000_001, 50), (4_000_002, 50)]);
        let limits = Limits { first: 10, ..ALL };
        let looks = |limits| holders_below(&proc.0, [(u32::MAX, ROOT)], limits).1;
        assert_eq!(looks(limits), 100);
        // Each process counts too, in each round.
        assert_eq!(looks(Limits { in_all: 30, ..limits }), 27);
        assert_eq!(looks(Limits { of_a_user: 30, ..limits }), 27);
        assert_eq!(search(&proc.0, "fd", |_| Some(0), limits, |_, _| false), End::Whole);
        let cut = Limits { in_all: 30, ..limits };
        assert_eq!(search(&proc.0, "fd", |_| Some(0), cut, |_, _| false), End::Cut);
    }

    #[test]
    fn other_users_processes_are_left_out() {
        let proc = Proc::with("users", &[(4_000_001, 1)]);
        let other = proc.uid() + 1;
        let (found, looks) = holders_below(&proc.0, [(1, other)], ALL);
        // Root's are always looked at.
        let expected = usize::from(proc.uid() == ROOT);
        assert_eq!((found.len(), looks), (expected, expected));
        assert_eq!(
            search(&proc.0, "fd", |uid| (uid == other).then_some(0), ALL, |_, _| panic!()),
            End::Whole
        );
    }

    #[test]
    fn an_open_file_is_known_by_device_and_inode() {
        let file = fs::File::open("/proc/self/exe").unwrap();
        let of = file.metadata().unwrap();
        let name = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        assert_eq!(identity(&name), Some((of.dev(), of.ino())));
        assert_eq!(identity(Path::new("/proc/self/fd/nothing")), None);
    }

    #[test]
    fn sockets_have_holders() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = socket_of(Path::new(&format!("/proc/self/fd/{}", socket.as_raw_fd()))).unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        assert_eq!(socket_holders([(inode, uid)])[&inode].pid, std::process::id());
        assert_eq!(socket_holder(u32::MAX), None);
    }
}
