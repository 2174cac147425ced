//! Runs the program in a directory of its own, with an environment that holds nothing but what a test puts there.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::command::unwrapped;

/// A run to be.
pub struct Run {
    dir: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Vec<u8>,
}

/// What a run said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    /// Programs that it started, of those that it could find.
    pub started: String,
}

/// The names under which the run finds programs; each only writes down that it was started.
const PROGRAMS: [&str; 18] = [
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
    "iptables-nft",
    "iptables-nft-save",
    "iptables-nft-restore",
    "ip6tables-nft",
    "ip6tables-nft-save",
    "ip6tables-nft-restore",
    "iptables-legacy",
    "iptables-legacy-save",
    "iptables-legacy-restore",
    "ip6tables-legacy",
    "ip6tables-legacy-save",
    "ip6tables-legacy-restore",
];

/// `tproxy` with arguments.
pub fn tproxy<S: Into<OsString>>(args: impl IntoIterator<Item = S>) -> Run {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("tproxy-cli-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let dir = std::env::temp_dir().join(name);
    fs::create_dir(&dir).expect("a directory of our own");
    let run =
        Run { dir, args: args.into_iter().map(Into::into).collect(), env: Vec::new(), stdin: Vec::new() };
    let bin = run.dir.join("bin");
    fs::create_dir(&bin).unwrap();
    let script = bin.join(PROGRAMS[0]);
    let started = run.dir.join("started");
    fs::write(&script, format!("#!/bin/sh\necho \"$0 $*\" >> {}\nexit 1\n", started.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    for name in &PROGRAMS[1..] {
        fs::hard_link(&script, bin.join(name)).unwrap();
    }
    run.env("PATH", bin)
}

impl Run {
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Puts a file where the run starts.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.dir.join(name), content).unwrap();
        self
    }

    pub fn stdin(mut self, content: impl Into<Vec<u8>>) -> Self {
        self.stdin = content.into();
        self
    }

    /// The command. A run that could change a firewall gets a network of its own, should a check that is
    /// tested here ever fail: only root can change one, and root can always make one.
    pub fn command(&self) -> Command {
        let mut command = if nix::unistd::geteuid().is_root() {
            let mut command = Command::new("/usr/bin/unshare");
            command.args(apart()).arg(env!("CARGO_BIN_EXE_tproxy"));
            command
        } else {
            Command::new(env!("CARGO_BIN_EXE_tproxy"))
        };
        command.args(&self.args).env_clear().envs(self.env.iter().cloned()).current_dir(&self.dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn said(self) -> Said {
        let mut child = self.command().spawn().expect("the program starts");
        let mut stdin = child.stdin.take().unwrap();
        // A run that does not read its input closes it.
        let _ = stdin.write_all(&self.stdin);
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Said {
            code: output.status.code(),
            out: text(output.stdout),
            err: unwrapped(&text(output.stderr)),
            started: fs::read_to_string(self.dir.join("started")).unwrap_or_default(),
        }
    }
}

/// What makes `unshare` work here. Without it nothing is run: a check that fails would reach a real firewall.
fn apart() -> &'static [&'static str] {
    static FORMS: [&[&str]; 2] = [&["--net", "--mount"], &["--user", "--map-root-user", "--net", "--mount"]];
    static WORKS: OnceLock<&[&str]> = OnceLock::new();
    WORKS.get_or_init(|| {
        let works = |form: &&&[&str]| {
            Command::new("/usr/bin/unshare")
                .args(**form)
                .arg("true")
                .output()
                .is_ok_and(|output| output.status.success())
        };
        FORMS.iter().find(works).copied().expect("as root, these tests need 'unshare --net' to be possible")
    })
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}
