//! A file system with nothing in it: the program, /proc, and a list of users. No shell, no library, no iptables, no
//! nft, no configuration of DNS, not even a /run.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::support::command::{Program, copy_program, must};
use crate::support::generation::nft_generation;
use crate::support::lab::skip;
use crate::support::mesh::listening_sidecar;
use crate::support::snapshot::Snapshot;
use crate::support::tracer::{Then, When, trace};
use crate::support::{Backend, Family, Lab, Run};

/// Names a build without libraries; otherwise it is looked for where cargo puts one.
const VARIABLE: &str = "TPROXY_TEST_STATIC_BINARY";

/// The program as it is shipped, of the sources that are tested.
fn static_program() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os(VARIABLE) {
        return Ok(path.into());
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    let musl = format!("{}-unknown-linux-musl", env::consts::ARCH);
    let builds = ["debug", "release"].map(|profile| target.join(&musl).join(profile).join("tproxy"));
    let newest = builds.into_iter().filter_map(|path| Some((modified(&path)?, path))).max();
    let build = format!("'cargo build --target {musl}' makes one");
    let (at, path) = newest.ok_or(format!("there is no build without libraries; {build}"))?;
    if newest_source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) > at {
        return Err(format!("{} is older than the sources; {build}", path.display()));
    }
    Ok(path)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|file| file.modified()).ok()
}

fn newest_source(dir: &Path) -> SystemTime {
    let entries = fs::read_dir(dir).expect("the sources").map(|entry| entry.expect("an entry").path());
    let newest = |path: PathBuf| {
        if path.is_dir() { newest_source(&path) } else { modified(&path).expect("a file") }
    };
    entries.map(newest).max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The directory that becomes the root.
struct Root(PathBuf);

impl Root {
    fn new(lab: &Lab, program: &Path) -> Self {
        let root = lab.dir().join("root");
        for dir in ["proc", "etc"] {
            fs::create_dir_all(root.join(dir)).expect("a directory in the private /run");
        }
        copy_program(program, &root.join("tproxy"));
        let users = "root:x:0:0::/:/none\nkuma-dp:x:5678:5678::/:/none\n";
        fs::write(root.join("etc/passwd"), users).expect("a file in the private /run");
        must("mount", &["--rbind", "/proc", &root.join("proc").to_string_lossy()]);
        Self(root)
    }

    fn files(&self) -> Vec<String> {
        let path = self.0.to_string_lossy();
        let found = must("find", &[&path, "-path", &format!("{path}/proc"), "-prune", "-o", "-print"]);
        let mut files: Vec<String> = found.lines().map(str::to_owned).collect();
        files.sort();
        files
    }

    /// Runs the program in it, which starts no other.
    #[track_caller]
    fn run(&self, args: &[&str]) -> Run {
        let mut count = 0;
        let program = Program::new("chroot").arg(&self.0).arg("/tproxy").args(args);
        let run = trace(&program, |call, when| {
            let executes = [libc::SYS_execve, libc::SYS_execveat].contains(&call.number);
            count += usize::from(executes && when == When::Before);
            Then::GoOn
        });
        assert_eq!(count, 1, "chroot starts the program, and that nothing: {run}");
        run
    }
}

/// From installation to the last trace of it.
fn works(lab: &Lab, read_only: bool, flags: &[&str]) {
    let program = match static_program() {
        Ok(program) => program,
        Err(reason) => return skip(&reason),
    };
    let root = Root::new(lab, &program);
    if read_only {
        let path = root.0.to_string_lossy();
        must("mount", &["--rbind", &path, &path]);
        must("mount", &["-o", "remount,bind,ro", &path]);
    }
    let (before, files) = (Snapshot::take(), root.files());
    let generation = nft_generation();
    let run = root.run(&["install", "--redirect-dns"]).exits(3).says("/etc/resolv.conf");
    let _ = run.says("hint: name the file").says("--redirect-all-dns-traffic");
    let install = [&["install"], flags].concat();
    let run = root.run(&install).succeeds().says("using nftables: no iptables was found");
    let _ = run.prints("nftables rules").says("::6 is added to lo and an uninstall leaves it there");
    assert_eq!(nft_generation(), generation + 1);
    assert_eq!(Backend::installed(), [Backend::Nftables]);
    assert!(Family::BOTH.into_iter().all(|family| Backend::Nftables.has_ours(family)));
    root.run(&install).succeeds().prints("nothing was written");
    root.run(&["status"]).exits(11).prints("nobody listens");
    let sidecar = listening_sidecar();
    root.run(&["status"]).succeeds().prints("nftables");
    drop(sidecar);
    root.run(&["verify"]).succeeds();
    let more = [&install[..], &["--exclude-outbound-ports", "7001"]].concat();
    root.run(&more).succeeds();
    assert_eq!(nft_generation(), generation + 2);
    root.run(&[&more[..], &["--verify"]].concat()).succeeds();
    root.run(&["uninstall"]).succeeds().prints("nftables rules removed");
    // Without a /run nothing remembers that this address is new, so it is said that it stays.
    must("ip", &["addr", "del", "::6/128", "dev", "lo"]);
    Snapshot::take().assert_unchanged_since(&before);
    assert_eq!(root.files(), files);
    root.run(&["status"]).exits(10);
    root.run(&["uninstall"]).succeeds().prints("nothing was installed");
}

#[test]
fn the_program_alone_is_enough() {
    Lab::enter(|lab| works(lab, false, &[]));
}

#[test]
fn it_is_enough_for_dns_as_well() {
    Lab::enter(|lab| works(lab, false, &["--redirect-all-dns-traffic", "--drop-invalid-packets"]));
}

#[test]
fn it_need_not_even_be_writable() {
    Lab::enter(|lab| works(lab, true, &[]));
}
