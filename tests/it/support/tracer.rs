//! The program under test, stopped at each of its system calls, so that a test can come in between: kill it there,
//! change the firewall behind its back, or change what it tells the kernel.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Stdio;
use std::thread;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::command::{self, Program, Run, unwrapped};
use super::lab;

/// `NFNL_MSG_BATCH_BEGIN`
const BATCH_BEGIN: u16 = 0x10;
/// `NFNL_SUBSYS_NFTABLES`
const NF_TABLES: u16 = 10;

/// Where the program stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

/// How it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    GoOn,
    /// Gets this signal first.
    Signal(Signal),
}

/// A system call at which the program stands.
pub struct Call {
    thread: Pid,
    /// `SYS_*`
    pub number: i64,
    arguments: Vec<u64>,
}

impl Call {
    fn of(thread: Pid) -> Option<Self> {
        let line = fs::read_to_string(format!("/proc/{thread}/syscall")).ok()?;
        let mut words = line.split_whitespace();
        let number = words.next()?.parse().ok()?;
        let arguments = words.filter_map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
        Some(Self { thread, number, arguments: arguments.collect() })
    }

    /// Who makes it: the ID of the thread.
    pub fn thread(&self) -> i32 {
        self.thread.as_raw()
    }

    /// What is said to the kernel over netlink, if something is.
    pub fn sent(&self) -> Option<Vec<u8>> {
        if self.number != libc::SYS_sendto {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(self.arguments[2]).expect("a length")];
        self.memory(false).read_exact_at(&mut bytes, self.arguments[1]).expect("memory of the program");
        Some(bytes)
    }

    /// What is said to netfilter, if something is.
    pub fn said(&self) -> Option<Vec<u8>> {
        let bytes = self.sent()?;
        let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
        // Other netlink families have such numbers too, but nothing else begins with either of these two.
        (kind == BATCH_BEGIN && bytes.len() > 64 || kind >> 8 == NF_TABLES).then_some(bytes)
    }

    /// What is said to netfilter, if it is a transaction.
    pub fn transaction(&self) -> Option<Vec<u8>> {
        self.said().filter(|bytes| u16::from_ne_bytes([bytes[4], bytes[5]]) == BATCH_BEGIN)
    }

    /// Has it say something else, as long as what it was going to say.
    pub fn say(&self, bytes: &[u8]) {
        assert_eq!(u64::try_from(bytes.len()), Ok(self.arguments[2]));
        self.memory(true).write_all_at(bytes, self.arguments[1]).expect("memory of the program");
    }

    /// Ends the process that makes it.
    pub fn kill(&self) {
        kill(self.thread, Signal::SIGKILL).expect("it is there");
    }

    fn memory(&self, write: bool) -> File {
        let path = format!("/proc/{}/mem", self.thread);
        File::options().read(true).write(write).open(path).expect("who traces a process may do that")
    }
}

/// Runs it to its end, and asks at each system call, before and after it is made.
pub fn trace(program: &Program, watch: impl FnMut(&Call, When) -> Then + Send) -> Run {
    // Processes are traced by threads. One for this alone has no other children that it could wait for by mistake.
    thread::scope(|scope| {
        let tracer = thread::Builder::new().name("tracer".to_owned());
        let tracer = tracer.spawn_scoped(scope, || trace_here(program, watch)).expect("a thread");
        tracer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[allow(clippy::zombie_processes, reason = "who traces a process waits for it in another way")]
fn trace_here(program: &Program, mut watch: impl FnMut(&Call, When) -> Then) -> Run {
    let line = program.to_string();
    let files = ["stdout", "stderr"].map(|name| Path::new(lab::DIR).join(format!("traced-{name}")));
    let [stdout, stderr] =
        files.each_ref().map(|path| File::create(path).expect("a file in the private /run"));
    // A shell that waits to be let go on becomes the program.
    let mut command = program.behind("sh", &["-c", "read -r go && exec \"$@\"", "sh"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr).spawn().expect("sh is everywhere");
    let first = command::pid(child.id());
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(first, options).expect("a child may be traced");
    ptrace::interrupt(first).expect("it is traced");
    let mut gate = child.stdin.take();

    let mut inside = BTreeSet::new();
    let mut executed = false;
    let (code, signal) = loop {
        let status =
            waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)).expect("it is there");
        let (thread, deliver) = match status {
            WaitStatus::Exited(pid, code) if pid == first => break (Some(code), None),
            WaitStatus::Signaled(pid, signal, _) if pid == first => break (None, Some(signal as i32)),
            WaitStatus::PtraceSyscall(thread) => {
                let when = if inside.insert(thread) { When::Before } else { When::After };
                if when == When::After {
                    inside.remove(&thread);
                }
                if executed
                    && let Some(call) = Call::of(thread)
                    && let Then::Signal(signal) = watch(&call, when)
                {
                    kill(first, signal).expect("it is there");
                }
                (thread, None)
            }
            WaitStatus::PtraceEvent(thread, _, event) => {
                // The shell may have been seen becoming a shell, before it was let go on. This is within the call that
                // makes it the program.
                if event == libc::PTRACE_EVENT_EXEC && gate.is_none() {
                    executed = true;
                    inside.insert(thread);
                }
                (thread, None)
            }
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            _ => continue,
        };
        // Whatever it stands at for the first time: an interruption can coincide with another reason to stop, and is
        // not told of then.
        if thread == first
            && let Some(mut gate) = gate.take()
        {
            gate.write_all(b"go\n").expect("it reads");
        }
        // It may have been killed meanwhile.
        let _ = ptrace::syscall(thread, deliver);
    };
    let [stdout, stderr] = files.map(|path| fs::read_to_string(path).expect("text"));
    Run { line, code, signal, stdout, stderr: unwrapped(&stderr) }
}
