//! Files that never end, or never begin: nobody waits for them, and above all nobody else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;

use crate::support::command::{must, pid};
use crate::support::lab::{each_backend, skip};
use crate::support::snapshot::Snapshot;
use crate::support::{Backend, Lab};

/// What is no file.
fn put(what: &str, path: &Path) {
    match what {
        "a FIFO" => nix::unistd::mkfifo(path, Mode::S_IRWXU).expect("a FIFO"),
        "a socket" => drop(std::os::unix::net::UnixListener::bind(path).expect("a socket")),
        "a directory" => fs::create_dir(path).expect("a directory"),
        _ => symlink("/dev/zero", path).expect("a link"),
    }
}

each_backend! {
    fn dns_servers_in_what_is_no_file_are_refused(lab, backend) {
        let before = Snapshot::take();
        for (n, what) in ["a FIFO", "a socket", "a directory", "a device"].iter().enumerate() {
            let path = lab.dir().join(format!("servers{n}"));
            put(what, &path);
            let config = lab.dir().join("config.yaml");
            let text = format!("redirect: {{dns: {{enabled: true, resolvConfigPath: {}}}}}\n", path.display());
            fs::write(&config, text).expect("a file of the lab");
            let named = config.display().to_string();
            for more in [&["--config", &named][..], &["--config", &named, "--dry-run"], &["--config", &named, "--confirm", "60s"]] {
                let run = lab.install(backend, more).exits(2).says(&path.display().to_string());
                let _ = run.says(&format!("it is {what}, not a regular file"));
            }
            let _ = lab.program().args(["verify", "--config", &named]).run().exits(2).says(what);
            let all = lab.program().args(["verify", "--config", &named, "--redirect-all-dns-traffic"]).run();
            let _ = all.exits(2).says(what);
        }
        Snapshot::take().assert_unchanged_since(&before);
        assert!(!Path::new("/run/tproxy").exists());
    }

    /// It was named by the user, who may be writing it; but others need not wait, and it ends when it is asked to.
    fn a_configuration_that_is_still_written_holds_up_nobody(lab, backend) {
        let fifo = lab.dir().join("config.yaml");
        put("a FIFO", &fifo);
        let named = fifo.display().to_string();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            let waits = lab.installing(backend, &["--config", &named]).start();
            // Opening it to write waits until it is opened to be read.
            let writer = fs::File::options().write(true).open(&fifo).expect("a reader");
            let _ = lab.install(backend, &["--redirect-dns"]).succeeds();
            kill(pid(waits.pid), signal).expect("it waits");
            assert_eq!(waits.finish().signal, Some(signal as i32));
            drop(writer);
        }
        let waits = lab.installing(backend, &["--config", &named]).start();
        fs::write(&fifo, "redirect: {outbound: {port: 15999}}\n").expect("a reader");
        let _ = waits.finish().succeeds();
        let _ = lab.uninstall(backend, &[]).succeeds();
        assert_eq!(Backend::installed(), []);
    }
}

/// What is no list of users, and what every run says of it.
const NO_LISTS: [(&str, &str); 4] = [
    ("a FIFO", "it is a FIFO, not a regular file"),
    ("a socket", "it is a socket, not a regular file"),
    ("a device", "it is a device, not a regular file"),
    ("a long file", "it is larger than 64 MiB"),
];

#[test]
fn a_list_of_users_that_is_no_file_is_named_before_any_lock() {
    Lab::enter(|lab| {
        for (n, (what, words)) in NO_LISTS.iter().enumerate() {
            let list = lab.dir().join(format!("users{n}"));
            match *what {
                "a device" => {}
                "a long file" => {
                    fs::File::create(&list).and_then(|file| file.set_len(65 << 20)).expect("a sparse file");
                }
                what => put(what, &list),
            }
            let list = if *what == "a device" { Path::new("/dev/zero") } else { &list };
            must("mount", &["--bind", &list.to_string_lossy(), "/etc/passwd"]);
            let install = |more: &[&str]| lab.program().arg("install").args(more).run();
            let named = install(&["--kuma-dp-user", "kuma-dp"]);
            let default = install(&[]);
            let shown = install(&["--kuma-dp-user", "kuma-dp", "--dry-run"]);
            let verify = lab.program().args(["verify", "--kuma-dp-user", "kuma-dp"]).run();
            // None of them has come as far as the lock.
            let locked = Path::new("/run/tproxy").exists();
            let numbered = install(&["--kuma-dp-user", "5678"]);
            let status = lab.program().arg("status").run();
            let uninstall = lab.program().arg("uninstall").run();
            must("umount", &["/etc/passwd"]);
            for run in [named, default, shown, verify] {
                let _ = run.exits(2).says("cannot read /etc/passwd").says(words);
            }
            assert!(!locked);
            // Rules are about numbers.
            let _ = numbered
                .succeeds()
                .says("cannot read /etc/passwd")
                .says("5678 is taken as the sidecar's UID");
            assert!(!status.stdout.contains("the sidecar's user is gone"), "{status}");
            let _ = uninstall.succeeds();
        }
    });
}

/// The program that asks the host's other lists of users would wait for it.
#[test]
fn the_name_of_other_lists_of_users_is_a_file() {
    Lab::enter(|lab| {
        if !Path::new("/etc/nsswitch.conf").exists() {
            return skip("there is no /etc/nsswitch.conf here");
        }
        let fifo = lab.dir().join("services");
        put("a FIFO", &fifo);
        must("mount", &["--bind", &fifo.to_string_lossy(), "/etc/nsswitch.conf"]);
        let unknown = lab.program().args(["install", "--kuma-dp-user", "nobody-of-that-name"]).run();
        let known =
            lab.program().args(["install", "--kuma-dp-user", "kuma-dp", "--backend", "nftables"]).run();
        must("umount", &["/etc/nsswitch.conf"]);
        let _ = unknown.exits(2).says("cannot read /etc/nsswitch.conf: it is a FIFO");
        let _ = known.succeeds();
    });
}
