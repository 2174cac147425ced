//! Doing something as another user.

use std::io;
use std::ops::Range;

use nix::errno::Errno;
use nix::unistd::{Uid, setfsuid};

use super::{rights, threads};

/// Does something with the sockets and files of another user. That happens in a thread that ends with it: threads have
/// credentials of their own for the kernel, so no other thread changes, and there is no way back that could fail.
///
/// Only the file system UID changes, of which sockets take their owner: netfilter's owner matches read the `fsuid` of
/// the credentials that opened the socket (`xt_owner`, `meta skuid`), routing rules (`uidrange`) the owner of its inode,
/// which is the same. The real, effective and saved UIDs stay, because they decide who may signal and trace a thread
/// (`kill_ok_by_cred` and `__ptrace_may_access` in Linux): a user whose UID were among them could stop this process or
/// kill it half-way.
///
/// Capabilities count no longer, as for a process of that user, so that nothing succeeds which is refused to the user.
/// They stay permitted, for `cap_ptrace_access_check` compares with those.
///
/// # Errors
/// The kernel's: not permitted (EPERM), or no such user in this user namespace (EINVAL).
pub fn run_as<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    threads::alone(|| {
        if borrow(uid)? {
            rights::give_up()?;
        }
        Ok(work())
    })?
}

/// The same with this process's capabilities, to make a socket that takes some and is another user's to every rule.
///
/// # Errors
/// As above.
pub fn own_as<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    threads::alone(|| {
        borrow(uid)?;
        Ok(work())
    })?
}

/// Takes a file system UID for the calling thread; `false` if it has it already.
fn borrow(uid: u32) -> io::Result<bool> {
    // The call reports no error: it returns what the UID was before, so a second one tells what the first one did. No
    // user has this UID, so the second changes nothing.
    let now = || setfsuid(Uid::from_raw(u32::MAX)).as_raw();
    let before = now();
    if before == uid {
        return Ok(false);
    }
    setfsuid(Uid::from_raw(uid));
    if now() != uid {
        let errno = if is_mapped(uid)? { Errno::EPERM } else { Errno::EINVAL };
        return Err(errno.into());
    }
    Ok(true)
}

/// Whether a user exists in this user namespace.
///
/// # Errors
/// As those of [`mapped`].
pub fn is_mapped(uid: u32) -> io::Result<bool> {
    Ok(mapped()?.iter().any(|uids| uids.contains(&u64::from(uid))))
}

/// The users who exist in this user namespace, in order (`user_namespaces(7)`).
///
/// # Errors
/// `/proc` is not mounted.
pub fn mapped() -> io::Result<Vec<Range<u64>>> {
    Ok(read_map(&std::fs::read_to_string("/proc/thread-self/uid_map")?))
}

/// Lines of first ID inside, first ID outside, how many.
fn read_map(table: &str) -> Vec<Range<u64>> {
    let mut users: Vec<Range<u64>> = table
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
            let (Some(Ok(first)), Some(Ok(count))) = (numbers.next(), numbers.nth(1)) else { return None };
            Some(first..first.saturating_add(count))
        })
        .collect();
    users.sort_unstable_by_key(|users| users.start);
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_ranges() {
        assert_eq!(read_map("         0          0 4294967295\n"), std::slice::from_ref(&(0..4_294_967_295)));
        assert_eq!(read_map("1 100000 65536\n0 1000 1\n"), [0..1, 1..65537]);
        for nonsense in ["", "nonsense\n", "0 0", "-1 0 1", "0 x y"] {
            assert_eq!(read_map(nonsense), [], "{nonsense}");
        }
    }

    /// Whether tests can be another user here.
    fn can_borrow() -> bool {
        let can = crate::host::is_root() && is_mapped(65534).unwrap();
        if !can {
            assert!(std::env::var_os("CI").is_none(), "CI must run these tests as root");
            eprintln!("skipped: becoming another user needs root");
        }
        can
    }

    /// A line of `/proc/thread-self/status`.
    fn status(key: &str) -> String {
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_that_thread_changes() {
        if !can_borrow() {
            return;
        }
        let uids = || status("Uid");
        let capabilities = status("CapEff");
        assert_eq!(run_as(65534, uids).unwrap(), "0 0 0 65534", "real, effective, saved and file system UID");
        assert_eq!(run_as(65534, || status("CapEff")).unwrap(), "0".repeat(16));
        assert_eq!(run_as(65534, || status("CapPrm")).unwrap(), status("CapPrm"));
        assert_eq!((uids(), status("CapEff")), ("0 0 0 0".to_owned(), capabilities.clone()));
        assert_eq!(std::thread::spawn(uids).join().unwrap(), "0 0 0 0");
        assert!(run_as(65534, || run_as(1, || ())).unwrap().is_err(), "there is no way back");
        assert_eq!(run_as(0, || status("CapEff")).unwrap(), capabilities, "one's own user keeps all");
    }

    #[test]
    fn sockets_are_that_user_s() {
        use std::os::unix::fs::MetadataExt as _;
        if !can_borrow() {
            return;
        }
        let owner = || {
            use std::os::fd::AsRawFd as _;
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            std::fs::metadata(format!("/proc/thread-self/fd/{}", socket.as_raw_fd())).unwrap().uid()
        };
        assert_eq!((run_as(65534, owner).unwrap(), owner()), (65534, 0));
    }

    #[test]
    fn nothing_succeeds_that_is_refused_to_that_user() {
        if !can_borrow() {
            return;
        }
        super::super::netns::testing::apart(|| {
            let bind = || std::net::UdpSocket::bind("0.0.0.0:1").map_err(|error| error.kind()).err();
            assert_eq!(bind(), None);
            assert_eq!(run_as(65534, bind).unwrap(), Some(io::ErrorKind::PermissionDenied));
        });
    }

    /// What a process of the user can do to the thread that has borrowed the UID.
    #[test]
    fn that_user_can_neither_signal_nor_trace_the_thread() {
        use std::os::unix::process::CommandExt as _;
        if !can_borrow() {
            return;
        }
        let try_all = r#"
            kill -0 "$2" 2>/dev/null && echo signal
            for file in mem environ syscall maps fd/0 ns/net; do
                (exec 3<"/proc/$1/task/$2/$file") 2>/dev/null && echo "$file"
            done
            id -u
        "#;
        let process = std::process::id().to_string();
        let (tell, thread) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let output = std::thread::scope(|scope| {
            let borrower = scope.spawn(move || {
                run_as(65534, move || {
                    tell.send(nix::unistd::gettid().to_string()).unwrap();
                    let _ = ended.recv();
                })
            });
            let thread = thread.recv().unwrap();
            let mut attacker = std::process::Command::new("sh");
            attacker.args(["-c", try_all, "sh", &process, &thread]).uid(65534).gid(65534);
            let output = attacker.output();
            drop(end);
            borrower.join().unwrap().unwrap();
            output.unwrap()
        });
        assert_eq!(String::from_utf8_lossy(&output.stdout), "65534\n", "what was possible, and who tried");
    }
}
