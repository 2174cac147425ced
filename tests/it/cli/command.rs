//! The command that a configuration is said by: a shell and tproxy understand it as it is meant.

use std::os::unix::fs::symlink;
use std::process::Command;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tproxy::config::{install_command, show};

use crate::pure::configs;

#[test]
fn a_shell_takes_it_for_what_it_means() {
    let place = directory();
    symlink(env!("CARGO_BIN_EXE_tproxy"), place.join("tproxy")).expect("a fresh directory");
    let path = format!("{}:/usr/bin:/bin", place.display());
    let runs = TestRunner::new(ProptestConfig::with_cases(100)).run(&configs::config(), |config| {
        let command = install_command(&config, None);
        let shown = command.replacen("tproxy install", "tproxy config show", 1);
        let output = Command::new("/bin/sh").args(["-c", &shown]).env_clear().env("PATH", &path).output();
        let output = output.expect("a shell");
        let said = String::from_utf8_lossy(&output.stderr);
        prop_assert!(output.status.success(), "{command}: {said}");
        prop_assert_eq!(String::from_utf8_lossy(&output.stdout), show::yaml(&config, None), "{}", command);
        Ok(())
    });
    std::fs::remove_dir_all(&place).expect("it is there");
    runs.expect("each means the same");
}

/// A new directory.
fn directory() -> std::path::PathBuf {
    let place = std::env::temp_dir().join(format!("tproxy-command-{}", std::process::id()));
    std::fs::create_dir(&place).expect("a temporary directory");
    place
}
