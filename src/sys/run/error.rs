//! Why a command gave no output.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use super::Output;
use crate::passing::Passing;

/// Why a command gave no output.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no such program.
    #[error("{} was not found", program.display())]
    NotFound {
        /// As asked for.
        program: PathBuf,
    },
    /// It is there but cannot be started.
    #[error("{} cannot be started: {source}", program.display())]
    Spawn {
        /// As asked for.
        program: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// It took too long, and it and its process group were killed.
    #[error(
        "{} did not finish within {} s and was killed{}{}",
        program.display(),
        after.as_secs_f64(),
        if *alive { " but is still there; the kernel holds it back" } else { "" },
        last_words(&output.stderr)
    )]
    Deadline {
        /// As asked for.
        program: PathBuf,
        /// The time it had.
        after: Duration,
        /// What it wrote until then.
        output: Box<Output>,
        /// It is stuck in the kernel, where no signal reaches it: what it was asked to do may still happen.
        alive: bool,
    },
    /// A system call failed around it.
    #[error("{}: {what}: {source}", program.display())]
    Io {
        /// As asked for.
        program: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
}

impl Passing for RunError {
    fn is_passing(&self) -> bool {
        match self {
            Self::Spawn { source, .. } | Self::Io { source, .. } => source.is_passing(),
            Self::NotFound { .. } | Self::Deadline { .. } => false,
        }
    }
}

impl RunError {
    /// Whether the program never ran.
    pub const fn cannot_start(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Spawn { .. })
    }

    /// What is to be done about a program that never ran.
    pub fn remedy(&self) -> Option<&'static str> {
        let Self::Spawn { source, .. } = self else {
            return self.cannot_start().then_some("install the package that it belongs to");
        };
        Some(match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOEXEC) => {
                "the file is damaged or made for another architecture; install the package that it belongs to again"
            }
            _ if source.is_passing() => "the kernel's reason is above; run the command again",
            Some(Errno::EACCES | Errno::EPERM) => {
                "look at the file's mode, at its file system's option noexec, and at security policies"
            }
            _ => "the kernel's reason is above; install the package that it belongs to again",
        })
    }
}

/// The end of what a child wrote to stderr, on one line, control characters escaped.
fn last_words(stderr: &[u8]) -> String {
    const LINES: usize = 3;
    const CHARS: usize = 300;
    let text = String::from_utf8_lossy(stderr);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>();
    let words = lines[lines.len().saturating_sub(LINES)..].join(", ");
    if words.is_empty() {
        return String::new();
    }
    let skipped = words.chars().count().saturating_sub(CHARS);
    let end = words.chars().skip(skipped).collect::<String>();
    let dots = if skipped > 0 { "…" } else { "" };
    format!("; its last words: {dots}{}", crate::sys::escape(&end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_one_short_line() {
        assert_eq!(last_words(b""), "");
        assert_eq!(last_words(b"\n \n"), "");
        assert_eq!(last_words(b"one\ntwo\n\nthree\nfour\n"), "; its last words: two, three, four");
        assert_eq!(last_words(b"a\x1b[31mred\xff"), "; its last words: a\\u{1b}[31mred\u{fffd}");
        let long = last_words("x".repeat(1000).as_bytes());
        assert_eq!(long, format!("; its last words: …{}", "x".repeat(300)));
    }
}
