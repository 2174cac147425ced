//! Rules that no program of iptables reads: what somebody else wrote natively into a table of theirs, or a program
//! that does not work. The kernel's own interface needs neither.

use std::path::Path;

use super::refusals::instead_of;
use super::{assert_not_between, their_rules};
use crate::support::command::must;
use crate::support::firewall;
use crate::support::lab::each_iptables_variant;
use crate::support::mesh::{APP_PORT, Mesh};
use crate::support::snapshot::Snapshot;
use crate::support::{APP, Backend, Family, Lab, SIDECAR, Variant};

const BROKEN: &str = "echo \"$me: symbol lookup error\" >&2; exit 127";
const INSTALL: [&str; 4] = ["install", "--kuma-dp-user", "kuma-dp", "--redirect-dns"];

/// What the programs have no words for, in the chain in which an installation would have to be.
fn native_rule(family: Family) {
    let family = family.nft();
    firewall::nft(&format!(
        "table {family} nat {{ chain OUTPUT {{ type nat hook output priority -100; tcp dport 81 counter redirect to :9; }}; }}"
    ));
}

#[track_caller]
fn nothing_happens_by(lab: &Lab, more: &[&str]) {
    let before = Snapshot::take();
    for command in [&INSTALL[..], &["uninstall"]] {
        let run = lab.program().args(command).args(more).run().exits(3).says("tool");
        let run = run.says("hint: run the command again with --backend nftables");
        assert_eq!(run.stderr.matches("hint: ").count(), 1, "{run}");
        assert!(!run.stderr.contains("warning: the chain"), "{run}");
    }
    Snapshot::take().assert_unchanged_since(&before);
}

#[track_caller]
fn traffic_is_redirected(lab: &Lab, family: Family) {
    let mesh = Mesh::new(lab, family);
    assert_eq!(mesh.connect(APP, family.outside(), 80), "outbound");
    assert_eq!(mesh.connect(SIDECAR, family.outside(), 80), "world");
    assert_eq!(mesh.ask(APP, family.resolver()), "dns");
    assert_eq!(mesh.ask(SIDECAR, family.resolver()), "resolver");
    assert_eq!(mesh.visit(lab, APP_PORT), "inbound");
}

/// Native rules of either family, and of both.
fn beside_native_rules(families: &'static [Family]) {
    Lab::enter(|lab| {
        families.iter().copied().for_each(native_rule);
        let before = Snapshot::take();
        let words = "is incompatible, use 'nft' tool";
        let install = || lab.program().args(INSTALL);

        nothing_happens_by(lab, &["--backend", "iptables"]);
        nothing_happens_by(lab, &["--adopt"]);
        nothing_happens_by(lab, &["--iptables-executables", &firewall::executables(Variant::Nft)]);

        let run = install().arg("--dry-run").run().succeeds().says("using nftables").says(words);
        assert!(run.stdout.starts_with("table inet kuma_mesh\n"), "{run}");
        install().arg("--dry-run=diff").run().succeeds().says(words).prints("+ chain inbound");
        lab.program().arg("uninstall").run().succeeds().says(words).prints("nothing was installed");
        lab.program().args(["uninstall", "--dry-run"]).run().succeeds().says(words);
        lab.program().arg("status").run().exits(10);
        Snapshot::take().assert_unchanged_since(&before);

        let run = install().arg("--strict").run().succeeds().says(words);
        let run = run.says("warning: the chain OUTPUT of the nftables table ");
        let run = run.says("note: using nftables: iptables cannot read the rules that are here");
        assert_eq!(run.stderr.matches(words).count(), 1, "{run}");
        assert_eq!(Backend::installed(), [Backend::Nftables]);
        Snapshot::take().assert_foreign_unchanged_since(&before);
        let run = install().run().succeeds().prints("nothing was written");
        assert!(!run.stderr.contains(words), "{run}");
        // Theirs come first, which status tells; it reads nothing of it with iptables.
        let status = lab.program().arg("status").run().exits(11).prints("some ").prints("outgoing TCP");
        assert!(!status.stdout.contains(words) && !status.stderr.contains("error"), "{status}");
        lab.program().arg("verify").run().succeeds();
        for family in Family::BOTH {
            traffic_is_redirected(lab, family);
        }
        let quiet = before.clone().without_counters();
        lab.program().arg("uninstall").run().succeeds().prints("nftables rules removed");
        Snapshot::take().without_counters().assert_unchanged_since(&quiet);
    });
}

#[test]
fn native_rules_of_ipv4_leave_the_kernels_own_interface() {
    beside_native_rules(&[Family::V4]);
}

#[test]
fn native_rules_of_ipv6_leave_the_kernels_own_interface() {
    beside_native_rules(&[Family::V6]);
}

#[test]
fn native_rules_of_both_families_leave_the_kernels_own_interface() {
    beside_native_rules(&Family::BOTH);
}

/// Where rules of ours are in tables of iptables, nothing moves by itself.
#[test]
fn an_installation_beside_rules_that_became_unreadable_stays() {
    Lab::enter(|lab| {
        // In the other family, which the programs read: it can move where it is told to.
        lab.install(Variant::Nft, &["--ip-family-mode", "ipv4"]).succeeds();
        native_rule(Family::V6);
        nothing_happens_by(lab, &[]);
        lab.program().args(INSTALL).args(["--backend", "nftables"]).run().succeeds();
        assert_eq!(Backend::installed(), [Backend::Nftables]);
        lab.program().arg("uninstall").run().succeeds();

        // In the other variant.
        must("nft", &["delete", "table", "ip6", "nat"]);
        lab.install(Variant::Legacy, &[]).succeeds();
        native_rule(Family::V6);
        nothing_happens_by(lab, &[]);
        lab.program().args(["uninstall", "--backend", "nftables"]).run().succeeds();
        assert_eq!(Backend::installed(), []);
    });
    Lab::enter(|lab| {
        // In the same table: nobody can remove what nobody can read.
        for comments in [&[][..], &["--disable-comments"]] {
            lab.install(Variant::Nft, comments).succeeds();
            native_rule(Family::V4);
            let before = Snapshot::take();
            for more in [&[][..], &["--backend", "nftables"]] {
                for command in [&INSTALL[..], &["uninstall"]] {
                    let run = lab.program().args(command).args(more).run().exits(3);
                    let _ = run.says("tool").says("hint: move those rules to a table of their own");
                    Snapshot::take().assert_unchanged_since(&before);
                }
            }
            let _ = lab.program().arg("status").run().exits(3).says("incompatible").says("move those rules");
            must("nft", &["delete", "table", "ip", "nat"]);
            lab.program().arg("uninstall").run().succeeds();
        }
    });
}

// A program that does not work, in the place where others' rules are.
each_iptables_variant! {
    fn a_save_program_that_does_not_work_leaves_the_kernels_own_interface(lab, variant) {
        their_rules(variant);
        let before = Snapshot::take();
        let broken = |args: &[&str]| {
            instead_of(&firewall::path(variant, Family::V4, "-save"), BROKEN);
            let run = lab.program().args(args).run();
            must("umount", &["/usr/sbin"]);
            run
        };
        let words = "symbol lookup error";
        broken(&["install", "--kuma-dp-user", "kuma-dp", "--backend", "iptables"]).exits(3).says(words);
        Snapshot::take().assert_unchanged_since(&before);
        // That nothing of ours is there the kernel tells.
        broken(&["uninstall"]).succeeds().says(words);
        let run = broken(&INSTALL).succeeds().says("using nftables");
        assert_eq!(run.stderr.matches(words).count(), 1, "{run}");
        assert_eq!(Backend::installed(), [Backend::Nftables]);
        Snapshot::take().assert_foreign_unchanged_since(&before);
        broken(&INSTALL).succeeds().prints("nothing was written");
        let status = broken(&["status"]);
        assert!(status.code.is_some_and(|code| [0, 11].contains(&code)), "{status}");
        assert!(!status.stdout.contains(words), "{status}");
        broken(&["verify"]).succeeds();
        let run = broken(&["uninstall"]).succeeds().prints("nftables rules removed");
        assert!(!run.stderr.contains(words), "{run}");
        Snapshot::take().assert_unchanged_since(&before);

        lab.install(variant, &[]).succeeds();
        let ours = Snapshot::take();
        for command in [&INSTALL[..], &["uninstall"], &["install", "--kuma-dp-user=kuma-dp", "--backend=nftables"]] {
            let run = broken(command).exits(3).says(words);
            assert_not_between(&run, &ours, &ours);
        }
        assert!(Path::new("/run/tproxy").exists());
    }
}
