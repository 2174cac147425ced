//! Doing something as another user.
#![allow(unsafe_code, reason = "libc's setresuid would change every thread of the process")]

use std::io;
use std::ops::Range;

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
