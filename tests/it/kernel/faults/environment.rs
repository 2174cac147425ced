//! Machines that are not what they should be.

use crate::support::command::must;
use crate::support::lab::{each_backend, each_iptables_variant};
use crate::support::snapshot::{Snapshot, loopback};
use crate::support::wrappers::Wrappers;
use crate::support::{Backend, Family, Lab, Variant, firewall};

each_backend! {
    fn a_run_that_cannot_be_written_costs_a_note(lab, backend) {
        must("mount", &["-o", "remount,ro", "/run"]);
        lab.install(backend, &["--redirect-dns"]).succeeds().says("/run/tproxy");
        for family in Family::BOTH {
            assert!(backend.has_ours(family));
        }
        lab.install(backend, &["--redirect-all-dns-traffic"]).succeeds();
        lab.uninstall(backend, &[]).succeeds();
        for family in Family::BOTH {
            assert!(!backend.has_ours(family));
        }
    }

    /// Without comments nothing but a record tells whose rules those in shared tables are.
    fn rules_that_nobody_will_know_again_cost_a_warning(lab, backend) {
        must("mount", &["-o", "remount,ro", "/run"]);
        let run = lab.install(backend, &["--redirect-dns", "--disable-comments"]).succeeds();
        let shared = backend != Backend::Nftables;
        assert_eq!(run.stderr.matches("the next run needs --adopt").count(), usize::from(shared), "{run}");
        let adopt: &[&str] = if shared { &["--adopt"] } else { &[] };
        lab.install(backend, &[&["--disable-comments"], adopt].concat()).succeeds();
        lab.uninstall(backend, adopt).succeeds();
        assert_eq!(Backend::installed(), []);
    }

    fn a_record_that_cannot_be_renewed_costs_a_warning(lab, backend) {
        std::fs::create_dir("/run/tproxy").expect("a directory in the private /run");
        // Room for one version of the record, and each new one is written beside the old.
        must("mount", &["-t", "tmpfs", "-o", "size=4k,mode=0700", "tmpfs", "/run/tproxy"]);
        lab.install(backend, &["--redirect-dns"]).succeeds().says("No space left");
        for family in Family::BOTH {
            assert!(backend.has_ours(family));
        }
        lab.uninstall(backend, &[]).succeeds().says("No space left");
        for family in Family::BOTH {
            assert!(!backend.has_ours(family));
        }
    }

    /// The signal that tells of such a limit (SIGXFSZ) would end a run in the middle.
    fn a_limit_to_the_size_of_files_is_an_error(lab, backend) {
        let install = lab.installing(backend, &["--redirect-dns"]);
        let output = install.behind("prlimit", &["--fsize=0"]).output().expect("prlimit runs it");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && words.contains("File too large"), "{:?}: {words}", output.status);
        for family in Family::BOTH {
            assert!(!backend.has_ours(family));
        }
    }

    /// A thread without a stack would end the run between the commit and the proof.
    fn no_variable_takes_the_stacks_away(lab, backend) {
        lab.installing(backend, &["--verify"]).env("RUST_MIN_STACK", "1").run().succeeds();
    }

    fn without_ipv6_it_says_so_every_time(lab, backend) {
        must("ip", &["-6", "addr", "flush", "dev", "eth0"]);
        let addresses = loopback();
        for _ in 0..2 {
            lab.install(backend, &[]).succeeds().says("IPv6");
        }
        assert!(!backend.has_ours(Family::V6));
        assert_eq!(loopback(), addresses);
        lab.uninstall(backend, &[]).succeeds();
        lab.install(backend, &["--strict"]).exits(3).says("IPv6");
        assert!(!backend.has_ours(Family::V4));
        lab.install(backend, &["--strict", "--ip-family-mode", "ipv4"]).succeeds();
    }
}

// The native backend runs no tool that could be named.
each_iptables_variant! {
    fn named_tools_that_cannot_be_used_are_an_error(lab, variant) {
        let before = Snapshot::take();
        let good = firewall::executables(variant);
        let with = |role: &str, path: &str| {
            let pair = |pair: &str| if pair.starts_with(role) { format!("{role}{path}") } else { pair.to_owned() };
            good.split(',').map(pair).collect::<Vec<_>>().join(",")
        };
        for (role, bad) in [
            ("iptables-restore:", "/bin/true"),
            ("iptables-restore:", "/nowhere/iptables-restore"),
            ("ip6tables-restore:", "/etc/passwd"),
            ("iptables-save:", "/bin/true"),
            ("iptables:", "/bin/true"),
        ] {
            let named = with(role, bad);
            let run = lab.program().args(["install", "--kuma-dp-user", "kuma-dp", "--iptables-executables", &named]).run();
            let _ = run.exits(3).says(bad);
            Snapshot::take().assert_unchanged_since(&before);
        }
        // It would never find what the other one wrote.
        let other = firewall::path(variant.other(), Family::V6, "-save").display().to_string();
        let named = with("ip6tables-save:", &other);
        let run = lab.program().args(["install", "--kuma-dp-user", "kuma-dp", "--iptables-executables", &named]).run();
        let _ = run.exits(2).says(&other);
        Snapshot::take().assert_unchanged_since(&before);
    }

    fn tools_of_any_name_are_asked_what_they_are(lab, variant) {
        let dir = lab.dir().join("plain");
        std::fs::create_dir(&dir).expect("a directory in the private /run");
        let wrappers = Wrappers::new(variant);
        let mut named = Vec::new();
        for pair in wrappers.flag().split(',') {
            let (name, path) = pair.split_once(':').expect("a name and a path");
            // No name says which variant it is, and no link leads to one that does.
            let script = dir.join(name);
            std::fs::write(&script, format!("#!/bin/sh\nexec {path} \"$@\"\n")).expect("a script");
            must("chmod", &["755", &script.to_string_lossy()]);
            named.push(format!("{name}:{}", script.display()));
        }
        lab.program()
            .args(["install", "--kuma-dp-user", "kuma-dp", "--wait", "7", "--wait-interval", "900"])
            .args(["--iptables-executables", &named.join(",")])
            .run()
            .succeeds();
        for family in Family::BOTH {
            assert!(firewall::rules(variant, family).has_ours());
            assert!(!firewall::rules(variant.other(), family).has_ours());
        }
        let waited = wrappers.log().iter().filter(|line| line.contains("-restore --wait=7 --wait-interval=900 ")).count();
        assert_eq!(waited > 0, variant == Variant::Legacy, "{:?}", wrappers.log());
    }
}

#[test]
fn without_any_iptables_it_speaks_to_the_kernel_and_names_the_packages_when_asked_for_them() {
    Lab::enter(|lab| {
        for dir in ["/usr/sbin", "/usr/local/sbin"] {
            must("mount", &["-t", "tmpfs", "tmpfs", dir]);
        }
        let install =
            lab.program().args(["install", "--kuma-dp-user", "kuma-dp", "--backend", "iptables"]).run();
        let native = lab.program().args(["install", "--kuma-dp-user", "kuma-dp"]).run();
        let uninstall = lab.program().arg("uninstall").run();
        let again = lab.program().arg("uninstall").run();
        let show = lab.program().args(["install", "--kuma-dp-user", "kuma-dp", "--dry-run"]).run();
        for dir in ["/usr/sbin", "/usr/local/sbin"] {
            must("umount", &[dir]);
        }
        install.exits(3).says("apt-get install iptables").says("dnf").says("apk add iptables");
        native.succeeds().says("using nftables: no iptables was found");
        uninstall.succeeds().prints("nftables rules removed");
        again.succeeds().prints("nothing was installed");
        show.succeeds();
    });
}

#[test]
fn an_unknown_user_stops_the_run() {
    Lab::enter(|lab| {
        let before = Snapshot::take();
        lab.program()
            .args(["install", "--kuma-dp-user", "nobody-of-that-name"])
            .run()
            .exits(3)
            .says("nobody-of-that-name");
        lab.replace("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n");
        lab.program().arg("install").run().exits(3).says("kuma-dp");
        Snapshot::take().assert_unchanged_since(&before);
        // A number needs no name.
        lab.program().args(["install", "--kuma-dp-user", "5678"]).run().succeeds().says("5678");
    });
}
