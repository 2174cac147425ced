//! Namespaces to measure in, and the clock.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, getgid, getuid};

/// Which of the two iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Over `nf_tables`.
    Nft,
    /// Over `x_tables`.
    Legacy,
}

impl Variant {
    /// As in the names of the programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        }
    }

    /// `ip6tables-nft-restore` and the like; `role` is empty for the plain command.
    pub fn program(self, family: &str, role: &str) -> String {
        let dash = if role.is_empty() { "" } else { "-" };
        format!("{family}-{}{dash}{role}", self.name())
    }
}

/// The programs of the two families.
pub const FAMILIES: [&str; 2] = ["iptables", "ip6tables"];

/// A place of our own: mount namespace with a private `/run`, and network namespaces one after the other.
pub struct Lab {
    dir: PathBuf,
    sidecar: &'static str,
    /// The legacy programs as `--iptables-executables` takes them.
    legacy: String,
    /// Every network namespace there was: the kernel takes them apart in the background, beside what is measured next.
    hosts: RefCell<Vec<File>>,
}

impl Lab {
    /// Leaves the namespaces of the caller for good.
    pub fn enter() -> Result<Self, String> {
        let before = network()?;
        let (uid, gid) = (getuid(), getgid());
        let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
        if !uid.is_root() {
            flags |= CloneFlags::CLONE_NEWUSER;
        }
        unshare(flags).map_err(|e| format!("cannot make namespaces to measure in (root can): {e}"))?;
        if !uid.is_root() {
            write("/proc/self/setgroups", "deny")?;
            write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
            write("/proc/self/gid_map", &format!("0 {gid} 1"))?;
        }
        if network()? == before {
            return Err("still in the caller's network namespace; nothing is measured there".into());
        }
        must("mount", ["--make-rprivate", "/"])?;
        must("mount", ["-t", "tmpfs", "tmpfs", "/run"])?;
        let dir = PathBuf::from("/run/bench");
        fs::create_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        write("/run/bench/resolv.conf", "nameserver 10.96.0.10\nnameserver fd00:96::a\n")?;
        let users = "root:x:0:0:root:/root:/bin/sh\nkuma-dp:x:5678:5678::/:/usr/sbin/nologin\n";
        write("/run/bench/passwd", users)?;
        must("mount", ["--bind", "/run/bench/passwd", "/etc/passwd"])?;
        // Only users of the user namespace exist for the owner match.
        let sidecar = if Uid::is_root(uid) { "kuma-dp" } else { "root" };
        Ok(Self { dir, sidecar, legacy: legacy()?, hosts: RefCell::default() })
    }

    /// A fresh network namespace with a dual-stack host in it, without any rule or table.
    pub fn host(&self) -> Result<(), String> {
        let left = File::open("/proc/self/ns/net").map_err(|e| format!("/proc/self/ns/net: {e}"))?;
        self.hosts.borrow_mut().push(left);
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| format!("cannot make a network namespace: {e}"))?;
        must("ip", ["link", "set", "lo", "up"])?;
        must("ip", ["link", "add", "eth0", "type", "veth", "peer", "name", "wire"])?;
        must("ip", ["addr", "add", "192.0.2.1/24", "dev", "eth0"])?;
        must("ip", ["-6", "addr", "add", "2001:db8::1/64", "dev", "eth0", "nodad"])?;
        Ok(())
    }

    /// The same with every table that an install writes to, and a rule of somebody else.
    pub fn used_host(&self, variant: Variant) -> Result<(), String> {
        self.host()?;
        for family in FAMILIES {
            for table in ["raw", "mangle", "nat"] {
                must(
                    variant.program(family, ""),
                    ["-t", table, "-A", "OUTPUT", "-p", "udp", "-j", "RETURN"],
                )?;
                must(
                    variant.program(family, ""),
                    ["-t", table, "-D", "OUTPUT", "-p", "udp", "-j", "RETURN"],
                )?;
            }
            must(
                variant.program(family, ""),
                ["-t", "nat", "-A", "POSTROUTING", "-p", "udp", "-j", "RETURN"],
            )?;
        }
        Ok(())
    }

    /// The command under test. Every run is that of a VM: dual stack, DNS on.
    pub fn tproxy(&self, variant: Variant, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tproxy"));
        command.args(args).args(["--kuma-dp-user", self.sidecar, "--redirect-dns"]);
        if variant == Variant::Legacy {
            // Where nothing else decides, the other variant is taken.
            command.args(["--iptables-executables", &self.legacy]);
        }
        command.env("KUMA_TRANSPARENT_PROXY_REDIRECT_DNS_RESOLV_CONFIG_PATH", self.file("resolv.conf"));
        command
    }

    /// A path in the private directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file into the private directory.
    pub fn keep(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.file(name);
        write(&path, text)?;
        Ok(path)
    }
}

/// Every legacy program with its path.
fn legacy() -> Result<String, String> {
    let mut pairs = Vec::new();
    for family in FAMILIES {
        for role in ["", "save", "restore"] {
            let program = Variant::Legacy.program(family, role);
            let path = must("sh", ["-c", &format!("command -v {program}")])?;
            pairs.push(format!("{}:{}", program.replace("-legacy", ""), path.trim()));
        }
    }
    Ok(pairs.join(","))
}

fn network() -> Result<PathBuf, String> {
    fs::read_link("/proc/self/ns/net").map_err(|e| format!("/proc/self/ns/net: {e}"))
}

fn write(path: impl AsRef<Path>, text: &str) -> Result<(), String> {
    let path = path.as_ref();
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

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

/// The most memory a command ever had resident, in KiB, without its children: read from `/proc` until it is gone.
pub fn peak_memory(command: &mut Command) -> Result<u64, String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("{}: {e}", command.get_program().display()))?;
    let status = format!("/proc/{}/status", child.id());
    let exe = format!("/proc/{}/exe", child.id());
    let program = fs::canonicalize(command.get_program()).map_err(|e| e.to_string())?;
    let mut peak = 0;
    loop {
        // Until the exec it is a copy of this program.
        if fs::read_link(&exe).is_ok_and(|path| path == program) {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let seen = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let seen = seen.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
            peak = peak.max(seen.unwrap_or(0));
        }
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return if status.success() && peak > 0 { Ok(peak) } else { Err(format!("memory: {status}")) };
        }
    }
}
