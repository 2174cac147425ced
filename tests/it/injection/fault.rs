//! What can happen at which calls, in words and out of them.

use std::collections::BTreeMap;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::support::injector::{Calls, Fault, Injection, Role};

/// Names of calls. One that is not here goes by its number.
macro_rules! names {
    ($($(#[$meta:meta])* $name:ident)+) => {
        fn names() -> Vec<(i64, &'static str)> {
            vec![$($(#[$meta])* (libc::$name, &stringify!($name)["SYS_".len()..])),+]
        }
    };
}

names! {
    SYS_accept4 SYS_bind SYS_brk SYS_capget SYS_chdir SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_clone
    SYS_clone3 SYS_close SYS_close_range SYS_connect SYS_copy_file_range SYS_dup SYS_dup3 SYS_epoll_create1
    SYS_epoll_ctl SYS_epoll_pwait SYS_eventfd2 SYS_execve SYS_exit SYS_exit_group SYS_faccessat SYS_faccessat2
    SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync SYS_flock SYS_fstat SYS_fstatfs
    SYS_fsync SYS_ftruncate SYS_futex SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid SYS_getpeername
    SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority SYS_getrandom SYS_getrlimit SYS_getsockname SYS_getsockopt
    SYS_gettid SYS_getuid SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch SYS_ioctl SYS_kill SYS_linkat
    SYS_listen SYS_lseek SYS_madvise SYS_membarrier SYS_memfd_create SYS_mkdirat SYS_mmap SYS_mount SYS_mprotect
    SYS_mremap SYS_munmap SYS_name_to_handle_at SYS_nanosleep SYS_newfstatat SYS_openat SYS_openat2 SYS_pidfd_getfd
    SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2 SYS_ppoll SYS_prctl SYS_pread64 SYS_prlimit64 SYS_pselect6 SYS_pwrite64 SYS_read
    SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_renameat SYS_renameat2 SYS_restart_syscall
    SYS_rseq SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigsuspend
    SYS_rt_sigtimedwait SYS_sched_getaffinity SYS_sched_yield SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_set_robust_list
    SYS_set_tid_address SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups SYS_setns SYS_setpgid SYS_setresgid
    SYS_setresuid SYS_setsid SYS_setsockopt SYS_setuid SYS_shutdown SYS_sigaltstack SYS_socket SYS_socketpair SYS_splice
    SYS_statfs SYS_statx SYS_symlinkat SYS_sysinfo SYS_tgkill SYS_timerfd_create SYS_timerfd_settime SYS_tkill
    SYS_umask SYS_umount2 SYS_uname SYS_unlinkat SYS_unshare SYS_utimensat SYS_wait4 SYS_waitid SYS_write SYS_writev
    #[cfg(target_arch = "x86_64")] SYS_access
    #[cfg(target_arch = "x86_64")] SYS_alarm
    #[cfg(target_arch = "x86_64")] SYS_arch_prctl
    #[cfg(target_arch = "x86_64")] SYS_chmod
    #[cfg(target_arch = "x86_64")] SYS_chown
    #[cfg(target_arch = "x86_64")] SYS_dup2
    #[cfg(target_arch = "x86_64")] SYS_epoll_wait
    #[cfg(target_arch = "x86_64")] SYS_fork
    #[cfg(target_arch = "x86_64")] SYS_getdents
    #[cfg(target_arch = "x86_64")] SYS_getpgrp
    #[cfg(target_arch = "x86_64")] SYS_inotify_init
    #[cfg(target_arch = "x86_64")] SYS_link
    #[cfg(target_arch = "x86_64")] SYS_lstat
    #[cfg(target_arch = "x86_64")] SYS_mkdir
    #[cfg(target_arch = "x86_64")] SYS_open
    #[cfg(target_arch = "x86_64")] SYS_pause
    #[cfg(target_arch = "x86_64")] SYS_pipe
    #[cfg(target_arch = "x86_64")] SYS_poll
    #[cfg(target_arch = "x86_64")] SYS_readlink
    #[cfg(target_arch = "x86_64")] SYS_rename
    #[cfg(target_arch = "x86_64")] SYS_rmdir
    #[cfg(target_arch = "x86_64")] SYS_select
    #[cfg(target_arch = "x86_64")] SYS_stat
    #[cfg(target_arch = "x86_64")] SYS_symlink
    #[cfg(target_arch = "x86_64")] SYS_time
    #[cfg(target_arch = "x86_64")] SYS_unlink
    #[cfg(target_arch = "x86_64")] SYS_vfork
}

/// Calls that Linux never fails for a program that gives them what they ask for, as all programs here do. What they
/// return is not looked at by anybody, or has no room for an error. Signals can arrive at them all the same.
fn never_fails(call: i64) -> bool {
    let always = [
        // The descriptor is closed, whatever is returned. (NFS returns what a write before it could not.)
        libc::SYS_close,
        libc::SYS_close_range,
        // Memory of one's own: given back, or made readable or writable again by the same pages' owner.
        libc::SYS_munmap,
        libc::SYS_madvise,
        // Not one of the reasons to fail that these have for a word of one's own memory.
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_membarrier,
        // Random numbers are always there once the machine has started; the standard library copes where there is no
        // such call.
        libc::SYS_getrandom,
        // There is no return.
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_rt_sigreturn,
        libc::SYS_restart_syscall,
        // A number is the answer, whatever number.
        libc::SYS_getpid,
        libc::SYS_getppid,
        libc::SYS_gettid,
        libc::SYS_getuid,
        libc::SYS_geteuid,
        libc::SYS_getgid,
        libc::SYS_getegid,
        libc::SYS_umask,
        libc::SYS_setfsuid,
        libc::SYS_setfsgid,
        libc::SYS_set_tid_address,
        libc::SYS_brk,
        // Only a bad argument is an error.
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_sigaltstack,
        libc::SYS_uname,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_nanosleep,
        libc::SYS_sched_getaffinity,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_arch_prctl,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_time,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_alarm,
    ];
    always.contains(&call)
}

const ERRORS: [Errno; 3] = [Errno::ENOMEM, Errno::EPERM, Errno::EIO];
const SIGNALS: [Signal; 2] = [Signal::SIGKILL, Signal::SIGTERM];

/// By which a process changes, or asks, something that is not itself. Between two of them its death is the same to all
/// others as at the next one.
fn is_step(call: i64) -> bool {
    let steps = [
        libc::SYS_execve,
        libc::SYS_exit_group,
        libc::SYS_flock,
        libc::SYS_mkdirat,
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_sendmmsg,
        libc::SYS_sendmsg,
        libc::SYS_sendto,
        libc::SYS_setsockopt,
        libc::SYS_unlinkat,
        libc::SYS_write,
        libc::SYS_writev,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mkdir,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rename,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink,
    ];
    steps.contains(&call)
}

/// Every fault at every call.
pub fn every(calls: &Calls) -> Vec<Injection> {
    let mut all = Vec::new();
    for (&(role, call), &count) in calls {
        let errors = ERRORS.into_iter().filter(|_| !never_fails(call)).map(Fault::Error);
        let signals = SIGNALS.into_iter().map(Fault::Signal);
        let elsewhere = SIGNALS.into_iter().filter(|_| role != Role::Program).map(Fault::SignalProgram);
        let faults: Vec<Fault> = errors.chain(signals).chain(elsewhere).collect();
        for nth in 1..=count {
            all.extend(faults.iter().map(|&fault| Injection { role, call, nth, fault }));
        }
    }
    all
}

/// So many calls of one number by one role are tried one by one, and so many of all that come after them.
const MANY: u32 = 10;

/// Those that can tell something that others do not:
/// * Of another program, signals at its steps alone, and of its loader, which ends it the same way whatever call of it
///   fails, the opening of libraries alone.
/// * Of a call that is made over and over again, such as by probe after probe, the first, and others evenly among the
///   rest, to the last.
pub fn telling(calls: &Calls) -> Vec<Injection> {
    let mut all = every(calls);
    all.retain(|injection| {
        let count = calls[&(injection.role, injection.call)];
        let stride = count.saturating_sub(MANY).div_ceil(MANY).max(1);
        let among = injection.nth <= MANY || (count - injection.nth).is_multiple_of(stride);
        let signal = !matches!(injection.fault, Fault::Error(_));
        among
            && match injection.role {
                Role::Program => true,
                Role::Fork => is_step(injection.call) || !matches!(injection.fault, Fault::SignalProgram(_)),
                Role::Child => is_step(injection.call) || !signal,
                Role::Loader => injection.call == libc::SYS_openat && !signal,
            }
    });
    all
}

const ROLES: [(Role, &str); 4] =
    [(Role::Program, "program"), (Role::Fork, "fork"), (Role::Loader, "loader"), (Role::Child, "child")];

/// `program:sendto:3:ENOMEM`, `child:write:1:SIGKILL`, or with `program-SIGKILL` the program at a call of another.
pub fn text(injection: &Injection) -> String {
    let role = ROLES.into_iter().find(|(role, _)| *role == injection.role).map_or("", |(_, name)| name);
    let fault = match injection.fault {
        Fault::Error(errno) => format!("{errno:?}"),
        Fault::Signal(signal) => signal.to_string(),
        Fault::SignalProgram(signal) => format!("program-{signal}"),
    };
    format!("{role}:{}:{}:{fault}", name(injection.call), injection.nth)
}

/// What a call is called.
pub fn name(call: i64) -> String {
    let name = names().into_iter().find(|(number, _)| *number == call);
    name.map_or_else(|| call.to_string(), |(_, name)| name.to_owned())
}

/// Reads what [`text`] writes.
pub fn read(text: &str) -> Option<Injection> {
    let [role, call, nth, fault] = text.split(':').collect::<Vec<_>>().try_into().ok()?;
    let (role, _) = ROLES.into_iter().find(|(_, name)| *name == role)?;
    let numbers: BTreeMap<&str, i64> = names().into_iter().map(|(number, name)| (name, number)).collect();
    let call = numbers.get(call).copied().or_else(|| call.parse().ok())?;
    let error = ERRORS.into_iter().find(|errno| format!("{errno:?}") == fault).map(Fault::Error);
    let signal = |name: &str| name.parse::<Signal>().ok();
    let fault = match fault.strip_prefix("program-") {
        Some(rest) => Fault::SignalProgram(signal(rest)?),
        None => error.or_else(|| signal(fault).map(Fault::Signal))?,
    };
    Some(Injection { role, call, nth: nth.parse().ok()?, fault })
}

/// So many of a list, chosen by a number: the same list and number give the same ones.
pub fn some<T>(mut all: Vec<T>, count: usize, seed: u64) -> Vec<T> {
    let wanted = count.min(all.len());
    let mut state = seed;
    // The first places of a shuffle (Fisher and Yates), with splitmix64 as the dice.
    for place in 0..wanted {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut random = state;
        random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        random = (random ^ (random >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        random ^= random >> 31;
        let left = (all.len() - place) as u64;
        all.swap(place, place + usize::try_from(random % left).expect("an index"));
    }
    all.truncate(wanted);
    all
}
