//! What is recorded of network namespaces that are gone goes; what is recorded of others stays.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use tproxy::sys::alive::Alive;
use tproxy::sys::netns;

use crate::support::Lab;
use crate::support::command::Program;

fn files() -> BTreeSet<String> {
    let names =
        fs::read_dir("/run/tproxy").into_iter().flatten().map(|entry| entry.expect("an entry").file_name());
    names.map(|name| name.into_string().expect("text")).collect()
}

/// Whether the kernel tells here which namespaces are there; without it, all processes would have to be seen.
fn is_told() -> bool {
    let identity = netns::identity().expect("a name");
    let asked = Alive::asked(identity.cookie().expect("a cookie"), identity.inode.expect("an inode"));
    if asked.is_none() {
        // No machine can be given it but by another kernel; the way without it is tested in `sys::alive`.
        assert!(std::env::var_os("CI").is_none() || !tells_root(), "this kernel tells, and did not");
        eprintln!("skipped: the kernel does not tell here which network namespaces are there");
    }
    asked.is_some()
}

/// Whether it is Linux 6.18 or later, and this is root of the first user namespace, whom it tells.
fn tells_root() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a version");
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let users = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    version >= (6, 18) && users.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

/// A namespace with an installation, which is there until this ends.
struct Other(Child);

impl Other {
    fn new(lab: &Lab, flags: &str) -> Self {
        let install = "\"$0\" install --kuma-dp-user kuma-dp --backend nftables";
        let script = format!("ip link set lo up && {install} {flags} >&2 && echo && read end");
        let mut child = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", &script])
            .arg(lab.program_path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        child.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("it is installed");
        Self(child)
    }

    fn end(mut self) {
        self.0.stdin.take().expect("a pipe").write_all(b"\n").expect("it reads");
        self.0.wait().expect("an end");
    }
}

/// Runs until the files are as wanted: the end of a namespace takes the kernel a moment.
fn until(lab: &Lab, wanted: impl Fn(&BTreeSet<String>) -> bool) {
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let _ = lab.install(crate::support::Backend::Nftables, &[]).succeeds();
        if wanted(&files()) {
            return;
        }
        assert!(std::time::Instant::now() < limit, "{:?}", files());
    }
}

#[test]
fn only_namespaces_that_are_gone_are_forgotten() {
    Lab::enter(|lab| {
        if !is_told() {
            return;
        }
        let living = Other::new(lab, "");
        let of_living = files();
        let on_trial = Other::new(lab, "--confirm 600s");
        let of_both = files();
        assert!(of_both.iter().any(|name| name.contains(".pending")), "{of_both:?}");
        let held = Other::new(lab, "");
        let of_held: BTreeSet<String> = files().difference(&of_both).cloned().collect();
        // Nothing but an open file is left of it.
        let namespace = fs::File::open(format!("/proc/{}/ns/net", held.0.id())).expect("a namespace");
        held.end();
        Other::new(lab, "").end();
        Other::new(lab, "").end();
        // Left by runs that were killed early, of namespaces that nobody knows.
        let own = netns::current_id().expect("a name");
        let (_, boot) = own.split_once('-').expect("a boot");
        let strange = ["7777777-000000000000.json", "notes", "x.y.z"].map(str::to_owned);
        for name in
            strange.iter().cloned().chain([format!("7777777-{boot}.lock"), format!("7777777-{boot}.new")])
        {
            fs::write(format!("/run/tproxy/{name}"), "").expect("written");
        }
        let mut wanted: BTreeSet<String> = of_both.iter().chain(&of_held).chain(&strange).cloned().collect();
        wanted.extend(["json", "lock"].map(|kind| format!("{own}.{kind}")));
        until(lab, |found| *found == wanted);

        drop(namespace);
        until(lab, |found| found.is_disjoint(&of_held));
        living.end();
        until(lab, |found| found.is_disjoint(&of_living));
        // Whoever waits there is a process of the namespace.
        let mut trial = on_trial;
        let in_namespace =
            Program::new("nsenter").args(["--net", "--target", &trial.0.id().to_string(), "--"]);
        let confirmed = in_namespace.arg(lab.program_path()).arg("confirm").run();
        let _ = confirmed.succeeds().prints("confirmed");
        trial.0.stdin.take().expect("a pipe").write_all(b"\n").expect("it reads");
        trial.0.wait().expect("an end");
        until(lab, |found| found.is_disjoint(&of_both));
        let _ = lab.program().arg("uninstall").run().succeeds();
        assert_eq!(files(), strange.into());
    });
}

/// Of a trial that went back, only the log is left.
#[test]
fn the_log_of_a_trial_goes_with_its_namespace() {
    Lab::enter(|lab| {
        if !is_told() {
            return;
        }
        let other = Other::new(lab, "--confirm 1s --foreground || true");
        let logs = |found: &BTreeSet<String>| found.iter().filter(|name| name.contains(".log")).count();
        assert_eq!(logs(&files()), 1, "{:?}", files());
        let _ = lab.install(crate::support::Backend::Nftables, &[]).succeeds();
        assert_eq!(logs(&files()), 1, "it is there as long as the namespace");
        other.end();
        until(lab, |found| logs(found) == 0);
    });
}

/// One run looks at so many, however many there are.
#[test]
fn each_run_removes_a_few_of_hundreds() {
    Lab::enter(|lab| {
        if !is_told() {
            return;
        }
        let _ = lab.install(crate::support::Backend::Nftables, &[]).succeeds();
        let own = files();
        let (_, boot) = netns::current_id()
            .expect("a name")
            .split_once('-')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .expect("a boot");
        for n in 0..200 {
            fs::write(format!("/run/tproxy/{:x}-{boot}.json", 0x7777_0000 + n), r#"{"networkNamespace": 7}"#)
                .expect("written");
        }
        let _ = lab.install(crate::support::Backend::Nftables, &[]).succeeds();
        assert_eq!(files().len() - own.len(), 200 - 8);
        until(lab, |found| *found == own);
    });
}
