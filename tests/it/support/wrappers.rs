//! iptables tools behind scripts that keep a log of their calls and can be told to fail.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::firewall::{self, Family, Variant};
use super::lab;

/// What a call does instead of, before or behind what it was called for; shell text. `$PPID` is the program under
/// test, `"$@"` are the arguments, `$real` is the tool.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing but this.
    Instead(String),
    /// This, then the tool.
    Before(String),
    /// The tool, then this.
    After(String),
}

impl Fault {
    /// Fails with these words.
    pub fn fails(code: i32, words: &str) -> Self {
        Self::Instead(format!("cat >/dev/null; echo '{words}' >&2; exit {code}"))
    }
}

/// One call of one tool: `iptables-save`, 1 for the first.
pub type Call = (String, usize);

/// Six tools of one variant.
pub struct Wrappers {
    dir: PathBuf,
    variant: Variant,
    faults: BTreeMap<String, String>,
}

impl Wrappers {
    /// Tools that only keep their log.
    pub fn new(variant: Variant) -> Self {
        let dir = Path::new(lab::DIR).join(format!("tools-{}", variant.name()));
        fs::create_dir_all(&dir).expect("a directory in the private /run");
        let wrappers = Self { dir, variant, faults: BTreeMap::new() };
        wrappers.write();
        wrappers.forget();
        wrappers
    }

    /// What the flag `--iptables-executables` takes to use them.
    pub fn flag(&self) -> String {
        let pairs = tools().map(|(family, role)| {
            format!(
                "{}{role}:{}",
                family.tool(),
                self.dir.join(firewall::tool(self.variant, family, role)).display()
            )
        });
        pairs.collect::<Vec<_>>().join(",")
    }

    /// The flag with its value.
    pub fn flags(&self) -> [String; 2] {
        ["--iptables-executables".to_owned(), self.flag()]
    }

    /// Lets one call go wrong.
    pub fn at(mut self, call: &Call, fault: &Fault) -> Self {
        self.add(&format!("{} {}", call.0, call.1), fault);
        self
    }

    /// Lets every call of a tool go wrong.
    pub fn every(mut self, name: &str, fault: &Fault) -> Self {
        self.add(&format!("{name} *"), fault);
        self
    }

    fn add(&mut self, pattern: &str, fault: &Fault) {
        let body = match fault {
            Fault::Instead(text) => text.clone(),
            Fault::Before(text) => format!("{text}; exec \"$real\" \"$@\""),
            Fault::After(text) => format!("\"$real\" \"$@\"; code=$?; {text}; exit $code"),
        };
        // A shell pattern takes the blank as it stands when it is quoted, and the star only when it is not.
        let pattern = pattern.replace(' ', "\\ ");
        self.faults.insert(pattern, body);
        self.write();
    }

    /// Starts counting calls again.
    pub fn forget(&self) {
        for name in names() {
            let _ = fs::remove_file(self.dir.join(format!("{name}.calls")));
        }
        let _ = fs::remove_file(self.dir.join("log"));
        let _ = fs::remove_file(self.dir.join("pids"));
    }

    /// The calls so far, each with its arguments.
    pub fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// The calls so far by tool and number.
    pub fn calls(&self) -> Vec<Call> {
        let mut numbers = BTreeMap::<String, usize>::new();
        let mut calls = Vec::new();
        for line in self.log() {
            let name = line.split(' ').next().unwrap_or_default().to_owned();
            let number = numbers.entry(name.clone()).or_default();
            *number += 1;
            calls.push((name, *number));
        }
        calls
    }

    /// Process ids of all calls so far.
    pub fn pids(&self) -> Vec<u32> {
        let pids = fs::read_to_string(self.dir.join("pids")).unwrap_or_default();
        pids.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Waits until no call is under way: a tool whose caller was killed ends by itself.
    pub fn settle(&self) {
        for pid in self.pids() {
            while is_running(pid) {
                std::thread::yield_now();
            }
        }
    }

    fn write(&self) {
        for (family, role) in tools() {
            let name = format!("{}{role}", family.tool());
            let mut script = String::from("#!/bin/sh\n");
            let _ = writeln!(script, "me={name} dir='{}'", self.dir.display());
            let _ = writeln!(script, "real={}", firewall::path(self.variant, family, role).display());
            script.push_str(
                "echo $$ >> \"$dir/pids\"\n\
                 echo \"$me $*\" >> \"$dir/log\"\n\
                 echo x >> \"$dir/$me.calls\"\n\
                 n=0; while read -r line; do n=$((n + 1)); done < \"$dir/$me.calls\"\n\
                 case \"$me $n\" in\n",
            );
            for (pattern, body) in &self.faults {
                let _ = writeln!(script, "{pattern}) {body} ;;");
            }
            script.push_str("esac\nexec \"$real\" \"$@\"\n");
            let path = self.dir.join(firewall::tool(self.variant, family, role));
            // A script that is being run cannot be overwritten in place; a new file under the name can.
            let new = self.dir.join(format!("{name}.new"));
            fs::write(&new, script).expect("a file in the private /run");
            fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("a file that can be run");
            fs::rename(&new, &path).expect("a file in the private /run");
        }
    }
}

/// Whether a process still does something; one whose parent died is a zombie until init gets round to it.
pub fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

fn tools() -> impl Iterator<Item = (Family, &'static str)> {
    Family::BOTH
        .into_iter()
        .flat_map(|family| ["", "-save", "-restore"].into_iter().map(move |role| (family, role)))
}

fn names() -> impl Iterator<Item = String> {
    tools().map(|(family, role)| format!("{}{role}", family.tool()))
}
