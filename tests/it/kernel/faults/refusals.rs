//! A kernel that lacks something: what can be left out is left out with a warning, what cannot ends the run before
//! anything has changed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{assert_not_between, their_rules};
use crate::support::command::must;
use crate::support::firewall;
use crate::support::lab::{self, each_iptables_variant};
use crate::support::snapshot::Snapshot;
use crate::support::wrappers::{Fault, Wrappers};
use crate::support::{Family, Lab, Run, Variant};

/// A restore that refuses a script with this in it, in the words of its variant: nft names the rule, legacy the
/// COMMIT of its table.
fn refuses(variant: Variant, text: &str) -> Fault {
    let find = format!(
        "in=$(cat; echo x); in=${{in%x}}; n=$(printf %s \"$in\" | grep -n -m1 -e '{text}' | cut -d: -f1)"
    );
    let say = match variant {
        Variant::Nft => "echo \"$me: line $n: RULE_APPEND failed (No such file or directory): rule in chain OUTPUT\" >&2; exit 4".to_owned(),
        Variant::Legacy => "c=$(printf %s \"$in\" | tail -n +$n | grep -n -m1 COMMIT | cut -d: -f1); \
            echo \"$me: line $((n + c - 1)) failed\" >&2; exit 1"
            .to_owned(),
    };
    Fault::Instead(format!("{find}; if [ -n \"$n\" ]; then {say}; fi; printf %s \"$in\" | \"$real\" \"$@\""))
}

/// A userspace that lacks an extension; both variants say the same.
fn lacks(text: &str, words: &str) -> Fault {
    Fault::Instead(format!(
        "in=$(cat; echo x); in=${{in%x}}; n=$(printf %s \"$in\" | grep -n -m1 -e '{text}' | cut -d: -f1); \
         if [ -n \"$n\" ]; then echo \"$me: {words}\" >&2; echo \"Error occurred at line: $n\" >&2; exit 2; fi; \
         printf %s \"$in\" | \"$real\" \"$@\""
    ))
}

const FLAGS: [&str; 3] = ["--redirect-dns", "--drop-invalid-packets", "--iptables-logs"];

/// Puts a script in the place of a program in `/usr/sbin`, until that is unmounted; `$real` is the program.
pub(super) fn instead_of(program: &Path, body: &str) {
    let aside = Path::new(lab::DIR).join("sbin");
    if !aside.exists() {
        fs::create_dir(&aside).expect("a directory in the private /run");
        must("mount", &["--bind", "/usr/sbin", &aside.to_string_lossy()]);
    }
    must("mount", &["-t", "tmpfs", "tmpfs", "/usr/sbin"]);
    for entry in fs::read_dir(&aside).expect("the programs").flatten() {
        let place = Path::new("/usr/sbin").join(entry.file_name());
        if place == program {
            let (name, real) = (entry.file_name(), entry.path());
            let script =
                format!("#!/bin/sh\nme={} real={}\n{body}\n", name.to_string_lossy(), real.display());
            fs::write(&place, script).expect("a script");
            must("chmod", &["755", &place.to_string_lossy()]);
        } else {
            symlink(entry.path(), place).expect("a link");
        }
    }
}

fn install(lab: &Lab, variant: Variant, fault: &Fault, more: &[&str]) -> Run {
    let tools = Wrappers::new(variant).every("iptables-restore", fault).every("ip6tables-restore", fault);
    lab.program()
        .args(["install", "--kuma-dp-user", "kuma-dp"])
        .args(tools.flags())
        .args(FLAGS)
        .args(more)
        .run()
}

/// A part that can be left out: without `--strict` there is all but it, with it there is nothing.
#[track_caller]
fn is_left_out(lab: &Lab, variant: Variant, fault: &Fault, part: &str, warning: &str) {
    their_rules(variant);
    let before = Snapshot::take();
    install(lab, variant, fault, &["--strict"]).exits(3).says("error: ");
    Snapshot::take().assert_unchanged_since(&before);

    install(lab, variant, fault, &[]).succeeds().says("warning: ").says(warning);
    for family in Family::BOTH {
        let ours = |rules: &crate::support::Ruleset| {
            let all = rules.rules().map(|rule| rule.text.clone()).collect::<Vec<_>>();
            let theirs: Vec<_> =
                before.rules(variant, family).rules().map(|rule| rule.text.clone()).collect();
            all.into_iter().filter(|rule| !theirs.contains(rule)).collect::<Vec<_>>()
        };
        let rules = firewall::rules(variant, family);
        assert!(ours(&rules).iter().all(|rule| !rule.contains(part)), "{rules}");
        assert!(ours(&rules).iter().any(|rule| rule.contains("--to-ports 15053")), "{rules}");
        assert!(ours(&rules).iter().any(|rule| rule.contains("-j KUMA_MESH_OUTBOUND")), "{rules}");
    }
    // It is on record, and so not missing.
    let recorded = || {
        let status =
            lab.program().arg("status").run().prints("left out at installation, because it was refused");
        // Their rules come first, which is another matter.
        assert!(
            !status.stdout.contains("not as wanted:") && !status.stdout.contains("Problems:"),
            "{status}"
        );
        status
    };
    let status = recorded();
    // The same again is the same, has nothing to confirm, and goes away as everything else does.
    let now = Snapshot::take().without_counters();
    for more in [&[][..], &["--confirm", "600s"]] {
        install(lab, variant, fault, more).succeeds().prints("nothing was written");
        Snapshot::take().without_counters().assert_unchanged_since(&now);
        assert_eq!(recorded().code, status.code, "{status}");
    }
    lab.uninstall(variant, &[]).succeeds();
    Snapshot::take().assert_unchanged_since(&before);
}

// In the words of the tools; what the kernel itself refuses is in `native::lacking`.
each_iptables_variant! {
    fn conntrack_zones_can_be_left_out(lab, variant) {
        is_left_out(lab, variant, &refuses(variant, "-j CT"), "-j CT", "zone");
    }

    fn the_invalid_drop_can_be_left_out(lab, variant) {
        is_left_out(lab, variant, &refuses(variant, "--ctstate"), "--ctstate", "INVALID");
    }

    fn logging_can_be_left_out(lab, variant) {
        is_left_out(lab, variant, &refuses(variant, "-j LOG"), "-j LOG", "LOG");
    }

    fn comments_can_be_left_out(lab, variant) {
        let fault = lacks("--comment", "Couldn't load match \\`comment':No such file or directory");
        is_left_out(lab, variant, &fault, "--comment", "comment");
    }

    fn what_is_needed_cannot(lab, variant) {
        their_rules(variant);
        for fault in [
            lacks("--uid-owner", "Couldn't load match \\`owner':No such file or directory"),
            lacks("--to-ports", "unknown option \\\"--to-ports\\\""),
            refuses(variant, "-A KUMA_MESH_OUTBOUND_REDIRECT "),
        ] {
            let before = Snapshot::take();
            let run = install(lab, variant, &fault, &[]).exits(3);
            assert_not_between(&run, &before, &before);
        }
    }

    /// Unless it was asked for, or has rules of ours already, which stay where they are.
    fn an_iptables_that_cannot_gives_way_to_the_kernels_own_interface(lab, variant) {
        their_rules(variant);
        let before = Snapshot::take();
        let Fault::Instead(body) = lacks("--uid-owner", "Couldn't load match \\`owner':No such file or directory")
        else { unreachable!() };
        let install = |more: &[&str]| {
            instead_of(&firewall::path(variant, Family::V4, "-restore"), &body);
            let run = lab.program().args(["install", "--kuma-dp-user", "kuma-dp", "--strict"]).args(more).run();
            must("umount", &["/usr/sbin"]);
            run
        };
        install(&["--backend", "iptables"]).exits(3);
        Snapshot::take().assert_unchanged_since(&before);

        install(&[]).succeeds().says("iptables is of no use here").prints("nftables rules");
        assert!(!firewall::rules(variant, Family::V4).has_ours());
        install(&[]).succeeds().says("using nftables: it is what is installed").prints("nothing was written");
        lab.program().arg("uninstall").run().succeeds();
        Snapshot::take().assert_unchanged_since(&before);

        lab.install(variant, &[]).succeeds();
        let ours = Snapshot::take();
        let run = install(&["--redirect-all-dns-traffic"]).exits(3);
        assert_not_between(&run, &ours, &ours);
    }

    fn a_family_that_the_kernel_lacks_is_left_out(lab, variant) {
        their_rules(variant);
        for words in [
            "ip6tables-restore: can\"t initialize ip6tables table nat: Table does not exist (do you need to insmod?)",
            "ip6tables-restore v1.8.9 (legacy): ip6tables-restore: unable to initialize table nat",
            "ip6tables-restore v1.8.9 (nf_tables): CHAIN_ADD failed (No such file or directory): chain OUTPUT",
        ] {
            let before = Snapshot::take();
            let fault = Fault::fails(3, words);
            let tools = || Wrappers::new(variant).every("ip6tables-restore", &fault);
            let install = |more: &[&str]| {
                let tools = tools();
                lab.program().args(["install", "--kuma-dp-user", "kuma-dp"]).args(tools.flags()).args(more).run()
            };
            install(&["--strict"]).exits(3);
            Snapshot::take().assert_unchanged_since(&before);
            install(&[]).succeeds().says("IPv6");
            assert!(firewall::rules(variant, Family::V4).has_ours());
            assert!(!firewall::rules(variant, Family::V6).has_ours());
            lab.uninstall(variant, &[]).succeeds();
            Snapshot::take().assert_unchanged_since(&before);
        }
    }
}
