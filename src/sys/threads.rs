//! Threads that are made or refused, and nothing in between.
//!
//! The standard library maps a stack for signals in each new thread and panics in that thread where it gets none, which
//! ends the program, perhaps with half of an installation done. What a thread of `pthread_create` needs is allocated by
//! who makes it, so a lack is an error there.
#![allow(unsafe_code, reason = "threads of POSIX have no wrapper")]

use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use libc::{c_int, c_void, pthread_t};

/// Bytes, as the standard library has it, whatever `RUST_MIN_STACK` says: a thread that runs out of a tiny one ends the
/// program.
const STACK: usize = 2 * 1024 * 1024;

type Work<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Does something in a thread of its own, whose identity it may change, and waits for it.
///
/// # Errors
/// The thread cannot be made, or panicked.
pub fn alone<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let mut result = None;
    let place = &mut result;
    // SAFETY: it is joined in the next line, before anything that it borrows ends.
    let thread = unsafe { Joined::start(Box::new(move || *place = Some(work()))) }?;
    drop(thread);
    result.ok_or_else(|| io::Error::other("the thread panicked"))
}

/// Does the same in so many threads, or as many as can be made, and waits for them all. Returns how many there were.
pub fn together(count: usize, work: impl Fn() + Sync) -> usize {
    let work = &work;
    let mut threads = Vec::with_capacity(count);
    for _ in 0..count {
        // SAFETY: all are joined at the end of this function, before what it was given ends.
        threads.extend(unsafe { Joined::start(Box::new(work)) });
    }
    threads.len()
}

/// Does something in a thread that nobody waits for.
///
/// # Errors
/// The thread cannot be made.
pub fn detached(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // SAFETY: it borrows nothing.
    let thread = unsafe { start(Box::new(work)) }?;
    // SAFETY: it was just made, and is joined by nobody.
    check(unsafe { libc::pthread_detach(thread) })
}

/// A thread that is waited for when this goes.
struct Joined(pthread_t);

impl Joined {
    /// # Safety
    /// It has to go before what the work borrows.
    unsafe fn start(work: Work<'_>) -> io::Result<Self> {
        // SAFETY: as here.
        unsafe { start(work) }.map(Self)
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        // SAFETY: it was made, and is joined here alone.
        let joined = unsafe { libc::pthread_join(self.0, std::ptr::null_mut()) };
        if joined != 0 {
            // It may use what is about to go. POSIX has no such error for a thread that was made.
            std::process::abort();
        }
    }
}

/// # Safety
/// The thread has to end before what the work borrows.
unsafe fn start(work: Work<'_>) -> io::Result<pthread_t> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: it initializes what it is given.
    check(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) })?;
    let mut thread = MaybeUninit::<pthread_t>::uninit();
    let work = Box::into_raw(Box::new(work));
    // SAFETY: the attributes are initialized, and destroyed after their last use. The thread takes the work over if it
    // is made.
    let made = unsafe {
        let _ = libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), STACK);
        let made = libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), begin, work.cast());
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        made
    };
    if made != 0 {
        // SAFETY: there is no thread that took it over.
        drop(unsafe { Box::from_raw(work) });
    }
    check(made)?;
    // SAFETY: the thread was made, so its name was written.
    Ok(unsafe { thread.assume_init() })
}

extern "C" fn begin(work: *mut c_void) -> *mut c_void {
    // SAFETY: it is the box of boxed work that this thread was given, and nobody else's any more.
    let work = unsafe { Box::from_raw(work.cast::<Work<'_>>()) };
    // A panic said so already. Whoever waits finds no result.
    let _ = catch_unwind(AssertUnwindSafe(work));
    std::ptr::null_mut()
}

fn check(code: c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn results_come_back_and_panics_are_errors() {
        let words = String::from("borrowed");
        assert_eq!(alone(|| words.len()).unwrap(), 8);
        assert!(alone(|| panic!("as intended")).is_err() && words.len() == 8);
        let (here, there) = (nix::unistd::gettid(), alone(nix::unistd::gettid).unwrap());
        assert_ne!(here, there);
    }

    #[test]
    fn many_work_at_the_same_time() {
        let (barrier, done) = (Barrier::new(64), AtomicUsize::new(0));
        let threads = together(64, || {
            barrier.wait();
            done.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!((threads, done.into_inner()), (64, 64));
    }

    #[test]
    fn a_detached_one_goes_on_by_itself() {
        let (send, receive) = mpsc::channel();
        detached(move || send.send(7).unwrap()).unwrap();
        assert_eq!(receive.recv(), Ok(7));
        assert_eq!(receive.recv(), Err(mpsc::RecvError), "what it had is gone with it");
    }
}
