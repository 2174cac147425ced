//! Children of tests: started in the caller's namespaces, given up on after a while, shown whole when they disappoint.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Longer than anything that is not stuck: the product's own deadlines are a few tens of seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where administrators' tools are, also for users whose `PATH` leaves them out.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A child to be.
pub struct Program {
    command: Command,
    stdin: Vec<u8>,
}

impl Program {
    /// A program with an environment that holds nothing but `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", PATH);
        Self { command, stdin: Vec::new() }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    pub fn stdin(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.stdin = text.into();
        self
    }

    /// Runs it as an ordinary user.
    pub fn user(mut self, uid: u32) -> Self {
        self.command.uid(uid).gid(uid);
        self
    }

    /// Starts it and does not wait; its output is collected on the side.
    pub fn start(mut self) -> Running {
        let line = line_of(&self.command);
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
        let pid = child.id();
        let stdin = child.stdin.take();
        let text = self.stdin;
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            // A child that does not read its input is no failure of the test.
            if let Some(mut pipe) = stdin {
                let _ = pipe.write_all(&text);
            }
            let _ = sender.send(child.wait_with_output());
        });
        Running { line, pid, output }
    }

    /// The same as a command that another program is given, behind these arguments.
    pub fn behind(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.env_clear().args(args).arg(self.command.get_program()).args(self.command.get_args());
        command.envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    }

    /// The same as a command that is started in another way.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.command.get_program());
        command.env_clear().args(self.command.get_args());
        command.envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    }

    /// Runs it to its end.
    pub fn run(self) -> Run {
        self.start().finish()
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&line_of(&self.command))
    }
}

/// A child under way.
pub struct Running {
    line: String,
    /// Its process id.
    pub pid: u32,
    output: mpsc::Receiver<std::io::Result<Output>>,
}

impl Running {
    /// Waits for its end.
    pub fn finish(self) -> Run {
        let Ok(output) = self.output.recv_timeout(PATIENCE) else {
            let _ = nix::sys::signal::kill(pid(self.pid), nix::sys::signal::Signal::SIGKILL);
            panic!("{} did not end within {PATIENCE:?}", self.line);
        };
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", self.line));
        Run {
            line: self.line,
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: unwrapped(&String::from_utf8_lossy(&output.stderr)),
        }
    }
}

/// A process id as `nix` wants it.
pub fn pid(raw: u32) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(i32::try_from(raw).expect("process ids fit"))
}

fn line_of(command: &Command) -> String {
    let words: Vec<OsString> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(OsStr::to_owned).collect();
    words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Text of which lines that go on with the one before, as tproxy's do behind a label, are put together again: nobody asks
/// where a sentence is broken.
pub fn unwrapped(text: &str) -> String {
    /// The shortest of the labels, with the space behind it.
    const INDENT: &str = "      ";
    text.lines().fold(String::new(), |mut all, line| {
        match line.strip_prefix(INDENT).filter(|_| !all.is_empty()) {
            Some(more) => {
                all.truncate(all.trim_end().len());
                all.push(' ');
                all.push_str(more.trim_start());
            }
            None => all.push_str(line),
        }
        all.push('\n');
        all
    })
}

/// How a child ended.
#[derive(Debug, Clone)]
pub struct Run {
    pub line: String,
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// It ended with 0.
    #[track_caller]
    pub fn succeeds(self) -> Self {
        self.exits(0)
    }

    /// It ended with this code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "wanted exit code {code} of {self}");
        self
    }

    /// Its standard error holds this text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "wanted {text:?} on standard error of {self}");
        self
    }

    /// Its standard output holds this text, wherever lines end.
    #[track_caller]
    pub fn prints(self, text: &str) -> Self {
        assert!(self.printed(text), "wanted {text:?} on standard output of {self}");
        self
    }

    /// Whether it does.
    pub fn printed(&self, text: &str) -> bool {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.stdout.contains(text) || words(&self.stdout).contains(&words(text))
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "`{}`: code {:?}, signal {:?}", self.line, self.code, self.signal)?;
        writeln!(f, "--- stdout\n{}--- stderr\n{}---", self.stdout, self.stderr)
    }
}

/// Runs a program that has to succeed; its standard output.
#[track_caller]
pub fn must(program: &str, args: &[&str]) -> String {
    Program::new(program).args(args).run().succeeds().stdout
}

/// The same with input.
#[track_caller]
pub fn must_with(program: &str, args: &[&str], stdin: &str) -> String {
    Program::new(program).args(args).stdin(stdin).run().succeeds().stdout
}

/// Copies a program that is to be run, with its mode. Another process writes the copy: what a thread has open for writing
/// is open in the children of other threads too until those execute something, and nobody can run it meanwhile.
#[track_caller]
pub fn copy_program(from: &std::path::Path, to: &std::path::Path) {
    must("cp", &["--preserve=mode", &from.to_string_lossy(), &to.to_string_lossy()]);
}

/// Where a program is, if the machine has it.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    PATH.split(':').map(|dir| std::path::Path::new(dir).join(program)).find(|path| path.exists())
}
