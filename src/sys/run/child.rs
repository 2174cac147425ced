//! One child from its start to its end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Once;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::{Command, Output, PASSED_ON, PATH, RunError, STARTED};
use crate::sys::poll;

/// How long a killed child may take to disappear.
const DEATH: Duration = Duration::from_secs(2);

/// As much as a pipe holds by default.
const CHUNK: usize = 64 * 1024;

/// How the end of a child is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// By a pidfd, or where the kernel has none (before 5.3) by a thread.
    Pidfd,
    /// By a thread.
    #[cfg_attr(not(test), allow(dead_code, reason = "asked for by name only in tests"))]
    Thread,
}

pub(super) fn run(command: &Command, watch: Watch) -> Result<Output, RunError> {
    start(command, watch)?.finish()
}

/// A child under way, and when its time is over.
pub(super) struct Started<'a> {
    command: &'a Command,
    deadline: Option<Instant>,
    running: Running,
    ended: OwnedFd,
}

pub(super) fn start(command: &Command, watch: Watch) -> Result<Started<'_>, RunError> {
    let stdin = anonymous_file(&command.stdin).map_err(io_error(command, "cannot hold its input"))?;
    start_with(command, stdin, watch)
}

/// A child that is there already, but has nothing to read yet.
pub(super) struct Held<'a> {
    started: Started<'a>,
    input: io::PipeWriter,
}

pub(super) fn hold(command: &Command, watch: Watch) -> Result<Held<'_>, RunError> {
    let (stdin, input) = io::pipe().map_err(io_error(command, "cannot hold its input"))?;
    let started = start_with(command, File::from(OwnedFd::from(stdin)), watch)?;
    Ok(Held { started, input })
}

impl<'a> Held<'a> {
    pub(super) fn release(self) -> Result<Started<'a>, RunError> {
        let Self { mut started, mut input } = self;
        started.deadline = poll::deadline(started.command.deadline);
        match input.write_all(&started.command.stdin) {
            // A child that ended without reading has its reasons; they are in its output.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(io_error(started.command, "cannot give it its input")(error))
            }
            _ => Ok(started),
        }
    }
}

fn start_with(command: &Command, stdin: File, watch: Watch) -> Result<Started<'_>, RunError> {
    keep_children_waitable();
    let deadline = poll::deadline(command.deadline);
    let running = Running::start(command, stdin)?;
    let ended = running.watch(watch).map_err(io_error(command, "cannot watch it"))?;
    Ok(Started { command, deadline, running, ended })
}

impl Started<'_> {
    pub(super) fn finish(self) -> Result<Output, RunError> {
        let Self { command, deadline, mut running, ended } = self;
        if running.capture(&ended, deadline).map_err(io_error(command, "cannot read its output"))? {
            let status = running.reap().map_err(io_error(command, "cannot learn how it ended"))?;
            let mut output = std::mem::take(&mut running.output);
            output.code = status.code();
            output.signal = status.signal();
            return Ok(output);
        }
        running.kill();
        let alive = !gone(&ended);
        let output = Box::new(std::mem::take(&mut running.output));
        if alive {
            running.leave();
        }
        Err(RunError::Deadline { program: command.program.clone(), after: command.deadline, output, alive })
    }
}

fn io_error(command: &Command, what: &'static str) -> impl Fn(io::Error) -> RunError {
    let program = command.program.clone();
    move |source| RunError::Io { program: program.clone(), what, source }
}

/// A child that has not been reaped. Dropping it kills its group, so that no error path leaves it behind.
struct Running {
    child: Option<Child>,
    /// Equal to the group's ID. It cannot be used again by another process before the child is reaped.
    pid: Pid,
    pipes: [Option<File>; 2],
    output: Output,
}

impl Running {
    fn start(command: &Command, stdin: File) -> Result<Self, RunError> {
        // No pre_exec hook: with these settings the standard library uses posix_spawn, which does not copy our page
        // tables.
        let mut child = std::process::Command::new(&command.program);
        child.args(&command.args).env_clear().env("PATH", PATH).env("LC_ALL", "C");
        for name in PASSED_ON {
            if let Some(value) = std::env::var_os(name) {
                child.env(name, value);
            }
        }
        child.envs(command.env.iter().map(|(name, value)| (name, value)));
        child.process_group(0).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().map_err(|source| {
            // ENOENT is also what a script gets whose interpreter is missing.
            let program = command.program.clone();
            let there = program.has_root() && program.exists();
            match source.kind() {
                io::ErrorKind::NotFound if !there => RunError::NotFound { program },
                _ => RunError::Spawn { program, source },
            }
        })?;
        STARTED.fetch_add(1, Ordering::Relaxed);
        // Linux PIDs are below 2^22 (PID_MAX_LIMIT in the kernel's include/linux/threads.h).
        let pid = Pid::from_raw(child.id().cast_signed());
        let stdout = child.stdout.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        let stderr = child.stderr.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        Ok(Self { child: Some(child), pid, pipes: [stdout, stderr], output: Output::default() })
    }

    /// A descriptor that becomes ready when the child has ended.
    fn watch(&self, watch: Watch) -> io::Result<OwnedFd> {
        if watch == Watch::Pidfd {
            match pidfd(self.pid) {
                // Seccomp filters older than the call answer EPERM.
                Err(Errno::ENOSYS | Errno::EPERM) => {}
                other => return Ok(other?),
            }
        }
        let (ours, theirs) = io::pipe()?;
        let pid = self.pid;
        std::thread::Builder::new().name("wait for a child".into()).spawn(move || {
            // WNOWAIT leaves the reaping to us, so the PID stays the child's until then.
            while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
            drop(theirs);
        })?;
        Ok(ours.into())
    }

    /// Reads both pipes until the child has ended (`true`) or the deadline has passed (`false`).
    fn capture(&mut self, ended: &OwnedFd, deadline: Option<Instant>) -> io::Result<bool> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let mut fds = vec![PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
            let open = self.pipes.iter().enumerate().filter_map(|(i, pipe)| Some((i, pipe.as_ref()?)));
            let mut order = [0; 2];
            for (slot, (index, pipe)) in order.iter_mut().zip(open) {
                *slot = index;
                fds.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
            }
            if !poll::wait(&mut fds, deadline)? {
                return Ok(false);
            }
            let ready = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect::<Vec<_>>();
            if ready[0] {
                self.drain(&mut buffer)?;
                return Ok(true);
            }
            for (index, ready) in order.into_iter().zip(&ready[1..]) {
                if *ready {
                    self.read(index, &mut buffer)?;
                }
            }
        }
    }

    /// Takes what is in a pipe that is ready; forgets the pipe at its end. Returns how much it was.
    fn read(&mut self, index: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(pipe) = &mut self.pipes[index] else { return Ok(0) };
        let read = match pipe.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            other => other?,
        };
        if read == 0 {
            self.pipes[index] = None;
        }
        [&mut self.output.stdout, &mut self.output.stderr][index].extend_from_slice(&buffer[..read]);
        Ok(read)
    }

    /// Takes what the child left in the pipes, and no more: a grandchild may go on writing for ever.
    fn drain(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        for index in 0..self.pipes.len() {
            let Some(pipe) = &self.pipes[index] else { continue };
            let mut left = waiting(pipe)?;
            while left > 0 && self.pipes[index].is_some() {
                let most = buffer.len().min(left);
                left -= self.read(index, &mut buffer[..most])?;
            }
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        match self.child.take() {
            Some(mut child) => child.wait(),
            None => Err(Errno::ECHILD.into()),
        }
    }

    fn kill(&self) {
        // It can only fail because nobody is left in the group.
        let _ = nix::sys::signal::killpg(self.pid, Signal::SIGKILL);
    }

    /// Lets a thread wait for a child that cannot be killed.
    fn leave(mut self) {
        if let Some(mut child) = self.child.take() {
            std::thread::spawn(move || child.wait());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
            let _ = self.reap();
        }
    }
}

/// Whether a killed child has disappeared.
fn gone(ended: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
    poll::wait(&mut fds, poll::deadline(DEATH)).unwrap_or(true)
}

/// A file in memory with this content, to be read from its beginning.
fn anonymous_file(content: &[u8]) -> io::Result<File> {
    // Kernels since 6.3 want to be told that it will not be executed, and may be set to refuse it otherwise; older
    // ones do not know the flag.
    let sealed = MFdFlags::MFD_CLOEXEC | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let fd = match memfd_create(c"stdin", sealed) {
        Err(Errno::EINVAL) => memfd_create(c"stdin", MFdFlags::MFD_CLOEXEC)?,
        other => other?,
    };
    let file = File::from(fd);
    // Writing at a position leaves the file's own position where the child starts to read.
    file.write_all_at(content, 0)?;
    Ok(file)
}

/// How many bytes are waiting in a pipe.
fn waiting(pipe: &File) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open while `pipe` is borrowed, and FIONREAD writes one int to the address given.
    Errno::result(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// A descriptor that is ready once the process has ended. The kernel closes it on exec.
fn pidfd(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A parent that ignores SIGCHLD bequeaths that to us, and then the kernel reaps our children before we can ask how
/// they ended.
fn keep_children_waitable() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: SIG_DFL runs no code of ours. Nobody in this process handles SIGCHLD.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    });
}
