//! Files that never end, or never begin: nobody waits for them, and above all nobody else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;

use crate::support::command::pid;
use crate::support::lab::each_backend;
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

#[test]
fn a_list_of_users_that_is_no_file_is_named() {
    Lab::enter(|lab| {
        let fifo = lab.dir().join("users");
        put("a FIFO", &fifo);
        crate::support::command::must("mount", &["--bind", &fifo.to_string_lossy(), "/etc/passwd"]);
        let named = lab.program().args(["install", "--kuma-dp-user", "kuma-dp"]).run();
        let numbered = lab.program().args(["install", "--kuma-dp-user", "5678"]).run();
        let uninstall = lab.program().arg("uninstall").run();
        crate::support::command::must("umount", &["/etc/passwd"]);
        let _ = named.exits(3).says("/etc/passwd: it is a FIFO");
        let _ = numbered.succeeds();
        let _ = uninstall.succeeds();
    });
}
