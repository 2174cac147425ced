//! A record that cannot be used: whether `::6` is an installation's is not known then, which no success hides.

use std::fs;
use std::path::PathBuf;

use super::install_second;
use crate::kernel::trial::file;
use crate::support::command::must;
use crate::support::lab::{each_backend, each_iptables_variant};
use crate::support::snapshot::{Snapshot, loopback};
use crate::support::wrappers::{Fault, Wrappers};
use crate::support::{Backend, Family, Lab};

fn record() -> PathBuf {
    file("json").expect("a record")
}

/// Records that no version wrote, and one of a version to come.
fn damages() -> Vec<Vec<u8>> {
    let text = fs::read_to_string(record()).expect("a record");
    let schema = text.replacen("\"schema\": 1", "\"schema\": 2", 1);
    assert_ne!(schema, text);
    let half = text.as_bytes()[..text.len() / 2].to_vec();
    vec![
        schema.into_bytes(),
        half,
        Vec::new(),
        b"[1]".to_vec(),
        b"{\"schema\": 1}".to_vec(),
        b"\xff\xfe".to_vec(),
    ]
}

#[track_caller]
fn uninstall_names_the_address(lab: &Lab, backend: Backend) {
    let run = lab.uninstall(backend, &[]).exits(5).says("the address ::6 of lo").says(".json is of no use");
    let run = run.says("hint: run: ip -6 addr del ::6/128 dev lo");
    assert!(!run.stdout.contains("successfully") && !run.stderr.contains("as it was before"), "{run}");
    for family in Family::BOTH {
        assert!(!backend.has_ours(family), "{run}");
    }
    assert!(loopback().iter().any(|address| address.contains("::6")), "{run}");
}

each_backend! {
    fn an_uninstall_says_that_the_address_stays(lab, backend) {
        let clean = Snapshot::take();
        lab.install(backend, &[]).succeeds();
        for damaged in damages() {
            lab.install(backend, &[]).succeeds();
            fs::write(record(), &damaged).expect("a record");
            uninstall_names_the_address(lab, backend);
            assert_eq!(fs::read(record()).expect("a record"), damaged);
            // Nothing else is left to do, and that is no success either.
            uninstall_names_the_address(lab, backend);
            // As it says.
            must("ip", &["-6", "addr", "del", "::6/128", "dev", "lo"]);
            let run = lab.uninstall(backend, &[]).succeeds().prints("could not be used");
            assert!(!run.stdout.contains("successfully"), "{run}");
            lab.uninstall(backend, &[]).succeeds().prints("successfully");
            Snapshot::take().assert_unchanged_since(&clean);
        }
    }

    fn an_installation_over_it_does_not_forget(lab, backend) {
        lab.install(backend, &[]).succeeds();
        fs::write(record(), "damaged").expect("a record");
        lab.install(backend, &["--redirect-dns"]).succeeds();
        lab.install(backend, &["--redirect-dns"]).succeeds().prints("nothing was written");
        uninstall_names_the_address(lab, backend);
        uninstall_names_the_address(lab, backend);
        // The address is somebody else's, says who removes the record.
        fs::remove_file(record()).expect("a record");
        lab.uninstall(backend, &[]).succeeds();
    }

    fn without_the_address_an_uninstall_succeeds(lab, backend) {
        let clean = Snapshot::take();
        lab.install(backend, &["--ip-family-mode", "ipv4"]).succeeds();
        fs::write(record(), "damaged").expect("a record");
        let run = lab.uninstall(backend, &[]).succeeds().says("is not a state file").prints("could not be used");
        assert!(!run.stdout.contains("successfully"), "{run}");
        Snapshot::take().assert_unchanged_since(&clean);
    }
}

each_iptables_variant! {
    fn a_failed_installation_over_it_leaves_it_as_it_was(lab, variant) {
        lab.install(variant, &[]).succeeds();
        let refuses = Fault::Instead("cat >/dev/null; echo 'six is out' >&2; exit 1".to_owned());
        for damaged in damages() {
            fs::write(record(), &damaged).expect("a record");
            let tools = Wrappers::new(variant).every("ip6tables-restore", &refuses);
            let before = Snapshot::take();
            let _ = install_second(lab, &tools, &["--strict", "--max-retries", "0"]).exits(3).says("six is out");
            Snapshot::take().assert_put_back_since(&before);
            assert_eq!(fs::read(record()).expect("a record"), damaged);
        }
    }
}
