//! A machine of one's own: a thread with its own network and mount namespaces, in which a test runs.
//!
//! Namespaces belong to threads, so tests are safe side by side in one process. Everything a test starts from the
//! lab's thread, threads and children, is inside. An ordinary user gets in by way of a user namespace: the test
//! binary then runs again under `unshare`, for this one test.

use std::any;
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use super::backend::Backend;
use super::command::{self, Program, Run};
use super::firewall::{Family, Variant};
use super::network::{self, Peer};
use super::users::{APP, SIDECAR};

/// Set in the second run of the test binary, inside the user namespace.
const ENTERED: &str = "TPROXY_TEST_ENTERED";

/// Where a lab keeps its files; a private file system.
pub const DIR: &str = "/run/lab";

/// A machine to install on, with a neighbour behind a cable.
pub struct Lab {
    peer: Peer,
    program: PathBuf,
}

impl Lab {
    /// Runs a test inside. Where namespaces cannot be had the test says so and passes, but fails where `CI` is set.
    #[track_caller]
    pub fn enter<F: FnOnce(&Self) + Send + 'static>(test: F) {
        if let Err(reason) = Self::try_enter(test) {
            skip(&reason);
        }
    }

    fn try_enter<F: FnOnce(&Self) + Send + 'static>(test: F) -> Result<(), String> {
        if !nix::unistd::geteuid().is_root() {
            return again_in_a_user_namespace(any::type_name::<F>());
        }
        Self::inside(test)
    }

    /// Does something on another machine, which is gone afterwards.
    pub fn elsewhere<T: Send + 'static>(body: impl FnOnce(&Self) -> T + Send + 'static) -> T {
        Self::inside(body).expect("what worked once works twice")
    }

    fn inside<T: Send + 'static>(body: impl FnOnce(&Self) -> T + Send + 'static) -> Result<T, String> {
        let name = thread::current().name().unwrap_or("lab").to_owned();
        let lab = thread::Builder::new().name(name).spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .map_err(|error| format!("no network and mount namespaces: {error}"))?;
            in_a_namespace_of_our_own();
            Ok(body(&Self::furnish()))
        });
        lab.expect("a thread").join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn furnish() -> Self {
        command::must("mount", &["--make-rprivate", "/"]);
        let resolv_conf = Path::new("/etc/resolv.conf");
        let target = fs::read_link(resolv_conf).ok();
        command::must("mount", &["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run"]);
        fs::create_dir(DIR).expect("a directory in the private /run");
        let program = Path::new(DIR).join("tproxy");
        fs::write(&program, "").expect("a file in the private /run");
        let built =
            env::var("TPROXY_TEST_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_tproxy").to_owned());
        bind(Path::new(&built), &program);

        // resolv.conf is often a link into /run, which is empty now.
        if let Some(target) = target.filter(|_| !resolv_conf.exists()) {
            let target = Path::new("/etc").join(target);
            fs::create_dir_all(target.parent().expect("a parent")).expect("a directory in the private /run");
            fs::write(&target, "").expect("a file in the private /run");
        }
        let lab = Self { peer: network::cable(), program };
        lab.replace("/etc/passwd", &{
            let others = fs::read_to_string("/etc/passwd").unwrap_or_default();
            let ids = [format!(":{SIDECAR}:"), format!(":{APP}:")];
            let others: Vec<&str> = others
                .lines()
                .filter(|line| !line.starts_with("kuma-dp:") && !ids.iter().any(|id| line.contains(id)))
                .collect();
            format!(
                "{}\nkuma-dp:x:{SIDECAR}:{SIDECAR}::/:/bin/false\napp:x:{APP}:{APP}::/:/bin/false\n",
                others.join("\n")
            )
        });
        lab.resolv_conf("nameserver 10.96.0.10\nnameserver fd00:96::10\n");
        lab
    }

    /// Where this lab keeps its files.
    pub fn dir(&self) -> &Path {
        self.program.parent().expect("a directory")
    }

    /// The machine at the other end of the cable.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Lets a file of the host have another content for this test.
    #[track_caller]
    pub fn replace(&self, path: &str, content: &str) {
        let own = self.dir().join(path.trim_start_matches('/').replace('/', "-"));
        let bound = own.exists();
        fs::write(&own, content).expect("a file in the private /run");
        if !bound {
            bind(&own, Path::new(path));
        }
    }

    /// Puts the replaced files of /etc in place again after something was mounted over it.
    #[track_caller]
    pub fn replace_again(&self) {
        for own in fs::read_dir(self.dir()).expect("a directory").map(|entry| entry.expect("an entry").path())
        {
            let name = own.file_name().unwrap_or_default().to_string_lossy();
            if let (Some(name), true) = (name.strip_prefix("etc-"), own.is_file()) {
                bind(&own, &Path::new("/etc").join(name));
            }
        }
    }

    /// Which DNS servers the machine has.
    #[track_caller]
    pub fn resolv_conf(&self, content: &str) {
        self.replace("/etc/resolv.conf", content);
    }

    /// Pulls the cable. The machine keeps its addresses and hears and says nothing more, not even what IPv6 does by
    /// itself, so counters stand still.
    pub fn silence(&self) {
        fs::write("/proc/sys/net/ipv6/conf/eth0/keep_addr_on_down", "1")
            .expect("a setting of the own namespace");
        network::ip("link set eth0 down\n");
        self.peer.ip("link set eth0 down\n");
    }

    /// The program under test, without arguments.
    pub fn program(&self) -> Program {
        in_a_namespace_of_our_own();
        Program::new(&self.program)
    }

    /// Where the program under test is.
    pub fn program_path(&self) -> &Path {
        &self.program
    }

    /// `tproxy install` for the user `kuma-dp` with further flags, by a backend or a variant of iptables.
    pub fn install(&self, backend: impl Into<Backend>, flags: &[&str]) -> Run {
        self.installing(backend, flags).run()
    }

    /// The same, not started yet.
    pub fn installing(&self, backend: impl Into<Backend>, flags: &[&str]) -> Program {
        let program = self.program().args(["install", "--kuma-dp-user", "kuma-dp"]);
        program.args(backend.into().flags()).args(flags)
    }

    /// `tproxy uninstall` with further flags.
    pub fn uninstall(&self, backend: impl Into<Backend>, flags: &[&str]) -> Run {
        self.uninstalling(backend, flags).run()
    }

    /// The same, not started yet. A native table is found unasked.
    pub fn uninstalling(&self, backend: impl Into<Backend>, flags: &[&str]) -> Program {
        let named = match backend.into() {
            Backend::Nftables => Vec::new(),
            iptables @ Backend::Iptables(_) => iptables.flags(),
        };
        self.program().arg("uninstall").args(named).args(flags)
    }
}

fn bind(from: &Path, to: &Path) {
    command::must("mount", &["--bind", &from.to_string_lossy(), &to.to_string_lossy()]);
}

/// Stops the test unless its thread is in a network namespace that a lab made. Nothing else stands between a test and
/// the firewall of the machine it runs on.
#[track_caller]
pub fn in_a_namespace_of_our_own() {
    let inode = |path: &str| fs::metadata(path).map(|ns| ns.ino());
    let here = inode("/proc/thread-self/ns/net").expect("a network namespace");
    // Threads enter namespaces here, the process itself never does.
    let process = inode("/proc/self/ns/net").expect("a network namespace");
    assert_ne!(here, process, "this would change the firewall of the machine the tests run on");
    if let Ok(first) = inode("/proc/1/ns/net") {
        assert_ne!(here, first, "this would change the firewall of the machine the tests run on");
    }
}

/// Says why a test cannot be run here.
#[track_caller]
pub fn skip(reason: &str) {
    assert!(env::var_os("CI").is_none(), "tests must not be skipped where CI is set: {reason}");
    eprintln!("skipped: {reason}");
}

fn again_in_a_user_namespace(closure: &str) -> Result<(), String> {
    if env::var_os(ENTERED).is_some() {
        return Err("a user namespace without a root of its own".to_owned());
    }
    if command::find("newuidmap").is_none() {
        return Err("neither root nor newuidmap, which maps the users that rules are about".to_owned());
    }
    let test =
        closure.split("::").skip(1).take_while(|part| !part.starts_with("{{")).collect::<Vec<_>>().join("::");
    let unshare = ["--user", "--map-root-user", "--map-auto", "--net", "--mount", "--"];
    let probe =
        Command::new("unshare").args(unshare).arg("true").output().map_err(|error| error.to_string())?;
    if !probe.status.success() {
        return Err(format!("no user namespace: {}", String::from_utf8_lossy(&probe.stderr).trim()));
    }
    let run = Command::new("unshare")
        .args(unshare)
        .arg(env::current_exe().map_err(|error| error.to_string())?)
        .args(["--exact", &test, "--nocapture"])
        .env(ENTERED, "yes")
        .output()
        .map_err(|error| error.to_string())?;
    let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    print!("{stdout}");
    eprint!("{stderr}");
    assert!(run.status.success() && stdout.contains("1 passed"), "{test} failed inside its user namespace");
    Ok(())
}

/// A module for each scenario, in it a test for each place: `name(what the scenario is told of it)`.
macro_rules! scenarios {
    (
        $type:ident $places:tt
        $($(#[$meta:meta])* fn $name:ident($lab:ident, $place:ident $(, $family:ident)?) $body:block)+
    ) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports, reason = "not every scenario needs all of its file")]
            use super::*;

            $crate::support::lab::scenarios!(@tests $type $places);

            fn scenario(
                $lab: &$crate::support::Lab,
                $place: $crate::support::$type,
                $($family: $crate::support::Family)?
            ) $body
        }
    )+};
    (@tests $type:ident { $($test:ident($place:ident $(, $family:ident)?))+ }) => {$(
        #[test]
        fn $test() {
            use $crate::support::{$type, Lab};
            Lab::enter(|lab| scenario(lab, $type::$place $(, $crate::support::Family::$family)?));
        }
    )+};
}

/// One scenario, one test per backend: `fn name(lab, backend)`. Other people's rules are written with
/// `backend.tools()`; ours are looked for with `backend.has_ours(family)` or in a snapshot.
macro_rules! each_backend {
    ($($scenarios:tt)+) => {
        $crate::support::lab::scenarios! { Backend { nft(NFT) legacy(LEGACY) nftables(Nftables) } $($scenarios)+ }
    };
}

/// One scenario, one test per backend and family: `fn name(lab, backend, family)`.
macro_rules! each_stack {
    ($($scenarios:tt)+) => {
        $crate::support::lab::scenarios! {
            Backend {
                nft_v4(NFT, V4) nft_v6(NFT, V6) legacy_v4(LEGACY, V4) legacy_v6(LEGACY, V6)
                nftables_v4(Nftables, V4) nftables_v6(Nftables, V6)
            }
            $($scenarios)+
        }
    };
}

/// One scenario, one test per variant of iptables, for what only its programs can do or suffer: `fn name(lab,
/// variant)`. What is not of that kind is for [`each_backend`].
macro_rules! each_iptables_variant {
    ($($scenarios:tt)+) => {
        $crate::support::lab::scenarios! { Variant { nft(Nft) legacy(Legacy) } $($scenarios)+ }
    };
}

/// The same, one test per variant and family: `fn name(lab, variant, family)`.
macro_rules! each_iptables_stack {
    ($($scenarios:tt)+) => {
        $crate::support::lab::scenarios! {
            Variant { nft_v4(Nft, V4) nft_v6(Nft, V6) legacy_v4(Legacy, V4) legacy_v6(Legacy, V6) }
            $($scenarios)+
        }
    };
}

pub(crate) use {each_backend, each_iptables_stack, each_iptables_variant, each_stack, scenarios};

/// The families of a lab, for scenarios that look at both.
pub fn everywhere() -> impl Iterator<Item = (Variant, Family)> {
    Variant::BOTH
        .into_iter()
        .flat_map(|variant| Family::BOTH.into_iter().map(move |family| (variant, family)))
}
