//! A difference lists all that the run would change, and says "nothing" only of nothing.

use std::fs;

use serde_json::{Value, json};

use crate::kernel::host_files::{STORED, THEIRS, firewalld_is_here, own_etc};
use crate::kernel::trial::file;
use crate::support::command::must;
use crate::support::firewalld::DIRECT_XML;
use crate::support::lab::{each_backend, each_iptables_variant};
use crate::support::snapshot::Snapshot;
use crate::support::{Backend, Lab};

const NOTHING: &str = "no difference: nothing would be written\n";

/// As JSON; the text says "nothing" only where nothing is in it.
#[track_caller]
fn difference(lab: &Lab, backend: Backend, install: bool, flags: &[&str]) -> Value {
    let run = |more: &[&str]| {
        let flags = [flags, more].concat();
        if install { lab.install(backend, &flags) } else { lab.uninstall(backend, &flags) }
    };
    let text = run(&["--dry-run=diff"]).succeeds();
    let found = run(&["--dry-run=diff", "-o", "json"]).succeeds();
    let found: Value = serde_json::from_str(&found.stdout).expect("JSON");
    let empty = |key: &str| found[key].as_array().expect("a list").is_empty();
    let nothing = ["tables", "addresses", "files"].iter().all(|key| empty(key)) && found["record"].is_null();
    assert_eq!(found["changed"], !nothing, "{found:#}");
    assert_eq!(text.stdout == NOTHING, nothing, "{text}");
    let lists = ["addresses", "files"].iter().flat_map(|key| found[key].as_array().expect("a list"));
    for part in lists {
        for (sign, side) in [("+", "add"), ("-", "remove")] {
            for line in part[side].as_array().expect("a list") {
                let line = format!("{sign} {}\n", line.as_str().expect("a string"));
                assert!(text.stdout.contains(&line), "{line} {text}");
            }
        }
    }
    found
}

fn addresses(add: &[&str], remove: &[&str]) -> Value {
    json!([{ "interface": "lo", "add": add, "remove": remove }])
}

each_backend! {
    fn an_address_is_part_of_it(lab, backend) {
        let clean = Snapshot::take();
        assert_eq!(difference(lab, backend, true, &[])["addresses"], addresses(&["::6/128"], &[]));
        Snapshot::take().assert_unchanged_since(&clean);
        lab.install(backend, &[]).succeeds();
        assert_eq!(difference(lab, backend, true, &[])["changed"], false);
        // It alone.
        must("ip", &["-6", "addr", "del", "::6/128", "dev", "lo"]);
        let found = difference(lab, backend, true, &[]);
        assert_eq!((&found["tables"], &found["addresses"]), (&json!([]), &addresses(&["::6/128"], &[])));
        lab.install(backend, &[]).succeeds();
        // Of an installation that gives IPv6 up, and of an uninstall.
        assert_eq!(difference(lab, backend, true, &["--ip-family-mode", "ipv4"])["addresses"], addresses(&[], &["::6/128"]));
        let found = difference(lab, backend, false, &[]);
        assert_eq!(found["addresses"], addresses(&[], &["::6/128"]));
        assert_eq!(found["files"], json!([]));
        // A record without its installation.
        let record = file("json").expect("a record");
        assert_eq!(found["record"].as_str(), record.to_str());
        let text = fs::read(&record).expect("a record");
        lab.uninstall(backend, &[]).succeeds();
        assert_eq!(difference(lab, backend, false, &[])["changed"], false);
        must("mkdir", &["--mode", "0700", "/run/tproxy"]);
        fs::write(&record, text).expect("a private /run");
        let found = difference(lab, backend, false, &[]);
        assert_eq!((&found["tables"], found["record"].as_str()), (&json!([]), record.to_str()));
        lab.uninstall(backend, &[]).succeeds();
        Snapshot::take().assert_unchanged_since(&clean);
    }
}

each_iptables_variant! {
    fn the_file_of_firewalld_is_part_of_it(lab, variant) {
        own_etc(lab);
        firewalld_is_here();
        let backend = Backend::from(variant);
        let files = |install: bool, flags: &[&str]| difference(lab, backend, install, flags)["files"].clone();
        assert_eq!(files(true, &[]), json!([]));
        let found = files(true, STORED);
        assert_eq!((&found[0]["file"], &found[0]["remove"]), (&json!(DIRECT_XML), &json!([])));
        let added = found[0]["add"].clone();
        assert!(added.to_string().contains("KUMA_MESH_INBOUND"), "{found:#}");
        assert_eq!(fs::read_to_string(DIRECT_XML).expect("a file"), THEIRS);
        lab.install(variant, STORED).succeeds();
        assert_eq!(difference(lab, backend, true, STORED)["changed"], false);
        let run = lab.install(variant, STORED).succeeds().prints("nothing was written");
        assert!(!run.stderr.contains("are stored in"), "{run}");
        // It alone.
        fs::write(DIRECT_XML, THEIRS).expect("a private /etc");
        let found = difference(lab, backend, true, STORED);
        assert_eq!((&found["tables"], &found["files"][0]["add"]), (&json!([]), &added));
        let run = lab.install(variant, STORED).succeeds();
        assert!(!run.stdout.contains("nothing was written"), "{run}");
        let other = files(true, &[STORED, &["--exclude-inbound-ports", "22"]].concat());
        assert!(!other[0]["add"].as_array().expect("a list").is_empty(), "{other:#}");
        // A table of its own is not stored, and an uninstall takes all of it out.
        for removed in [difference(lab, Backend::Nftables, true, &[])["files"].clone(), files(false, &[])] {
            assert_eq!((&removed[0]["add"], &removed[0]["remove"]), (&json!([]), &added));
        }
        lab.uninstall(variant, &[]).succeeds();
        assert_eq!(files(false, &[]), json!([]));
    }
}
