//! Streams that are closed or full, and colour.

use std::fs::File;
use std::process::{ExitStatus, Stdio};

use super::run::tproxy;

/// Runs with standard output going into a pipe that nobody reads.
fn into_closed_pipe(args: &[&str]) -> (ExitStatus, String) {
    let run = tproxy(args);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = run.command().stdin(Stdio::null()).stdout(writer).output().unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    for args in [
        ["config", "default"].as_slice(),
        &["config", "show"],
        &["completions", "bash"],
        &["man"],
        &["--help"],
    ] {
        let (status, err) = into_closed_pipe(args);
        assert_eq!((status.code(), err.as_str()), (Some(0), ""), "{args:?}");
    }
    let (status, err) = into_closed_pipe(&["install", "--dry-run", "--kuma-dp-user", "0"]);
    assert!(status.code() == Some(0) && !err.contains("panic"), "{status:?}: {err}");
}

#[test]
fn a_full_disk_is_an_error() {
    let run = tproxy(["config", "default"]);
    let output =
        run.command().stdin(Stdio::null()).stdout(File::create("/dev/full").unwrap()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.starts_with("error: cannot write the result: No space left on device"), "{err}");
}

#[test]
fn without_standard_error_the_exit_code_still_tells() {
    let run = tproxy(["install", "--wait", "x"]);
    let full = File::create("/dev/full").unwrap();
    let output = run.command().stdin(Stdio::null()).stderr(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let warned = tproxy(["config", "show", "--kuma-dp-uid", "1"]);
    let full = File::create("/dev/full").unwrap();
    let output = warned.command().stdin(Stdio::null()).stderr(full).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(!output.stdout.is_empty());
}

#[test]
fn there_is_no_colour_in_a_pipe() {
    let said = tproxy(["install", "--wait", "x"]).env("TERM", "xterm").env("CLICOLOR", "1").said();
    assert!(said.err.starts_with("error: ") && !said.err.contains('\u{1b}'), "{said:?}");
    let said = tproxy(["install", "--no-such-flag"]).env("TERM", "xterm").said();
    assert!(said.err.starts_with("error: ") && !said.err.contains('\u{1b}'), "{said:?}");
}
