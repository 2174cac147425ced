//! Namespaces to measure in.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, getgid, getuid};

use super::clock::must;

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

/// What an install writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// One of the two iptables.
    Iptables(Variant),
    /// The kernel's `nf_tables`, without a program in between.
    Nftables,
}

impl Backend {
    /// All of them.
    pub const ALL: [Self; 3] =
        [Self::Iptables(Variant::Nft), Self::Iptables(Variant::Legacy), Self::Nftables];

    /// As in `--backend` of the benchmarks and their tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Iptables(Variant::Nft) => "iptables-nft",
            Self::Iptables(Variant::Legacy) => "iptables-legacy",
            Self::Nftables => "nftables",
        }
    }
}

/// The sidecar's user in a lab that root makes.
pub const SIDECAR: u32 = 5678;

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
        let users =
            format!("root:x:0:0:root:/root:/bin/sh\nkuma-dp:x:{SIDECAR}:{SIDECAR}::/:/usr/sbin/nologin\n");
        write("/run/bench/passwd", &users)?;
        must("mount", ["--bind", "/run/bench/passwd", "/etc/passwd"])?;
        // Only users of the user namespace exist for the owner match.
        let sidecar = if Uid::is_root(uid) { "kuma-dp" } else { "root" };
        Ok(Self { dir, sidecar, legacy: legacy()?, hosts: RefCell::default() })
    }

    /// A fresh network namespace with a dual-stack host in it, without any rule, table or record: a run looks at records of
    /// other namespaces too, and all of them are kept here.
    pub fn host(&self) -> Result<(), String> {
        let left = File::open("/proc/self/ns/net").map_err(|e| format!("/proc/self/ns/net: {e}"))?;
        self.hosts.borrow_mut().push(left);
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| format!("cannot make a network namespace: {e}"))?;
        match fs::remove_dir_all("/run/tproxy") {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(format!("/run/tproxy: {e}")),
            _ => {}
        }
        must("ip", ["link", "set", "lo", "up"])?;
        must("ip", ["link", "add", "eth0", "type", "veth", "peer", "name", "wire"])?;
        must("ip", ["addr", "add", "192.0.2.1/24", "dev", "eth0"])?;
        must("ip", ["-6", "addr", "add", "2001:db8::1/64", "dev", "eth0", "nodad"])?;
        Ok(())
    }

    /// The command under test. Every run is that of a VM: dual stack, DNS on.
    pub fn tproxy(&self, backend: Backend, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tproxy"));
        command.args(args).args(["--kuma-dp-user", self.sidecar, "--redirect-dns"]);
        match backend {
            // Where nothing else decides, this one is taken.
            Backend::Iptables(Variant::Nft) => {}
            Backend::Iptables(Variant::Legacy) => {
                command.args(["--iptables-executables", &self.legacy]);
            }
            Backend::Nftables => {
                command.args(["--backend", "nftables"]);
            }
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
