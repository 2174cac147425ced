//! Seeing who changes the firewall while it happens.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};

use crate::support::command::{self, pid};
use crate::support::lab::{Lab, in_a_namespace_of_our_own, skip};
use crate::support::mesh::listening_sidecar;
use crate::support::{Backend, Family, Variant, firewall};

use super::install;

struct Watch {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Watch {
    /// Starts one and waits until it watches: its first line says how things stand.
    fn start(lab: &Lab, flags: &[&str]) -> (Self, String) {
        in_a_namespace_of_our_own();
        let mut child = Command::new(lab.program_path())
            .args(["status", "--watch"])
            .args(flags)
            .env_clear()
            .env("PATH", command::PATH)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut watch = Self { child, lines };
        let first = watch.line();
        (watch, first)
    }

    /// The next line, as soon as it is printed.
    fn line(&mut self) -> String {
        self.lines.next().expect("a line").expect("readable")
    }

    /// The next line that holds this text.
    fn line_with(&mut self, text: &str) -> String {
        loop {
            let line = self.line();
            if line.contains(text) {
                return line;
            }
        }
    }

    fn end(mut self, signal: Signal) {
        kill(pid(self.child.id()), signal).expect("still there");
        assert_eq!(self.child.wait().expect("ends").code(), Some(0));
    }
}

#[test]
fn the_flusher_is_named() {
    Lab::enter(|lab| {
        let _sidecar = listening_sidecar();
        install(lab, Variant::Nft);
        let (mut watch, first) = Watch::start(lab, &[]);
        assert!(first.ends_with("now: installed, as wanted"), "{first}");
        let _ = firewall::iptables(Variant::Nft, Family::V4, "-t nat -F OUTPUT").succeeds();
        let line = watch.line_with("removed");
        assert!(line.contains("iptables") && line.contains("(pid ") && line.contains("in ip nat"), "{line}");
        assert!(line.contains("of them ours"), "{line}");
        let line = watch.line_with("now:");
        assert!(line.contains("NOT AS WANTED") && line.contains("missing"), "{line}");
        firewall::nft("flush ruleset\n");
        let line = watch.line_with("removed");
        assert!(line.contains(" nft: nft (pid "), "{line}");
        let line = watch.line_with("now:");
        assert!(line.ends_with("NOT INSTALLED"), "{line}");
        watch.end(Signal::SIGTERM);
    });
}

#[test]
fn who_changes_our_own_table_is_named() {
    Lab::enter(|lab| {
        let _sidecar = listening_sidecar();
        install(lab, Backend::Nftables);
        let (mut watch, first) = Watch::start(lab, &[]);
        assert!(first.ends_with("now: installed, as wanted"), "{first}");
        let flusher =
            command::Program::new("nft").args(["flush", "chain", "inet", "kuma_mesh", "inbound"]).start();
        let pid = flusher.pid;
        let _ = flusher.finish().succeeds();
        let line = watch.line_with("removed");
        assert!(line.contains(" nft: nft (pid ") && line.contains("in inet kuma_mesh"), "{line}");
        assert!(line.contains("of them ours") || line.contains("of ours"), "{line}");
        if !is_nested() {
            assert!(line.contains(&format!("(pid {pid})")), "{line}");
        }
        assert!(watch.line_with("now:").contains("missing"));
        firewall::nft("add element inet kuma_mesh resolvers_ipv4 { 10.9.9.9 }\n");
        let line = watch.line_with("inet kuma_mesh");
        assert!(line.contains(" nft: nft (pid "), "{line}");
        firewall::nft("delete table inet kuma_mesh\n");
        assert!(watch.line_with("NOT INSTALLED").contains("now:"));
        watch.end(Signal::SIGTERM);
    });
}

/// The kernel tells the number of the first PID namespace, which is this one unless tests run in a container.
fn is_nested() -> bool {
    let outside = std::fs::read_to_string("/proc/self/status").expect("proc");
    outside.lines().any(|l| l.starts_with("NSpid:") && l.split_whitespace().count() > 2)
}

#[test]
fn the_pid_is_the_flushers() {
    Lab::enter(|lab| {
        let _sidecar = listening_sidecar();
        install(lab, Variant::Nft);
        let (mut watch, first) = Watch::start(lab, &["-o", "json"]);
        let first: serde_json::Value = serde_json::from_str(&first).expect("JSON");
        assert_eq!((first["event"].as_str(), first["status"].as_str()), (Some("state"), Some("installed")));
        let flusher = command::Program::new("nft").args(["flush", "ruleset"]).start();
        let flusher_pid = flusher.pid;
        let _ = flusher.finish().succeeds();
        let line: serde_json::Value = serde_json::from_str(&watch.line()).expect("JSON");
        assert_eq!((line["event"].as_str(), line["program"].as_str()), (Some("change"), Some("nft")));
        if !is_nested() && std::path::Path::new("/proc/1/comm").exists() {
            assert_eq!(line["pid"], flusher_pid);
        }
        assert!(line["rules"]["oursRemoved"].as_u64().expect("a number") > 20, "{line}");
        watch.end(Signal::SIGINT);
    });
}

#[test]
fn legacy_rules_are_watched_too() {
    Lab::enter(|lab| {
        let _sidecar = listening_sidecar();
        install(lab, Variant::Legacy);
        let (mut watch, first) = Watch::start(lab, &[]);
        assert!(first.ends_with("now: installed, as wanted"), "{first}");
        let _ = firewall::iptables(Variant::Legacy, Family::V6, "-t nat -F KUMA_MESH_OUTBOUND").succeeds();
        let line = watch.line_with("removed");
        assert!(
            line.contains(" legacy: ") && line.contains("of them ours") && line.contains("ip6 nat"),
            "{line}"
        );
        assert!(watch.line_with("now:").contains("missing"));
        watch.end(Signal::SIGTERM);
    });
}

/// What `nf_tables` tells by itself need not be asked for again and again.
#[test]
fn nftables_is_not_polled() {
    Lab::enter(|lab| {
        if command::find("strace").is_none() {
            return skip("this machine has no strace");
        }
        let _sidecar = listening_sidecar();
        install(lab, Variant::Nft);
        let log = lab.dir().join("strace.log");
        let run =
            command::Program::new("strace").args(["-f", "-qq", "-e", "trace=openat,sendto,execve", "-o"]);
        let run = run.arg(&log).arg(lab.program_path()).args(["status", "--watch"]).start();
        // A look at the legacy tables: three with the report, one to begin with, and one every two seconds.
        let text = || std::fs::read_to_string(&log).unwrap_or_default();
        let looks = |text: &str| text.matches("/ip_tables_names\"").count();
        let mut first = String::new();
        while looks(&text()) < 7 {
            if looks(&first) < 6 {
                first = text();
            }
            std::thread::yield_now();
        }
        let rest = text()[first.len()..].to_owned();
        assert!(!rest.contains("sendto(") && !rest.contains("execve("), "{rest}");
        let child = text().split(' ').next().and_then(|pid| pid.parse().ok()).expect("a process");
        kill(nix::unistd::Pid::from_raw(child), Signal::SIGTERM).expect("it watches");
        let _ = run.finish().succeeds();
    });
}

/// The record is written after the last rule, so no change of rules tells that a run has ended.
#[test]
fn the_end_of_a_run_is_seen() {
    Lab::enter(|lab| {
        let _sidecar = listening_sidecar();
        install(lab, Variant::Nft);
        let files = std::fs::read_dir("/run/tproxy").expect("a directory").flatten().map(|file| file.path());
        let record = { files }.find(|path| path.extension().is_some_and(|e| e == "json")).expect("a record");
        let installed = std::fs::read_to_string(&record).expect("readable");
        let replace = |text: &str| {
            let new = record.with_extension("new");
            std::fs::write(&new, text).expect("writable");
            std::fs::rename(&new, &record).expect("a record");
        };
        let changing = installed.replace("\"phase\": \"installed\"", "\"phase\": \"changing\"");
        assert_ne!(changing, installed);
        replace(&changing);
        let (mut watch, first) = Watch::start(lab, &[]);
        assert!(first.ends_with("now: NOT AS WANTED"), "{first}");
        replace(&installed);
        let line = watch.line();
        assert!(line.ends_with("now: installed, as wanted"), "{line}");
        watch.end(Signal::SIGTERM);
    });
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    Lab::enter(|lab| {
        let (watch, first) = Watch::start(lab, &[]);
        assert!(first.ends_with("NOT INSTALLED"), "{first}");
        let Watch { mut child, lines } = watch;
        drop(lines);
        firewall::nft("table ip somebodys {}\n");
        assert_eq!(child.wait().expect("ends").code(), Some(0));
    });
}
