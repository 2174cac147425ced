//! Doing something as another user.
#![allow(unsafe_code, reason = "libc's setresuid would change every thread of the process")]

use std::io;

use nix::errno::Errno;

use super::netns::in_thread;

#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
use libc::SYS_setresuid as SETRESUID;
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
use libc::SYS_setresuid32 as SETRESUID;

/// Does something with a user's ID as real and effective one. That happens in a thread that ends with it: threads
/// have user IDs of their own for the kernel, so nobody else changes, and there is no way back that could fail.
///
/// # Errors
/// The kernel's: not permitted, or no such user in this user namespace.
pub fn run_as<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    in_thread(|| {
        // SAFETY: the call takes three numbers and touches no memory; only the calling thread changes.
        Errno::result(unsafe { libc::syscall(SETRESUID, uid, uid, uid) })?;
        Ok(work())
    })?
}

/// Whether a user exists in this user namespace.
///
/// # Errors
/// `/proc` is not mounted.
pub fn is_mapped(uid: u32) -> io::Result<bool> {
    Ok(maps(&std::fs::read_to_string("/proc/thread-self/uid_map")?, uid))
}

/// Lines of first ID inside, first ID outside, how many.
fn maps(table: &str, uid: u32) -> bool {
    table.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(count))) = (numbers.next(), numbers.nth(1)) else { return false };
        (first..first.saturating_add(count)).contains(&u64::from(uid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_ranges() {
        assert!(maps("         0          0 4294967295\n", 5678));
        assert!(maps("0 1000 1\n1 100000 65536\n", 65536));
        assert!(!maps("0 1000 1\n1 100000 65536\n", 65537));
        assert!(!maps("0 1000 1\n", 1));
        assert!(!maps("nonsense\n", 0));
    }

    #[test]
    fn only_that_thread_changes() {
        if !crate::host::is_root() || !is_mapped(65534).unwrap() {
            assert!(std::env::var_os("CI").is_none(), "CI must run these tests as root");
            eprintln!("skipped: becoming another user needs root");
            return;
        }
        let uid = || nix::unistd::geteuid().as_raw();
        assert_eq!(run_as(65534, uid).unwrap(), 65534);
        assert_eq!(uid(), 0);
        assert_eq!(std::thread::spawn(uid).join().unwrap(), 0);
        assert!(run_as(65534, || run_as(1, || ())).unwrap().is_err(), "there is no way back");
    }
}
