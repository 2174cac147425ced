//! `tproxy install --verify`: what does not work does not stay.

use serde_json::Value;

use crate::support::Backend;
use crate::support::command::Run;
use crate::support::firewall::{self, Family};
use crate::support::lab::each_backend;
use crate::support::snapshot::Snapshot;

const FIRST: &[&str] = &["--redirect-all-dns-traffic", "--exclude-inbound-ports", "22"];
const SECOND: &[&str] = &["--redirect-dns", "--exclude-outbound-ports", "9000"];

/// Somebody keeps an application's connections from being tracked, so no rule of anybody's can redirect them.
fn put_somebody_ahead(backend: Backend) {
    let rule = "*raw\n-I OUTPUT 1 -p tcp -m owner --uid-owner 65534 -j CT --notrack\nCOMMIT\n";
    firewall::restore(backend.tools(), Family::V4, rule);
}

fn verified(flags: &[&'static str]) -> Vec<&'static str> {
    [flags, &["--verify"]].concat()
}

/// The one document on standard output.
#[track_caller]
fn document(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"))
}

/// It ended with the table of what is wrong.
#[track_caller]
fn refused(run: Run) {
    run.exits(1)
        .prints("IPv4  outbound     fail        app to ")
        .prints("happened  went straight to where it was sent")
        .says("the installation does not work: 2 of ")
        .says("the host is as it was before");
}

/// Files in the directory of state: `(how many, any that waits to be confirmed)`.
fn files() -> (usize, bool) {
    let entries = std::fs::read_dir("/run/tproxy").into_iter().flatten().filter_map(Result::ok);
    let names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    (names.len(), names.iter().any(|name| name.ends_with(".pending")))
}

each_backend! {
    fn what_works_stays(lab, backend) {
        let table = "IPv4  outbound     pass        app to ";
        lab.install(backend, &verified(FIRST)).succeeds().prints("completed successfully").prints(table);
        assert!(backend.has_ours(Family::V6));
        lab.install(backend, &verified(FIRST)).succeeds().prints("nothing was written").prints(table);
    }

    fn what_does_not_work_goes_again(lab, backend) {
        put_somebody_ahead(backend);
        let before = Snapshot::take().without_counters();
        refused(lab.install(backend, &verified(SECOND)));
        Snapshot::take().without_counters().assert_unchanged_since(&before);
        assert_eq!(files(), (0, false));
    }

    /// With its address on the loopback interface, its record, and rules that only the record knows.
    fn and_the_former_installation_comes_back(lab, backend) {
        put_somebody_ahead(backend);
        lab.install(backend, &[FIRST, &["--disable-comments"]].concat()).succeeds();
        let before = Snapshot::take().without_counters();
        refused(lab.install(backend, &verified(SECOND)));
        Snapshot::take().without_counters().assert_unchanged_since(&before);
        lab.install(backend, &[FIRST, &["--disable-comments"]].concat()).succeeds().prints("nothing was written");
    }

    fn where_nothing_was_written_it_fails_all_the_same(lab, backend) {
        lab.install(backend, SECOND).succeeds();
        put_somebody_ahead(backend);
        let before = Snapshot::take().without_counters();
        refused(lab.install(backend, &verified(SECOND)));
        Snapshot::take().without_counters().assert_unchanged_since(&before);
    }

    /// To their places among the rules of others, too.
    fn rules_of_other_backends_come_back_too(lab, backend) {
        put_somebody_ahead(backend);
        let install = |backend: Backend, flags: &[&str]| {
            let asked = match backend {
                Backend::Nftables => backend.flags(),
                Backend::Iptables(variant) => {
                    let programs = firewall::executables(variant);
                    ["--backend", "iptables", "--iptables-executables", &programs].map(str::to_owned).into()
                }
            };
            lab.program().args(["install", "--kuma-dp-user", "kuma-dp"]).args(asked).args(flags).run()
        };
        for other in Backend::ALL.into_iter().filter(|other| *other != backend) {
            install(other, FIRST).succeeds();
            assert_eq!(Backend::installed(), [other]);
            let before = Snapshot::take().without_counters();
            refused(install(backend, &verified(SECOND)));
            Snapshot::take().without_counters().assert_unchanged_since(&before);
            lab.uninstall(other, &[]).succeeds();
        }
    }

    fn it_is_verified_first_and_confirmed_then(lab, backend) {
        let flags = [FIRST, &["--verify", "--confirm", "600s", "-o", "json"]].concat();
        let run = lab.install(backend, &flags).succeeds();
        let said = document(&run);
        assert_eq!(said["action"], "install");
        assert_eq!(said["verify"]["method"], "listeners");
        assert!(said["verify"]["checks"].as_array().is_some_and(|checks| checks.len() > 16), "{run}");
        assert!(said["confirm"]["until"].as_str().is_some_and(|until| until.ends_with('Z')), "{run}");
        assert!(said["confirm"]["log"].as_str().is_some_and(|log| std::path::Path::new(log).exists()), "{run}");
        // The time of the proof is not taken from the time to confirm, nor added to it.
        let waits = lab.install(backend, FIRST).exits(4);
        let left: u64 = waits.stderr.split("for ").nth(1).and_then(|rest| rest.split(' ').next())
            .and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{waits}"));
        assert!(left <= 600, "{waits}");
        lab.program().arg("confirm").run().succeeds();
        lab.install(backend, FIRST).succeeds().prints("nothing was written");
    }

    /// What begins anew once it is verified ends all the same.
    fn what_is_verified_and_not_confirmed_comes_undone(lab, backend) {
        let before = Snapshot::take();
        let flags = [FIRST, &["--verify", "--confirm", "1s", "--foreground"]].concat();
        lab.install(backend, &flags).exits(1).says("nobody confirmed").prints("not yet kept");
        assert!(!backend.has_ours(Family::V4));
        let log = std::fs::read_dir("/run/tproxy").expect("the log").next().expect("a file").expect("an entry");
        std::fs::remove_file(log.path()).expect("the log, and nothing else");
        std::fs::remove_dir("/run/tproxy").expect("nothing else in it");
        Snapshot::take().assert_unchanged_since(&before);
    }

    fn what_does_not_work_does_not_wait_to_be_confirmed(lab, backend) {
        put_somebody_ahead(backend);
        let before = Snapshot::take().without_counters();
        refused(lab.install(backend, &[SECOND, &["--verify", "--confirm", "600s"]].concat()));
        Snapshot::take().without_counters().assert_unchanged_since(&before);
        assert_eq!(files(), (0, false));
        lab.program().arg("confirm").run().exits(1);
    }

    fn programs_get_one_document_also_when_it_fails(lab, backend) {
        lab.install(backend, &["--ip-family-mode", "ipv4"]).succeeds();
        put_somebody_ahead(backend);
        let run = lab.install(backend, &[SECOND, &["--verify", "-o", "json"]].concat()).exits(1);
        let said = document(&run);
        assert_eq!((said["changed"].as_bool(), said["confirm"].is_null()), (Some(false), true), "{run}");
        // The rules that are there again.
        let count = |key: &str| said["rules"][key].as_u64();
        let (there, elsewhere) = if backend == Backend::Nftables { ("nftables", "ipv4") } else { ("ipv4", "nftables") };
        assert!(count(there).is_some_and(|count| count > 5), "{run}");
        assert_eq!((count(elsewhere), count("ipv6")), (None, None), "{run}");
        let checks = said["verify"]["checks"].as_array().expect("checks");
        let failed: Vec<_> = checks.iter().filter(|check| check["status"] == "fail").map(|check| &check["id"]).collect();
        assert_eq!(failed, ["outbound"; 2], "{run}");
        lab.uninstall(backend, &[]).succeeds();
        let run = lab.install(backend, &[SECOND, &["--verify", "-o", "json"]].concat()).exits(1);
        assert!(document(&run)["backend"].is_null(), "nothing is there: {run}");
    }
}
