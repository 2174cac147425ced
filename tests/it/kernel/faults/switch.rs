//! An installation that begins with iptables and moves to the kernel's own interface, because iptables cannot do what
//! is wanted: what it says at its end is true of what is there then.

use std::fs;

use super::refusals::instead_of;
use super::their_rules;
use crate::support::backend::own_table;
use crate::support::command::must;
use crate::support::firewall;
use crate::support::lab::each_iptables_variant;
use crate::support::mesh::Mesh;
use crate::support::snapshot::Snapshot;
use crate::support::{APP, Backend, Family, Lab, Run, SIDECAR, Variant};

const INSTALL: [&str; 4] = ["install", "--kuma-dp-user", "kuma-dp", "--redirect-dns"];

/// Refuses comments, and when there are none any more, the owner match.
const LESS_AND_LESS: &str = "in=$(cat; echo x); in=${in%x}
for word in comment owner; do
  n=$(printf %s \"$in\" | grep -n -m1 -e \"-m $word\" | cut -d: -f1)
  if [ -n \"$n\" ]; then
    echo \"$me: Couldn't load match \\`$word':No such file or directory\" >&2
    echo \"Error occurred at line: $n\" >&2
    exit 2
  fi
done
printf %s \"$in\" | \"$real\" \"$@\"";

const NO_OWNER: &str =
    "cat >/dev/null; echo \"$me: Couldn't load match \\`owner':No such file or directory\" >&2; exit 2";

fn remove_ip6tables() {
    remove(|name| name.starts_with("ip6tables"));
}

/// Of the programs that [`instead_of`] put in the place of others.
fn remove(which: impl Fn(&str) -> bool) {
    for entry in fs::read_dir("/usr/sbin").expect("programs").flatten() {
        if which(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path()).expect("a link of the lab");
        }
    }
}

/// All programs of iptables are gone.
fn remove_iptables() {
    instead_of(&firewall::path(Variant::Nft, Family::V4, ""), "exit 1");
    remove(|name| {
        name.starts_with("iptables") || name.starts_with("ip6tables") || name.starts_with("xtables")
    });
}

fn remove_iptables_of(variant: &str) {
    instead_of(&firewall::path(Variant::Nft, Family::V4, ""), "exit 1");
    let own = [format!("iptables-{variant}"), format!("ip6tables-{variant}")];
    let common = ["iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"];
    remove(|name| own.iter().any(|own| name.starts_with(own)) || common.contains(&name));
}

/// Warnings are of the host, not of an installation that is not there.
#[track_caller]
fn is_whole_and_says_so(run: &Run) {
    for untrue in ["without comments", "IPv6 traffic is not redirected", "IPv4 is installed"] {
        assert!(!run.stderr.contains(untrue), "{run}");
    }
    assert_eq!(Backend::installed(), [Backend::Nftables]);
    assert!(Family::BOTH.into_iter().all(|family| Backend::Nftables.has_ours(family)));
    assert!(own_table().is_some_and(|table| table.contains("comment \"")), "{run}");
}

#[track_caller]
fn with_programs(lab: &Lab, prepare: impl Fn(), more: &[&str]) -> Run {
    prepare();
    let run = lab.program().args(INSTALL).args(more).run();
    must("umount", &["/usr/sbin"]);
    run
}

// Away from programs that are of no use; from the native backend there is no other way to go.
each_iptables_variant! {
    fn what_was_to_be_left_out_is_not_told_of_what_is_there(lab, variant) {
        their_rules(variant);
        let before = Snapshot::take();
        let restore = firewall::path(variant, Family::V4, "-restore");
        let less = || instead_of(&restore, LESS_AND_LESS);
        let run = with_programs(lab, less, &[]).succeeds().says("iptables is of no use here").prints("nftables rules");
        is_whole_and_says_so(&run);
        lab.program().arg("uninstall").run().succeeds();
        Snapshot::take().assert_unchanged_since(&before);
        // Where it may not move, both are told: one part is left out, another cannot be.
        let run = with_programs(lab, less, &["--backend", "iptables"]).exits(3).says("match `owner'");
        assert_eq!(run.stderr.matches("IPv4 is installed without comments").count(), 1, "{run}");
        Snapshot::take().assert_unchanged_since(&before);

        // IPv6 was given up before anything was tried.
        let six = || {
            instead_of(&restore, NO_OWNER);
            remove_ip6tables();
        };
        let run = with_programs(lab, six, &[]).succeeds().says("iptables is of no use here");
        is_whole_and_says_so(&run);
        assert_eq!(run.stderr.matches("note: the sidecar").count(), 0, "{run}");
        for family in Family::BOTH {
            let mesh = Mesh::new(lab, family);
            assert_eq!(mesh.connect(APP, family.outside(), 80), "outbound");
            assert_eq!(mesh.connect(SIDECAR, family.outside(), 80), "world");
        }
        lab.program().arg("uninstall").run().succeeds();
    }

    /// What stays with iptables says what it lacks, once.
    fn what_is_left_out_and_stays_is_told(lab, variant) {
        their_rules(variant);
        let run = with_programs(lab, || { instead_of(&firewall::path(variant, Family::V4, ""), "exit 1"); remove_ip6tables(); }, &[]);
        let run = run.succeeds().says("using iptables").says("--backend nftables needs none");
        assert_eq!(run.stderr.matches("IPv6 traffic is not redirected").count(), 1, "{run}");
        assert_eq!(Backend::installed(), [Backend::Iptables(variant)]);
    }

    /// `--strict` wants both families, which only the kernel's own interface has then.
    fn without_ip6tables_strictly(lab, variant) {
        their_rules(variant);
        let before = Snapshot::take();
        let six = || {
            instead_of(&firewall::path(variant, Family::V4, ""), "exit 1");
            remove_ip6tables();
        };
        for dry in ["--dry-run=false", "--dry-run", "--dry-run=diff"] {
            let run = with_programs(lab, six, &["--strict", "--backend", "iptables", dry]).exits(3);
            let run = run.says("error: IPv6 traffic cannot be redirected: no ip6tables");
            assert!(!run.stderr.contains("warning: IPv6 traffic"), "{run}");
        }
        let run = with_programs(lab, six, &["--dry-run"]).succeeds().says("IPv6 traffic is not redirected");
        assert!(run.stdout.contains("### IPv4") && !run.stdout.contains("### IPv6"), "{run}");
        let run = with_programs(lab, six, &["--strict", "--dry-run"]).succeeds();
        assert!(run.stdout.starts_with("table inet kuma_mesh\n"), "{run}");
        Snapshot::take().assert_unchanged_since(&before);
        let run = with_programs(lab, six, &["--strict"]).succeeds().says("using nftables: no ip6tables was found");
        is_whole_and_says_so(&run);
    }

    /// Rules of an installation that nothing here can change any more: another one beside them would be half of one.
    fn programs_that_are_gone(lab, variant) {
        lab.install(variant, &["--redirect-dns"]).succeeds();
        let before = Snapshot::take();
        let words = format!("rules are in IPv4 tables of the {} variant", variant.name());
        for command in [&INSTALL[..], &["uninstall"]] {
            for more in [&[][..], &["--backend", "nftables"], &["--dry-run=diff"]] {
                if (command[0], more.first()) == ("uninstall", Some(&"--dry-run=diff")) {
                    continue;
                }
                remove_iptables();
                let run = lab.program().args(command).args(more).run().exits(3).says(&words);
                let run = run.says("hint: install the ").says("run the command again");
                assert_eq!(run.stderr.matches("warning").count(), 0, "{run}");
                must("umount", &["/usr/sbin"]);
            }
        }
        // The other variant's programs are no help.
        let name = variant.name();
        let run = with_programs(lab, || { remove_iptables_of(name); }, &[]);
        let _ = run.exits(3).says(&words);
        Snapshot::take().assert_unchanged_since(&before);
        lab.uninstall(variant, &[]).succeeds();
    }

    /// A program that is there and cannot be started.
    fn a_program_that_cannot_be_started_is_of_no_use_either(lab, variant) {
        let refuse = || {
            let restore = firewall::path(variant, Family::V4, "-restore");
            instead_of(&restore, "");
            fs::write(&restore, [0x7f, b'E', b'L', b'F', 9, 9, 9, 9]).expect("a file of the lab");
            // The other variant is not to be asked.
            let other = firewall::path(variant.other(), Family::V4, "-restore");
            fs::remove_file(other).expect("a link of the lab");
        };
        let before = Snapshot::take();
        let run = with_programs(lab, refuse, &["--backend", "iptables"]).exits(3).says("cannot be started");
        let run = run.says("hint: the file is damaged or made for another architecture");
        assert_eq!(run.stderr.matches("hint: ").count(), 1, "{run}");
        Snapshot::take().assert_unchanged_since(&before);
        let run = with_programs(lab, refuse, &[]).succeeds().says("cannot be started").says("so nftables is used");
        is_whole_and_says_so(&run);
        lab.program().arg("uninstall").run().succeeds();

        // The same of every program, where there are tables to read.
        their_rules(variant);
        let before = Snapshot::take();
        let none = || {
            instead_of(&firewall::path(variant, Family::V4, "-restore"), "");
            for entry in fs::read_dir("/usr/sbin").expect("programs").flatten() {
                let program = entry.file_name().to_string_lossy().into_owned();
                if program.contains("-save") || program.contains("-restore") {
                    fs::remove_file(entry.path()).expect("a link of the lab");
                    fs::write(entry.path(), [0x7f, b'E', b'L', b'F', 9, 9, 9, 9]).expect("a file of the lab");
                    must("chmod", &["755", &entry.path().to_string_lossy()]);
                }
            }
        };
        let run = with_programs(lab, none, &["--backend", "iptables"]).exits(3).says("cannot be started");
        assert_eq!(run.stderr.matches("hint: ").count(), 1, "{run}");
        let run = with_programs(lab, none, &[]).succeeds();
        is_whole_and_says_so(&run);
        lab.program().arg("uninstall").run().succeeds();
        Snapshot::take().assert_foreign_unchanged_since(&before);
    }

    /// A program that is there and does not end.
    fn a_program_that_does_not_end_is_of_no_use_either(lab, variant) {
        let hang = || {
            instead_of(&firewall::path(variant, Family::V4, "-restore"), "exec sleep 1000");
            let other = firewall::path(variant.other(), Family::V4, "-restore");
            fs::remove_file(other).expect("a link of the lab");
        };
        let run = with_programs(lab, hang, &["--wait", "1"]).succeeds().says("did not finish within");
        let run = run.says("so nftables is used");
        is_whole_and_says_so(&run);
        lab.program().arg("uninstall").run().succeeds();
        assert_eq!(Backend::installed(), []);
    }
}

/// The kernel has no IPv6 for the programs, and `--strict` wants it.
#[test]
fn a_family_that_only_the_programs_lack_strictly() {
    Lab::enter(|lab| {
        let words = "can't initialize ip6tables table \\`nat': Table does not exist";
        let body = format!("cat >/dev/null; echo \"$me: {words}\" >&2; exit 3");
        let six = || instead_of(&firewall::path(Variant::Nft, Family::V6, "-restore"), &body);
        with_programs(lab, six, &["--strict", "--backend=iptables"]).exits(3);
        is_whole_and_says_so(&with_programs(lab, six, &["--strict"]).succeeds().says("so nftables is used"));
    });
}

/// What others keep in nftables of their own is no business of iptables, whose programs nobody misses there.
#[test]
fn others_tables_are_no_reason_to_miss_iptables() {
    Lab::enter(|lab| {
        firewall::nft(
            "table ip nat { chain OUTPUT { type nat hook output priority -100; tcp dport { 81, 82 } redirect to :9; }; }\n\
             table ip6 filter { chain INPUT { type filter hook input priority 0; tcp dport 81 drop; }; }",
        );
        let before = Snapshot::take();
        let run =
            with_programs(lab, remove_iptables, &[]).succeeds().says("using nftables: no iptables was found");
        assert!(!run.stderr.contains("no program to read"), "{run}");
        is_whole_and_says_so(&run);
        for what in ["nftables rules removed", "nothing was installed"] {
            remove_iptables();
            let run = lab.program().arg("uninstall").run().succeeds().prints(what);
            must("umount", &["/usr/sbin"]);
            assert_eq!(run.stderr, "");
        }
        Snapshot::take().assert_foreign_unchanged_since(&before);
    });
}

/// A dry run stops where the run would.
#[test]
fn a_dry_run_tells_of_jumps_that_would_lead_nowhere() {
    Lab::enter(|lab| {
        lab.install(Variant::Nft, &[]).succeeds();
        let theirs = "*nat\n:MINE - [0:0]\n-A MINE -p tcp -m tcp --dport 99 -j KUMA_MESH_OUTBOUND\nCOMMIT\n";
        firewall::restore(Variant::Nft, Family::V4, theirs);
        let before = Snapshot::take();
        for dry in ["--dry-run=false", "--dry-run=diff"] {
            let run =
                lab.install(Backend::Nftables, &[dry]).exits(1).says("rules of others lead to our chains");
            let _ = run.says("MINE");
            Snapshot::take().assert_unchanged_since(&before);
        }
    });
}

/// Whatever is there goes, and is named.
#[test]
fn rules_of_both_backends_go_together() {
    Lab::enter(|lab| {
        lab.install(Variant::Nft, &["--redirect-dns"]).succeeds();
        let saved = Family::BOTH.map(|family| (family, firewall::save(Variant::Nft, family)));
        lab.install(Backend::Nftables, &["--redirect-dns"]).succeeds();
        for (family, saved) in saved {
            firewall::restore(Variant::Nft, family, &saved);
        }
        let run = lab.program().arg("uninstall").run().succeeds();
        let run = run.prints(" IPv6 rules (nft) and ").prints(" nftables rules removed");
        assert!(!run.stdout.contains("rules (nft) removed"), "{run}");
        assert_eq!(Backend::installed(), []);
    });
}
