//! How much memory a command takes.

use std::fs;
use std::process::{Command, Stdio};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// How often a command may end before it is held.
const TRIES: usize = 20;

/// The most memory a command ever had resident, in KiB, without its children: what the kernel says when it ends, at
/// which it is stopped for once.
pub fn peak_memory(command: &mut Command) -> Result<u64, String> {
    for _ in 0..TRIES {
        if let Some(peak) = one(command)? {
            return Ok(peak);
        }
    }
    Err("memory: the command ends before it can be held".to_owned())
}

fn one(command: &mut Command) -> Result<Option<u64>, String> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("{}: {e}", command.get_program().display()))?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let held = ptrace::seize(pid, Options::PTRACE_O_TRACEEXIT).is_ok();
    let failed = |e: nix::errno::Errno| format!("memory: {e}");
    let mut peak = None;
    loop {
        match waitpid(pid, None).map_err(failed)? {
            // It ends, and still has all that it had.
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXIT) => {
                peak = most(pid);
                ptrace::cont(pid, None).map_err(failed)?;
            }
            WaitStatus::PtraceEvent(..) => ptrace::cont(pid, None).map_err(failed)?,
            WaitStatus::Stopped(_, signal) => {
                let signal = Some(signal).filter(|signal| *signal != Signal::SIGTRAP);
                ptrace::cont(pid, signal).map_err(failed)?;
            }
            WaitStatus::Exited(_, 0) if held && peak.is_some() => return Ok(peak),
            WaitStatus::Exited(_, 0) => return Ok(None),
            ended @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => {
                return Err(format!("memory: {ended:?}"));
            }
            _ => {}
        }
    }
}

fn most(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
