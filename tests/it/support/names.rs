//! Abstract Unix addresses that somebody has taken, in every way that there is.
#![allow(
    unsafe_code,
    reason = "only the raw system call changes the capabilities of one thread and not of the process"
)]

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept, bind, connect, listen, setsockopt, socket,
    sockopt,
};

/// The names that runs take.
pub const INSTALLATION: &str = "tproxy lock";
pub const VERIFICATION: &str = "tproxy verify";

/// How somebody takes a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Nobody can connect.
    Bound,
    /// And accepts nobody.
    Listening,
    /// And nobody else finds a place in its queue.
    Full,
    /// Its socket is connected to another one.
    Connected,
    /// Its listener is gone, and the name is bound again beside connections that bear it too.
    Survived,
}

impl How {
    pub const ALL: [Self; 5] = [Self::Bound, Self::Listening, Self::Full, Self::Connected, Self::Survived];
}

fn address(name: &str) -> UnixAddr {
    UnixAddr::new_abstract(name.as_bytes()).expect("a short name")
}

pub fn stream() -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None).expect("a socket")
}

fn listener(socket: OwnedFd, name: &str, queue: i32) -> OwnedFd {
    bind(socket.as_raw_fd(), &address(name)).expect("nobody has it");
    listen(&socket, Backlog::new(queue).expect("a length")).expect("it listens");
    socket
}

/// Takes a name. It is free again when what this returns is closed.
pub fn take(name: &str, how: How) -> Vec<OwnedFd> {
    match how {
        How::Bound => {
            let socket = stream();
            bind(socket.as_raw_fd(), &address(name)).expect("nobody has it");
            vec![socket]
        }
        How::Listening => vec![listener(stream(), name, 5)],
        How::Full => {
            let mut all = vec![listener(stream(), name, 0)];
            all.extend(fill(name));
            all
        }
        How::Connected => {
            let other = format!("{name} and another");
            let (there, here) = (listener(stream(), &other, 5), stream());
            bind(here.as_raw_fd(), &address(name)).expect("nobody has it");
            connect(here.as_raw_fd(), &address(&other)).expect("it listens");
            vec![there, here]
        }
        How::Survived => {
            let there = listener(stream(), name, 5);
            let mut all = fill(name);
            while let Ok(accepted) = accept(there.as_raw_fd()) {
                // SAFETY: accept(2) has just made it, and nobody else knows it.
                all.push(unsafe { std::os::fd::FromRawFd::from_raw_fd(accepted) });
            }
            drop(there);
            all.extend(take(name, How::Listening));
            all
        }
    }
}

/// Takes every place in the queue of whoever listens at a name.
pub fn fill(name: &str) -> Vec<OwnedFd> {
    let mut all = Vec::new();
    loop {
        let caller = stream();
        match connect(caller.as_raw_fd(), &address(name)) {
            Ok(()) => all.push(caller),
            Err(Errno::EAGAIN) => return all,
            Err(errno) => panic!("{errno}"),
        }
    }
}

/// Takes a name as a run of the program does, with proof that it may change the firewall. `None` where nobody can
/// prove that: in a user namespace.
pub fn take_as_a_run(name: &str) -> Option<OwnedFd> {
    let socket = stream();
    match setsockopt(&socket, sockopt::RcvBufForce, &(1 << 30)) {
        Ok(()) => Some(listener(socket, name, 5)),
        Err(errno) => {
            assert!(std::env::var_os("CI").is_none(), "CI must run these tests as root");
            eprintln!("skipped: a run in a user namespace cannot prove to be one ({errno})");
            None
        }
    }
}

/// Does something as root without any capability, as a container of the same pod may be.
#[track_caller]
pub fn as_root_without_capabilities<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(move || {
        drop_capabilities().unwrap_or_else(|error| panic!("capabilities cannot be dropped: {error}"));
        setsockopt(&stream(), sockopt::RcvBufForce, &(1 << 30)).expect_err("a capability is left");
        body()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn drop_capabilities() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3` of the kernel's `include/uapi/linux/capability.h`.
    const VERSION: u32 = 0x2008_0522;
    let (header, none) = ([VERSION, 0], [0u32; 6]);
    // SAFETY: the call reads the eight and twenty-four bytes that it is given; it changes the calling thread alone.
    match unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const none) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
