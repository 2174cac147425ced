//! Bad values: exit code 2, the sentence, and nothing done.

use super::bad::{BAD, Bad, Place};
use super::run::{Run, Said, tproxy};

fn run(bad: &Bad) -> Run {
    let run = tproxy(bad.args());
    match bad.place {
        Place::Flags(_) => run,
        Place::File(text) => run.file("bad.yaml", text),
        Place::Variable(name, value) => run.env(name, value),
    }
}

/// The lines of standard error that are neither warnings nor notes.
fn errors(said: &Said) -> Vec<&str> {
    let aside = |line: &&str| !line.starts_with("warning: ") && !line.starts_with("note: ");
    said.err.lines().filter(aside).collect()
}

#[test]
fn each_is_refused_with_its_sentence_and_nothing_is_started() {
    let mut failures = Vec::new();
    for bad in BAD.iter().copied().flatten() {
        let said = run(bad).said();
        let lines = errors(&said);
        let sentence = format!("error: {}", bad.sentence());
        // Wrong use, as opposed to a wrong value, is followed by where to read on.
        let more = lines.len() == 1 || said.err.contains("For more information, try '--help'.");
        if said.code != Some(2) || lines.first() != Some(&sentence.as_str()) || !more {
            failures.push(format!("{bad:?}\n  wanted {sentence}\n  said {said:?}"));
        }
        if !said.out.is_empty() || !said.started.is_empty() {
            failures.push(format!("{bad:?} was not stopped in time: {said:?}"));
        }
    }
    assert!(failures.is_empty(), "{} of them:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_table_is_large_and_has_no_row_twice() {
    let rows = BAD.iter().copied().flatten().collect::<Vec<_>>();
    assert!(rows.len() >= 120, "{}", rows.len());
    let distinct =
        rows.iter().map(|bad| format!("{:?}", bad.place)).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(distinct.len(), rows.len());
}

#[test]
fn dry_runs_and_config_show_refuse_the_same() {
    for args in [["install", "--dry-run"], ["config", "show"]] {
        for bad in
            [&["--wait", "x"], &["--redirect-inbound-port", "0"], &["--exclude-outbound-ports-for-uids", ""]]
        {
            let said = tproxy(args.iter().chain(bad)).said();
            assert_eq!(said.code, Some(2), "{args:?} {bad:?}: {said:?}");
            assert!(
                said.err.starts_with(&format!("error: invalid value '{}' for {}: ", bad[1], bad[0])),
                "{said:?}"
            );
            assert_eq!(said.out, "");
        }
    }
}

#[test]
fn everything_wrong_is_said_at_once_wherever_it_is() {
    let said = tproxy([
        "install",
        "--config",
        "a.yaml",
        "--config",
        "gone.yaml",
        "--wait",
        "x",
        "--skip-resolv-conf",
    ])
    .file("a.yaml", "wiat: 3\nredirect:\n  dns:\n    port: 0\n")
    .env("KUMA_TRANSPARENT_PROXY_LOG_LEVEL", "9")
    .said();
    assert_eq!(said.code, Some(2));
    let lines = said.err.lines().collect::<Vec<_>>();
    assert_eq!(lines[0], "error: 6 problems in the configuration:");
    for (line, begins) in lines[1..].iter().zip([
        "  --skip-resolv-conf was removed",
        "  cannot read the configuration file 'gone.yaml': No such file",
        "  unknown key 'wiat' (a.yaml:1); did you mean 'wait'?",
        "  invalid value '0' for redirect.dns.port (a.yaml:4): ",
        "  invalid value '9' for the variable KUMA_TRANSPARENT_PROXY_LOG_LEVEL: ",
        "  invalid value 'x' for --wait: ",
    ]) {
        assert!(line.starts_with(begins), "{line}");
    }
    assert_eq!(lines.len(), 7);
}

#[test]
fn values_that_are_no_text_or_no_file_are_refused_too() {
    use std::os::unix::ffi::OsStringExt as _;
    let garbled = std::ffi::OsString::from_vec(b"\xff".to_vec());
    let said = tproxy(["install"]).env("KUMA_TRANSPARENT_PROXY_WAIT", garbled.clone()).said();
    assert_eq!(said.code, Some(2));
    assert!(
        said.err.contains("for the variable KUMA_TRANSPARENT_PROXY_WAIT: it is not UTF-8 text"),
        "{said:?}"
    );
    let said = tproxy([std::ffi::OsString::from("install"), garbled]).said();
    assert_eq!(said.code, Some(2));
    for (content, why) in [
        (b"wait: \xff".to_vec(), "it is not UTF-8 text"),
        (vec![b'#'; (4 << 20) + 1], "it is larger than 4 MiB"),
        (b"a: \x00".to_vec(), "cannot be read as YAML or JSON"),
    ] {
        let said = tproxy(["install", "--config", "b"]).file("b", content).said();
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.err.starts_with("error: ") && said.err.contains(why), "{said:?}");
    }
    let said = tproxy(["install", "--config", "/dev/zero"]).said();
    assert!(said.code == Some(2) && said.err.contains("it is larger than 4 MiB"), "{said:?}");
}

#[test]
fn what_is_repeated_of_a_value_cannot_disturb_the_terminal() {
    let said = tproxy(["install", "--kuma-dp-user", "a\u{1b}[2Jb\nerror: all is well"]).said();
    assert_eq!(said.code, Some(2));
    assert!(!said.err.contains('\u{1b}') && said.err.lines().count() == 1, "{said:?}");
}
