//! One child from its start to its end.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Once;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::{Command, LOCK_VARIABLE, Output, PATH, RunError, STARTED};
use crate::sys::poll;

/// How long a killed child may take to disappear.
const DEATH: Duration = Duration::from_secs(2);

/// As much as a pipe holds by default.
const CHUNK: usize = 64 * 1024;

/// How the end of a child is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// By a pidfd, or where the kernel has none (before 5.3) by asking.
    Pidfd,
    /// By asking again and again. A thread that waits would do without, but cannot always be made.
    #[cfg_attr(not(test), allow(dead_code, reason = "asked for by name only in tests"))]
    Asking,
}

/// The pauses between two questions: they grow from the first to the last. The end of the child's output comes right
/// before its own and ends a pause, so the first is what is mostly waited for.
const PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

pub(super) fn run(command: &Command, watch: Watch) -> Result<Output, RunError> {
    start(command, watch)?.finish()
}

/// A child under way, and when its time is over.
pub(super) struct Started<'a> {
    command: &'a Command,
    deadline: Option<Instant>,
    running: Running,
    /// Where the child reads from, to see how much of it is left.
    stdin: File,
    /// Ready once the child has ended; `None`: it has to be asked.
    ended: Option<OwnedFd>,
}

pub(super) fn start(command: &Command, watch: Watch) -> Result<Started<'_>, RunError> {
    let stdin = anonymous_file(&command.stdin).map_err(io_error(command, "cannot hold its input"))?;
    start_with(command, stdin, watch)
}

/// A child that has nothing to read yet.
pub(super) enum Held<'a> {
    /// It is there already.
    Started { started: Started<'a>, input: io::PipeWriter },
    /// No pipe takes its whole input at once, so it is still to be started.
    Ready { command: &'a Command, stdin: File, watch: Watch },
}

pub(super) fn hold(command: &Command, watch: Watch) -> Result<Held<'_>, RunError> {
    let failed = io_error(command, "cannot hold its input");
    let (stdin, input) = io::pipe().map_err(&failed)?;
    if !takes_at_once(&input, command.stdin.len()) {
        return Ok(Held::Ready { command, stdin: anonymous_file(&command.stdin).map_err(&failed)?, watch });
    }
    let started = start_with(command, File::from(OwnedFd::from(stdin)), watch)?;
    Ok(Held::Started { started, input })
}

/// Whether so much can be written into an empty pipe without a reader; a pipe that is too small is made larger if that
/// is allowed.
fn takes_at_once(pipe: &io::PipeWriter, size: usize) -> bool {
    let fits = |argument| {
        let room = fcntl(pipe, argument).ok().and_then(|room| usize::try_from(room).ok());
        room.is_some_and(|room| size <= room)
    };
    let larger = || i32::try_from(size).is_ok_and(|size| fits(FcntlArg::F_SETPIPE_SZ(size)));
    fits(FcntlArg::F_GETPIPE_SZ) || larger()
}

impl<'a> Held<'a> {
    pub(super) fn release(self) -> Result<Started<'a>, RunError> {
        let (mut started, mut input) = match self {
            Self::Started { started, input } => (started, input),
            Self::Ready { command, stdin, watch } => return start_with(command, stdin, watch),
        };
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
    // The position in it is the child's, too.
    let ours = stdin.try_clone().map_err(io_error(command, "cannot hold its input"))?;
    let running = Running::start(command, stdin)?;
    let ended = running.watch(watch).map_err(io_error(command, "cannot watch it"))?;
    Ok(Started { command, deadline, running, stdin: ours, ended })
}

impl Started<'_> {
    pub(super) fn finish(self) -> Result<Output, RunError> {
        let Self { command, deadline, mut running, stdin, ended } = self;
        if running.capture(ended.as_ref(), deadline).map_err(io_error(command, "cannot read its output"))? {
            let status = running.reap().map_err(io_error(command, "cannot learn how it ended"))?;
            let mut output = std::mem::take(&mut running.output);
            output.code = status.code();
            output.signal = status.signal();
            output.unread = is_left(stdin, command.stdin.len());
            return Ok(output);
        }
        running.kill();
        let alive = !running.is_gone(ended.as_ref());
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
        if let Some(lock) = super::xtables_lock() {
            child.env(LOCK_VARIABLE, lock);
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

    /// A descriptor that becomes ready when the child has ended. `None`: there is no such thing here.
    fn watch(&self, watch: Watch) -> io::Result<Option<OwnedFd>> {
        if watch == Watch::Asking {
            return Ok(None);
        }
        match pidfd(self.pid) {
            // Seccomp filters older than the call answer EPERM.
            Err(Errno::ENOSYS | Errno::EPERM) => Ok(None),
            other => Ok(Some(other?)),
        }
    }

    /// Whether the child has ended. WNOWAIT leaves the reaping to us, so the PID stays the child's until then.
    fn has_ended(&self) -> io::Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        match waitid(Id::Pid(self.pid), flags) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => Ok(false),
            Ok(_) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads both pipes until the child has ended (`true`) or the deadline has passed (`false`).
    fn capture(&mut self, ended: Option<&OwnedFd>, deadline: Option<Instant>) -> io::Result<bool> {
        let mut buffer = vec![0; CHUNK];
        let mut pause = PAUSE;
        loop {
            if ended.is_none() && self.has_ended()? {
                self.drain(&mut buffer)?;
                return Ok(true);
            }
            let mut fds = Vec::with_capacity(3);
            let mut order = [None; 3];
            if let Some(ended) = ended {
                fds.push(PollFd::new(ended.as_fd(), PollFlags::POLLIN));
            }
            for (index, pipe) in self.pipes.iter().enumerate() {
                let Some(pipe) = pipe else { continue };
                order[fds.len()] = Some(index);
                fds.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
            }
            let until = match ended {
                Some(_) => deadline,
                None => poll::deadline(pause).into_iter().chain(deadline).min(),
            };
            if !poll::wait(&mut fds, until)? {
                pause = LONGEST_PAUSE.min(pause * 2);
            }
            let ready: Vec<_> = fds
                .iter()
                .zip(order)
                .filter(|(fd, _)| fd.any().unwrap_or(true))
                .map(|(_, which)| which)
                .collect();
            for which in ready {
                if let Some(index) = which {
                    self.read(index, &mut buffer)?;
                } else {
                    self.drain(&mut buffer)?;
                    return Ok(true);
                }
            }
            // Also of a child that never stops writing.
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(false);
            }
        }
    }

    /// Whether a killed child has disappeared.
    fn is_gone(&self, ended: Option<&OwnedFd>) -> bool {
        let end = poll::deadline(DEATH);
        let Some(ended) = ended else {
            loop {
                if self.has_ended().unwrap_or(true) {
                    return true;
                }
                if end.is_some_and(|end| end <= Instant::now()) {
                    return false;
                }
                std::thread::sleep(LONGEST_PAUSE);
            }
        };
        poll::wait(&mut [PollFd::new(ended.as_fd(), PollFlags::POLLIN)], end).unwrap_or(true)
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

    /// Leaves a child that cannot be killed to init, which gets it when this process ends. Dropping the handle neither
    /// ends it nor waits for it.
    fn leave(mut self) {
        drop(self.child.take());
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

/// Whether anything is left of what a child was to read: of a file that long, or in a pipe.
fn is_left(mut stdin: File, length: usize) -> bool {
    match stdin.stream_position() {
        Ok(position) => position < length as u64,
        Err(_) => waiting(&stdin).is_ok_and(|left| left > 0),
    }
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
