//! `docs/json.md` is true: it names whatever installing and uninstalling tell programs.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::command::Program;
use crate::support::kumactl::{Kumactl, Version};
use crate::support::lab::each_backend;
use crate::support::{Backend, Lab, Variant};

const DOCUMENT: &str = include_str!("../../../docs/json.md");

fn told(program: Program) -> Value {
    let run = program.args(["-o", "json"]).run();
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"))
}

/// The names in it, at every depth but inside what has a document of its own.
fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(all) => {
            for (key, value) in all {
                found.insert(key.clone());
                if key != "verify" {
                    keys(value, found);
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

/// How a backend is called in what is told.
fn named(backend: Backend) -> Value {
    match backend {
        Backend::Iptables(variant) => json!({ "backend": "iptables", "variant": variant.name() }),
        Backend::Nftables => json!({ "backend": "nftables", "variant": null }),
    }
}

each_backend! {
    fn an_uninstall_names_what_it_removed(lab, backend) {
        let installed = told(lab.installing(backend, &["--redirect-dns"]));
        let found = told(lab.uninstalling(backend, &[]));
        for (key, value) in named(backend).as_object().expect("an object") {
            assert_eq!(&installed[key], value, "{installed:#}");
            assert_eq!(&found[key], value, "{found:#}");
        }
        assert_eq!(found["removed"], json!([named(backend)]), "{found:#}");
        assert_eq!(found["rules"], installed["rules"]);
        let nothing = told(lab.uninstalling(backend, &[]));
        assert_eq!((&nothing["backend"], &nothing["removed"]), (&Value::Null, &json!([])), "{nothing:#}");
    }

    fn every_key_is_documented(lab, backend) {
        let rich = &["--redirect-all-dns-traffic", "--drop-invalid-packets", "--iptables-logs", "--vnet", "docker0:172.17.0.0/16"];
        let mut found = BTreeSet::new();
        for more in [&["--dry-run"][..], &["--dry-run=diff"], &["--verify", "--confirm", "600s"]] {
            keys(&told(lab.installing(backend, &[rich, more].concat())), &mut found);
        }
        keys(&told(lab.uninstalling(backend, &["--dry-run"])), &mut found);
        keys(&told(lab.uninstalling(backend, &[])), &mut found);
        for seen in ["verify", "confirm", "until", "removed", "add", "redirectTo", "why"] {
            assert!(found.contains(seen), "{seen} was not seen: {found:?}");
        }
        let missing: Vec<_> = found.iter().filter(|key| !DOCUMENT.contains(&format!("`{key}`"))).collect();
        assert!(missing.is_empty(), "not in docs/json.md: {missing:?}");
    }
}

#[test]
fn an_uninstall_names_each_way() {
    Lab::enter(|lab| {
        lab.install(Backend::Nftables, &[]).succeeds();
        for variant in Variant::BOTH {
            Kumactl { version: Version::V2_14, dns: true }.install(variant);
        }
        let found = told(lab.program().arg("uninstall"));
        assert_eq!(found["removed"], json!(Backend::ALL.map(named)), "{found:#}");
        assert_eq!((&found["backend"], &found["variant"]), (&Value::Null, &Value::Null));
        assert_eq!(Backend::installed(), []);
    });
}
