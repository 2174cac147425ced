//! Being somebody else, for one thread.
#![allow(
    unsafe_code,
    reason = "only the raw system call changes the user of one thread and not of the process"
)]

use std::io;
use std::thread;

/// The sidecar's user: the UID that Kuma documents.
pub const SIDECAR: u32 = 5678;
/// An ordinary application's user.
pub const APP: u32 = 5700;

/// Runs `body` on a thread of its own that belongs to `uid`: sockets it opens are that user's for the owner match.
#[track_caller]
pub fn as_user<T: Send + 'static>(uid: u32, body: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::Builder::new()
        .name(format!("uid {uid}"))
        .spawn(move || {
            become_user(uid).unwrap_or_else(|error| panic!("cannot become user {uid}: {error}"));
            body()
        })
        .expect("a thread");
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn become_user(uid: u32) -> io::Result<()> {
    for call in [libc::SYS_setresgid, libc::SYS_setresuid] {
        // SAFETY: the call takes three integers and touches no memory; it changes the calling thread alone.
        if unsafe { libc::syscall(call, uid, uid, uid) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether this user exists in the current user namespace.
pub fn exists_here(uid: u32) -> bool {
    std::fs::read_to_string("/proc/thread-self/uid_map").is_ok_and(|map| {
        map.lines().any(|line| {
            let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
            let (Some(first), Some(_), Some(count)) = (numbers.next(), numbers.next(), numbers.next()) else {
                return false;
            };
            (first..first + count).contains(&u64::from(uid))
        })
    })
}
