//! A program of which one system call fails, or at one of whose system calls somebody is killed: the n-th call of one
//! number, made by the program or by the processes that it starts, whatever thread makes it.
//!
//! seccomp stops every call of that number and asks a supervisor ([`SECCOMP_RET_USER_NOTIF`]); all other calls run at
//! full speed. The filter is put on a thread, from which the program is started, and every thread and process after
//! it inherits it. When the last of them has ended the kernel says so, too, and nothing is left to wait for.
//!
//! [`SECCOMP_RET_USER_NOTIF`]: https://man7.org/linux/man-pages/man2/seccomp_unotify.2.html
#![allow(unsafe_code, reason = "seccomp and its notifications have no wrapper")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command::{Program, Run, unwrapped};
use super::lab;

/// Who makes a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The program that was started, in any of its threads.
    Program,
    /// A process that it forked and that has not become another program.
    Fork,
    /// Another program, as long as it is being loaded: to the first memory that is given back, which is the loader's
    /// list of libraries.
    Loader,
    /// Another program.
    Child,
}

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not made and returns this error.
    Error(Errno),
    /// The process that makes it gets a signal first.
    Signal(Signal),
    /// The program that was started gets a signal, while another process makes the call.
    SignalProgram(Signal),
}

/// Which call, and what happens at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injection {
    pub role: Role,
    /// `SYS_*`
    pub call: i64,
    /// From 1 on.
    pub nth: u32,
    pub fault: Fault,
}

/// How many calls of each number each made.
pub type Calls = BTreeMap<(Role, i64), u32>;

/// What became of a run.
pub struct Outcome {
    pub run: Run,
    /// The calls that were counted: all of them, or those of the number that was asked for.
    pub calls: Calls,
    /// Whether the call was made at all at which something was to happen.
    pub reached: bool,
    /// Processes had to be killed because they did not end.
    pub hung: bool,
}

/// Longer than all of the program's own deadlines together.
const PATIENCE: Duration = Duration::from_secs(100);

/// Runs a program with one fault, or none and then all calls are counted. Returns when it and all that it started have
/// ended; `then` runs when it has ended itself.
pub fn run(program: &Program, injection: Option<Injection>, then: impl FnOnce(&Run)) -> Outcome {
    let launcher = Launcher { listener: AtomicI32::new(0), thread: AtomicI32::new(0) };
    thread::scope(|scope| {
        let start = || {
            let run = launcher.launch(program, injection.map(|injection| injection.call));
            run.unwrap_or_else(|error| panic!("cannot start {program}: {error}"))
        };
        // Namespaces are inherited from this thread.
        let starter = thread::Builder::new().name("launcher".to_owned());
        let starter = starter.spawn_scoped(scope, start).expect("a thread");
        while launcher.listener.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        let listener = launcher.listener.load(Ordering::SeqCst);
        let mut supervisor = None;
        if listener > 0 {
            // SAFETY: the kernel made it for the launcher, who told its number and does nothing with it.
            let listener = unsafe { OwnedFd::from_raw_fd(listener) };
            let task = Supervisor::new(listener, launcher.thread.load(Ordering::SeqCst), injection);
            let thread = thread::Builder::new().name("supervisor".to_owned());
            supervisor = Some(thread.spawn_scoped(scope, || task.supervise()).expect("a thread"));
        }
        let run = starter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        then(&run);
        let done = supervisor.expect("a listener, else the launcher has panicked").join();
        let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Outcome { run, calls: done.calls, reached: done.reached, hung: done.hung }
    })
}

/// The thread from which the program is started.
struct Launcher {
    /// 0 at first; then the descriptor of the notifications, or negative without one.
    listener: AtomicI32,
    thread: AtomicI32,
}

impl Launcher {
    fn launch(&self, program: &Program, call: Option<i64>) -> std::io::Result<Run> {
        let files = ["stdout", "stderr"].map(|name| Path::new(lab::DIR).join(format!("injected-{name}")));
        let [stdout, stderr] =
            files.each_ref().map(|path| File::create(path).expect("a file in the private /run"));
        let mut command = program.command();
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        self.thread.store(nix::unistd::gettid().as_raw(), Ordering::SeqCst);
        let listener = listen(call);
        // From here on any call may have to wait for the supervisor, who begins when this is known.
        self.listener.store(listener.unwrap_or(-1), Ordering::SeqCst);
        listener?;
        let status = command.status()?;
        let [stdout, stderr] = files.map(|path| {
            String::from_utf8_lossy(&fs::read(path).expect("a file in the private /run")).into_owned()
        });
        let stderr = unwrapped(&stderr);
        Ok(Run { line: program.to_string(), code: status.code(), signal: status.signal(), stdout, stderr })
    }
}

/// Has the calls of one number, or all, told of this thread and whatever it starts.
fn listen(call: Option<i64>) -> Result<i32, Errno> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, k, jt, jf| {
        let code = u16::try_from(code).expect("numbers of BPF are small");
        libc::sock_filter { code, jt, jf, k }
    };
    let number = |call: i64| u32::try_from(call).expect("numbers of calls are small");
    // Programs of this architecture alone are started, so the number says what is called. The other two calls tell what
    // becomes of a process.
    let mut steps = vec![
        step(LOAD, 0, 0, 0),
        step(IF_EQUAL, number(call.unwrap_or(libc::SYS_execve)), 2, 0),
        step(IF_EQUAL, number(libc::SYS_execve), 1, 0),
        step(IF_EQUAL, number(libc::SYS_munmap), 0, 1),
        step(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    if call.is_none() {
        steps = vec![step(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0)];
    }
    let length = u16::try_from(steps.len()).expect("a few");
    let filter = libc::sock_fprog { len: length, filter: steps.as_mut_ptr() };
    // A signal that is sent to who waits for us is to meet it within its call, not before. Linux 5.19 or newer.
    let with = [libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, 0];
    let mut last = Errno::EINVAL;
    for more in with {
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | more;
        // SAFETY: the filter and its steps live to the end of the call, and the kernel copies them.
        let listener = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter)
        };
        match Errno::result(listener) {
            Ok(listener) => return Ok(i32::try_from(listener).expect("a descriptor")),
            Err(errno) => last = errno,
        }
    }
    Err(last)
}

/// Answers for the kernel.
struct Supervisor {
    listener: OwnedFd,
    launcher: u32,
    injection: Option<Injection>,
    /// The process ID of the program, once it has begun.
    program: Option<u32>,
    /// Of threads, which process they are of.
    processes: BTreeMap<u32, u32>,
    /// Of processes that became another program, whether they are loaded.
    loaded: BTreeMap<u32, bool>,
    calls: Calls,
    reached: bool,
    hung: bool,
}

impl Supervisor {
    fn new(listener: OwnedFd, launcher: i32, injection: Option<Injection>) -> Self {
        Self {
            listener,
            launcher: launcher.unsigned_abs(),
            injection,
            program: None,
            processes: BTreeMap::new(),
            loaded: BTreeMap::new(),
            calls: Calls::new(),
            reached: false,
            hung: false,
        }
    }

    /// Until the last process has ended.
    fn supervise(mut self) -> Self {
        let mut end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left.as_millis() + 1).expect("a minute or two");
            match poll(&mut fds, timeout) {
                Ok(0) => {
                    self.hung = true;
                    end = Instant::now() + PATIENCE;
                    end_all();
                    continue;
                }
                Err(Errno::EINTR) => continue,
                other => other.expect("a descriptor can be waited for"),
            };
            let events = fds[0].revents().unwrap_or(PollFlags::empty());
            if !events.contains(PollFlags::POLLIN) {
                assert!(events.contains(PollFlags::POLLHUP), "{events:?}");
                return self;
            }
            // Who made it may have been killed meanwhile.
            if let Some(call) = self.receive() {
                let error = self.judge(&call);
                self.answer(&call, error);
            }
        }
    }

    fn receive(&self) -> Option<libc::seccomp_notif> {
        // SAFETY: it is made of numbers alone, and has to be zero.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes within the structure.
        let result =
            unsafe { libc::ioctl(self.listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) };
        match Errno::result(result) {
            Ok(_) => Some(call),
            Err(Errno::ENOENT | Errno::EINTR) => None,
            Err(errno) => panic!("no notification: {errno}"),
        }
    }

    fn answer(&self, call: &libc::seccomp_notif, error: Option<Errno>) {
        let flags = if error.is_none() { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE } else { 0 };
        let answer = libc::seccomp_notif_resp {
            id: call.id,
            val: 0,
            error: error.map_or(0, |errno| -(errno as i32)),
            flags: u32::try_from(flags).expect("a flag"),
        };
        // SAFETY: the kernel reads the structure.
        let result = unsafe {
            libc::ioctl(self.listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer)
        };
        match Errno::result(result) {
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(errno) => panic!("no answer: {errno}"),
        }
    }

    /// What happens at this call; `None`: it is made.
    fn judge(&mut self, call: &libc::seccomp_notif) -> Option<Errno> {
        let number = i64::from(call.data.nr);
        if call.pid == self.launcher {
            return None;
        }
        let Some(program) = self.program else {
            // What comes before it is that of a child that is not yet the program.
            if number == libc::SYS_execve {
                self.program = Some(call.pid);
            }
            return None;
        };
        let process = *self.processes.entry(call.pid).or_insert_with(|| process_of(call.pid));
        let role = match self.loaded.get(&process) {
            _ if process == program => Role::Program,
            None => Role::Fork,
            Some(false) if has_loader(process) => Role::Loader,
            Some(_) => Role::Child,
        };
        match (role, number) {
            (Role::Fork | Role::Child, libc::SYS_execve) => self.loaded.insert(process, false),
            (Role::Loader, libc::SYS_munmap) => self.loaded.insert(process, true),
            _ => None,
        };
        if self.injection.is_some_and(|injection| injection.call != number) {
            return None;
        }
        let count = self.calls.entry((role, number)).or_default();
        *count += 1;
        let injection = self.injection?;
        if injection.role != role || injection.nth != *count {
            return None;
        }
        self.reached = true;
        let signal = |process: u32, signal| {
            let pid = Pid::from_raw(i32::try_from(process).expect("process ids fit"));
            let _ = kill(pid, signal);
        };
        match injection.fault {
            Fault::Error(errno) => return Some(errno),
            Fault::Signal(number) => signal(process, number),
            // It is gone, as long as nobody has asked how it ended.
            Fault::SignalProgram(number) if process_of(program) == program => signal(program, number),
            Fault::SignalProgram(_) => {}
        }
        None
    }
}

/// The process that a thread is of; itself if it is gone.
fn process_of(thread: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|id| id.trim().parse().ok()).unwrap_or(thread)
}

/// Whether a program needs libraries: the kernel tells it where it put the loader (`AT_BASE`).
fn has_loader(process: u32) -> bool {
    const BASE: usize = 7;
    let told = fs::read(format!("/proc/{process}/auxv")).unwrap_or_default();
    let words: Vec<usize> = told
        .chunks_exact(size_of::<usize>())
        .filter_map(|word| Some(usize::from_ne_bytes(word.try_into().ok()?)))
        .collect();
    words.chunks_exact(2).any(|pair| pair[0] == BASE && pair[1] != 0)
}

/// Kills whatever else is in this network namespace, which a lab made: all of it was started by the lab.
pub fn end_all() {
    lab::in_a_namespace_of_our_own();
    let here = fs::read_link("/proc/thread-self/ns/net").expect("a network namespace");
    for entry in fs::read_dir("/proc").expect("processes").filter_map(Result::ok) {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let inside = fs::read_link(entry.path().join("ns/net")).is_ok_and(|there| there == here);
        if inside && id != std::process::id().cast_signed() {
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}
