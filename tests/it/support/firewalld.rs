//! firewalld for one lab: with its own bus and its own configuration, from packages that are unpacked and not
//! installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use super::command::{self, Program, Run, Running};
use super::lab::{self, Lab, skip};

/// Where firewalld has its rules in the words of iptables.
pub const DIRECT_XML: &str = "/etc/firewalld/direct.xml";

/// Starting takes a second or two.
const PATIENCE: Duration = Duration::from_secs(60);

/// What firewalld makes rules with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Nftables,
    Iptables,
}

/// A bus for whoever is in the lab, where everybody may do everything.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#;

/// firewalld at work; ends with the value.
pub struct Firewalld {
    bus: nix::unistd::Pid,
    log: PathBuf,
    daemon: Option<Running>,
}

impl Firewalld {
    /// Lets firewalld rule the lab, with these lines more in its configuration. `None`, after saying so, where there
    /// is no firewalld.
    #[track_caller]
    pub fn start(lab: &Lab, backend: Backend, settings: &str) -> Option<Self> {
        lab::in_a_namespace_of_our_own();
        if let Err(reason) = lay_over(lab) {
            skip(&reason);
            return None;
        }
        let backend = match backend {
            Backend::Nftables => "nftables",
            Backend::Iptables => "iptables",
        };
        fs::write("/etc/firewalld/firewalld.conf", format!("FirewallBackend={backend}\n{settings}\n"))
            .expect("a private /etc/firewalld");
        let conf = lab.dir().join("bus.conf");
        fs::write(&conf, BUS).expect("a file in the private /run");
        fs::create_dir_all("/run/dbus").expect("a directory in the private /run");
        // It goes to the background as soon as it can be talked to.
        let flags = ["--fork", "--nopidfile", "--print-pid", "--config-file", &conf.to_string_lossy()];
        let bus = command::must("dbus-daemon", &flags).trim().parse().expect("a process id");
        let bus = nix::unistd::Pid::from_raw(bus);
        let mut firewalld = Self { bus, log: lab.dir().join("firewalld.log"), daemon: None };
        firewalld.begin();
        Some(firewalld)
    }

    #[track_caller]
    fn begin(&mut self) {
        let flags = ["--nofork", "--nopid", "--log-file"];
        self.daemon = Some(on_the_bus("firewalld").args(flags).arg(&self.log).start());
        let limit = Instant::now() + PATIENCE;
        while on_the_bus("firewall-cmd").arg("--state").run().stdout.trim() != "running" {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            assert!(Instant::now() < limit, "firewalld does not start: {log}");
        }
    }

    /// As a service manager does: it is told to end, and when it has, another one begins.
    #[track_caller]
    pub fn restart(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            kill(command::pid(daemon.pid), Signal::SIGTERM).expect("a firewalld");
            daemon.finish();
        }
        self.begin();
    }

    /// Reads its configuration again and makes all rules anew.
    #[track_caller]
    pub fn reload(&self) {
        self.command(&["--reload"]).succeeds();
        self.command(&["--state"]).succeeds().prints("running");
    }

    /// `firewall-cmd`
    #[allow(clippy::unused_self, reason = "nobody answers it unless firewalld is there")]
    pub fn command(&self, args: &[&str]) -> Run {
        on_the_bus("firewall-cmd").args(args).run()
    }
}

impl Drop for Firewalld {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            let _ = kill(command::pid(daemon.pid), Signal::SIGKILL);
            daemon.finish();
        }
        let _ = kill(self.bus, Signal::SIGKILL);
    }
}

fn on_the_bus(program: &str) -> Program {
    Program::new(program)
}

/// Where `tests/firewalld` has unpacked it.
fn unpacked() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    Path::new(env!("CARGO_MANIFEST_DIR")).join(target).join("firewalld")
}

/// Makes a machine that has firewalld of the lab: what was unpacked lies over the machine's own files.
fn lay_over(lab: &Lab) -> Result<(), String> {
    let root = unpacked();
    if !root.join(".complete").exists() {
        return Err("tests/firewalld has not been run".to_owned());
    }
    let upper = lab.dir().join("etc-upper");
    let work = lab.dir().join("etc-work");
    for dir in [&upper, &work] {
        fs::create_dir(dir).expect("a directory in the private /run");
    }
    let root = root.display();
    let (upper, work) = (upper.display(), work.display());
    for (dir, options) in [
        ("/usr", format!("lowerdir={root}/usr:/usr")),
        ("/etc", format!("lowerdir={root}/etc:/etc,upperdir={upper},workdir={work}")),
    ] {
        let mount = Program::new("mount").args(["-t", "overlay", "-o", &options, "overlay", dir]).run();
        if mount.code != Some(0) {
            return Err(format!("no overlay file system: {}", mount.stderr.trim()));
        }
    }
    lab.replace_again();
    Ok(())
}
