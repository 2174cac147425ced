//! The README is true: its commands run, its examples are accepted, its lists are complete.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const README: &str = include_str!("../../README.md");
const TPROXY: &str = env!("CARGO_BIN_EXE_tproxy");

/// A fenced block.
struct Block {
    /// Where it begins, counted from 1.
    line: usize,
    /// What stands behind the fence.
    kind: &'static str,
    text: String,
}

fn blocks(kind: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in README.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(kind)) => open = Some(Block { line: index + 1, kind, text: String::new() }),
            (Some(block), None) => block.text.extend([line, "\n"]),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block of the README has no end");
    let found: Vec<_> = blocks.into_iter().filter(|block| block.kind == kind).collect();
    assert!(!found.is_empty(), "the README has no block ```{kind}");
    found
}

fn tproxy(args: &[&str]) -> String {
    let output = Command::new(TPROXY).args(args).output().expect("tproxy starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn show(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// The command that begins a shell in namespaces of its own, if this machine lets us have them.
fn in_namespaces(script: &str) -> Option<Command> {
    let mut options = vec!["--mount", "--net", "--propagation", "private"];
    if !nix::unistd::geteuid().is_root() {
        options.extend(["--user", "--map-root-user", "--map-auto"]);
    }
    let possible = Command::new("unshare")
        .args(&options)
        .arg("true")
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success());
    if !possible {
        assert!(std::env::var_os("CI").is_none(), "CI must be able to make namespaces");
        eprintln!("skipped: namespaces need root, or user namespaces with a range of ids");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(options).args(["--", "bash", "-euo", "pipefail", "-c", script]);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    Some(command)
}

#[test]
fn commands_marked_to_run_do() {
    // All in one shell, in their order; there `sudo` is already granted.
    let mut script = String::from(
        ". tests/host\nmkdir /run/bin\nprintf '#!/bin/sh\\nexec \"$@\"\\n' >/run/bin/sudo\nchmod 755 /run/bin/sudo\n\
         ln -s \"$TPROXY\" /run/bin/tproxy\nPATH=/run/bin:$PATH\n\
         rules() { iptables-save | grep -e '^-A' || true; ip6tables-save | grep -e '^-A' || true; }\n",
    );
    for block in blocks("sh run") {
        let place = format!("echo README.md:{} >&2\n", block.line);
        script.extend([place.as_str(), &block.text, "\necho; echo rules: $(rules | wc -l)\n"]);
    }
    let Some(mut command) = in_namespaces(&script) else { return };
    let output = command.env("TPROXY", TPROXY).output().expect("unshare starts");
    assert!(output.status.success(), "{}", show(&output));
    let out = String::from_utf8_lossy(&output.stdout);
    let counts: Vec<_> = out.lines().filter_map(|line| line.strip_prefix("rules: ")).collect();
    // No user, then installed with both families, then uninstalled.
    let ["0", installed, "0"] = counts[..] else { panic!("{counts:?}\n{}", show(&output)) };
    assert!(installed.parse::<u32>().is_ok_and(|count| count > 20), "{}", show(&output));
}

/// What it shows is tested elsewhere.
#[test]
fn the_first_command_is_the_demonstration_and_the_second_one_runs_the_tests() {
    let [demo, tests, ..] = &blocks("sh")[..] else { panic!("less than two commands") };
    assert_eq!(demo.text, "cargo run --release -- demo\n");
    assert_eq!(tests.text, "./tests/run\n");
    tproxy(&["demo", "--help"]);
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(tests.text.trim()).is_file());
}

#[test]
fn the_configuration_file_is_valid() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let files: Vec<_> =
        blocks("yaml").into_iter().filter(|block| block.text.starts_with("kumaDPUser")).collect();
    let [block] = &files[..] else { panic!("{} configuration files in the README", files.len()) };
    let path = dir.join("readme.yaml");
    fs::write(&path, &block.text).expect("written");
    let path = path.to_str().expect("text");
    tproxy(&["config", "validate", path]);
    let shown = tproxy(&["config", "show", "--config", path]);
    let wanted =
        ["config", "show", "--kuma-dp-user", "kuma-dp", "--redirect-dns", "--exclude-inbound-ports", "22"];
    assert_eq!(shown, tproxy(&wanted), "the file says the same as the flags above it");
}

#[test]
fn the_init_container_is_yaml_with_a_command_that_parses() {
    let blocks = blocks("yaml");
    let block =
        blocks.iter().find(|block| block.text.starts_with("initContainers")).expect("an init container");
    let pod: serde_json::Value = serde_yaml::from_str(&block.text).expect("YAML");
    let command = pod["initContainers"][0]["command"].as_array().expect("a command");
    let mut words = command.iter().map(|word| word.as_str().expect("strings only"));
    assert_eq!(words.next(), Some("tproxy"));
    assert_eq!(words.next(), Some("install"));
    let words: Vec<_> = ["config", "show"].into_iter().chain(words).collect();
    tproxy(&words);
}

#[test]
fn the_unit_is_accepted_by_systemd() {
    let [block] = &blocks("ini")[..] else { panic!("more than one unit") };
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tproxy.service");
    // The analysis wants the programs to exist.
    fs::write(&path, block.text.replace("/usr/local/bin/tproxy", TPROXY)).expect("written");
    match Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&path).output() {
        Ok(output) => {
            let text = show(&output);
            assert!(output.status.success() && !text.contains("tproxy.service"), "{text}");
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "CI must have systemd-analyze: {error}");
            eprintln!("skipped: no systemd-analyze here ({error})");
        }
    }
}

#[test]
fn every_setting_is_listed() {
    let begin = "<!-- settings: from `tproxy config reference` -->\n";
    let (_, rest) = README.split_once(begin).expect("where the settings begin");
    let (listed, _) = rest.split_once("<!-- end of settings -->").expect("where the settings end");
    let wanted = tproxy(&["config", "reference"]);
    assert_eq!(listed.trim(), wanted.trim(), "put the output of `tproxy config reference` there");
}

#[test]
fn every_flag_is_named() {
    let help = tproxy(&["--help"]);
    let (_, commands) = help.split_once("Commands:\n").expect("commands");
    let commands = commands.lines().map_while(|line| line.split_whitespace().next());
    for command in commands.filter(|command| !["config", "completions", "man", "help"].contains(command)) {
        assert!(README.contains(&format!("tproxy {command}")), "{command} is not in the README");
        let help = tproxy(&[command, "--help"]);
        // `      --wait <NUMBER>` and `  -o, --output <…>`, not what a sentence mentions.
        let options = help.lines().filter(|line| line.trim_start().starts_with('-'));
        let flags = options.filter_map(|line| line.split(['[', ' ']).find(|word| word.starts_with("--")));
        let flags: Vec<_> = flags.filter(|flag| *flag != "--help").collect();
        for flag in flags {
            assert!(README.contains(&format!("`{flag}")), "{flag} of {command} is not in the README");
        }
    }
}

#[test]
fn every_exit_code_is_listed() {
    let help = tproxy(&["--help"]);
    let (_, codes) = help.split_once("Exit codes:\n").expect("exit codes");
    let codes: Vec<_> = codes.lines().map_while(|line| line.trim_start().split_once("  ")).collect();
    assert!(codes.len() >= 6, "{codes:?}");
    for (code, meaning) in codes {
        assert!(README.contains(&format!("| {code} | {meaning} |\n")), "{code}: {meaning}");
    }
}

#[test]
fn links_lead_somewhere() {
    for link in README.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let exists = match link.strip_prefix('#') {
            // A heading of its own, as it is called in addresses.
            Some(place) => README
                .lines()
                .filter(|line| line.starts_with("## "))
                .any(|heading| heading.trim_start_matches("## ").to_lowercase().replace(' ', "-") == place),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join(link).exists(),
        };
        assert!(exists || link.starts_with("https://"), "{link}");
    }
}
