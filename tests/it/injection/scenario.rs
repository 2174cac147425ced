//! Where a run begins, what it does, and how the machine gets there again.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::command::{Program, copy_program, must, must_with};
use crate::support::injector;
use crate::support::lab::everywhere;
use crate::support::state::State;
use crate::support::{Backend, Family, Lab, Variant, firewall};

use super::law::Goal;

/// What is there before, and what is meant to be there then.
const FIRST: [&str; 3] = ["--redirect-dns", "--exclude-outbound-ports", "7001"];
const SECOND: [&str; 6] = [
    "--redirect-all-dns-traffic",
    "--exclude-inbound-ports",
    "22,7002",
    "--drop-invalid-packets",
    "--sleep-between-retries",
    "1ms",
];

/// Where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Nothing,
    /// With the first configuration, and more flags.
    Installed(Backend, &'static [&'static str]),
    /// The second one is on trial over the first.
    Trial(Backend, &'static [&'static str]),
}

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Installs the second configuration, with more flags.
    Install(Backend, &'static [&'static str]),
    Uninstall,
    Confirm,
}

/// A command on a machine.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub start: Start,
    pub act: Act,
    /// A shell in place of the program, which runs the real one and, where that does not end with 0, this.
    pub around: Option<&'static str>,
}

impl Scenario {
    /// The command.
    pub fn command(&self, lab: &Lab) -> Program {
        match self.act {
            Act::Install(backend, flags) => install(lab, backend, self.moves(), &[&SECOND, flags].concat()),
            Act::Uninstall => lab.program().args(["uninstall", "--sleep-between-retries", "1ms"]),
            Act::Confirm => lab.program().arg("confirm"),
        }
    }

    pub fn goal(&self) -> Goal {
        match self.act {
            Act::Install(_, flags) if flags.contains(&"--confirm") => Goal::Trial,
            Act::Confirm => Goal::Confirmed,
            Act::Uninstall => Goal::Removed,
            Act::Install(..) => Goal::Stays,
        }
    }

    /// Whether it goes from one variant of iptables, or from nftables, to another.
    fn moves(&self) -> bool {
        let mut backends = self.backends();
        backends.dedup();
        backends.len() > 1
    }

    /// By which backends anything is installed in the course of it.
    fn backends(&self) -> Vec<Backend> {
        let mut backends = Vec::new();
        if let Start::Installed(backend, _) | Start::Trial(backend, _) = self.start {
            backends.push(backend);
        }
        if let Act::Install(backend, _) = self.act {
            backends.push(backend);
        }
        backends
    }

    /// Makes the machine that it begins on: others' rules, and files of its own.
    pub fn furnish(&self, lab: &Lab) {
        // The configuration of firewalld, and whatever else is in /etc, is the machine's.
        let own = lab.dir().join("private-etc");
        must("cp", &["-a", "/etc", &own.to_string_lossy()]);
        must("mount", &["--bind", &own.to_string_lossy(), "/etc"]);
        lab.replace_again();
        fs::create_dir_all("/etc/firewalld").expect("a private /etc");
        // The program without libraries is what is released, and its first call is one of its own.
        if let Some(program) = std::env::var_os("TPROXY_TEST_STATIC_BINARY") {
            // In place of the other one, not over it: a mount goes when what it lies on is built anew.
            must("umount", &[&lab.program_path().to_string_lossy()]);
            must("mount", &["--bind", &program.to_string_lossy(), &lab.program_path().to_string_lossy()]);
        }
        if let Some(body) = self.around {
            let (real, shell) = (lab.dir().join("real"), lab.dir().join("shell"));
            copy_program(lab.program_path(), &real);
            let refuse = "[ ! -e /run/lab/refuse ] || { rm /run/lab/refuse; exit 1; }";
            fs::write(&shell, format!("#!/bin/sh\n{refuse}\n{} \"$@\" && exit\n{body}\n", real.display()))
                .expect("a file in the private /run");
            must("chmod", &["755", &shell.to_string_lossy()]);
            must("mount", &["--bind", &shell.to_string_lossy(), &lab.program_path().to_string_lossy()]);
        }
        self.their_rules();
        lab.silence();
        // The cable took the routes to the DNS servers with it, and without one nobody can ask them.
        for (family, server) in [("-4", "10.96.0.10"), ("-6", "fd00:96::10")] {
            must("ip", &[family, "route", "add", server, "dev", "lo"]);
        }
    }

    fn their_rules(&self) {
        let direct = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<direct>\n  <rule ipv=\"ipv4\" table=\"filter\" \
             chain=\"INPUT\" priority=\"0\">-p tcp --dport 81 -j ACCEPT</rule>\n</direct>\n";
        fs::write("/etc/firewalld/direct.xml", direct).expect("a private /etc");
        let mut variants: Vec<Variant> = self.backends().into_iter().map(Backend::tools).collect();
        variants.dedup();
        for variant in variants {
            for family in Family::BOTH {
                let text = "*nat\n-A OUTPUT -p tcp -m tcp --dport 4000 -j RETURN\n-A PREROUTING -p udp -j ACCEPT\nCOMMIT\n\
                    *raw\n-A OUTPUT -p udp -m udp --dport 4789 -j CT --notrack\nCOMMIT\n";
                firewall::restore(variant, family, text);
            }
        }
    }

    /// Brings the machine to where it begins, from wherever it is, by the program itself. What a program said that did
    /// not do it.
    pub fn begin(&self, lab: &Lab) -> Result<(), String> {
        let done = |program: Program| {
            let run = program.run();
            if run.code == Some(0) { Ok(()) } else { Err(run.to_string()) }
        };
        done(lab.program().arg("uninstall"))?;
        // Of a trial a log stays, for people.
        if let Some(log) = file("log") {
            let _ = fs::remove_file(log);
            let _ = fs::remove_dir(RUN);
        }
        if let Start::Installed(backend, flags) = self.start {
            done(install(lab, backend, self.moves(), &[&FIRST, flags].concat()))?;
        }
        if let Start::Trial(backend, flags) = self.start {
            done(install(lab, backend, false, &FIRST))?;
            done(install(lab, backend, false, &[&SECOND, flags].concat()))?;
        }
        Ok(())
    }

    /// The same by force, where the program did not do it.
    #[track_caller]
    pub fn begin_anew(&self, lab: &Lab) {
        must("nft", &["flush", "ruleset"]);
        for (variant, family) in everywhere().filter(|(variant, _)| *variant == Variant::Legacy) {
            let names = format!(
                "/proc/thread-self/net/{}_names",
                match family {
                    Family::V4 => "ip_tables",
                    Family::V6 => "ip6_tables",
                }
            );
            for table in fs::read_to_string(names).unwrap_or_default().lines() {
                let restore = firewall::tool(variant, family, "-restore");
                must_with(&restore, &[], &format!("*{table}\nCOMMIT\n"));
            }
        }
        // Whoever still waits would put back what it waits for.
        injector::end_all();
        let _ = fs::remove_dir_all(RUN);
        for address in ["::6/128", "::9/128"] {
            let _ = Program::new("ip").args(["addr", "del", address, "dev", "lo"]).run();
        }
        self.their_rules();
        self.begin(lab).unwrap_or_else(|error| panic!("the machine cannot be prepared: {error}"));
    }
}

fn install(lab: &Lab, backend: Backend, named: bool, flags: &[&str]) -> Program {
    let program = lab.program().args(["install", "--kuma-dp-user", "kuma-dp"]);
    let flags_of_backend = match backend {
        // Whose tables have rules is chosen unasked, with fewer questions. A move has to name where to.
        Backend::Iptables(_) if !named => vec!["--backend=iptables".to_owned()],
        Backend::Iptables(variant) => {
            vec![
                "--backend=iptables".to_owned(),
                format!("--iptables-executables={}", firewall::executables(variant)),
            ]
        }
        Backend::Nftables => vec!["--backend=nftables".to_owned()],
    };
    program.args(flags_of_backend).args(flags)
}

const RUN: &str = "/run/tproxy";

/// By when whoever waits has mostly gone back.
const HEARD: Duration = Duration::from_millis(300);

/// The file of this network namespace of that kind.
pub fn file(kind: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(RUN).ok()?;
    entries.filter_map(Result::ok).map(|e| e.path()).find(|path| path.extension().is_some_and(|e| e == kind))
}

/// Lets the time of a trial be over; whoever waits hears of it, and of it again where the first word could not be read.
pub fn let_time_pass() {
    for _ in 0..3 {
        let Some(pending) = file("pending") else { return };
        let Ok(text) = fs::read_to_string(&pending) else { return };
        let Ok(mut says) = serde_json::from_str::<serde_json::Value>(&text) else { return };
        says["until"] = 1.into();
        let written = Path::new("/run/lab/pending");
        fs::write(written, says.to_string()).expect("a file in the private /run");
        // It may be gone by now, and its directory too.
        let _ = fs::rename(written, &pending);
        let again = Instant::now() + HEARD;
        while pending.exists() && Instant::now() < again {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What is there when the program has done what it was asked, by this backend instead.
pub fn wanted_by(lab: &Lab, backend: Backend, flags: &[&str]) -> Result<State, String> {
    let run = install(lab, backend, false, &[&SECOND, flags].concat()).run();
    if run.code == Some(0) { Ok(State::take()) } else { Err(run.to_string()) }
}
