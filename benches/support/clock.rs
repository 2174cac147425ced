//! Commands, and how long they take.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a program that has to succeed; its output.
pub fn must<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = S>,
) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(args);
    timed(&mut command).map(|(output, _)| output)
}

/// Runs a command that has to succeed; its output and how long it took from start to end.
pub fn timed(command: &mut Command) -> Result<(String, Duration), String> {
    let start = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{}: {e}", command.get_program().display()))?;
    let took = start.elapsed();
    if output.status.success() {
        return Ok((String::from_utf8_lossy(&output.stdout).into_owned(), took));
    }
    let args = command.get_args().map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    Err(format!(
        "{} {args}: {}\n{}{}",
        command.get_program().display(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}
