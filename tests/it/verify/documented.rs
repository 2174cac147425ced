//! `docs/verify.md` is true: its example is real, and it names whatever there is to name.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;
use tproxy::verify::{Evidence, Id, Method, Status};

use super::verify;
use crate::support::firewall::{self, Family, Variant};
use crate::support::{Lab, mesh::Mesh};

const DOCUMENT: &str = include_str!("../../../docs/verify.md");

/// The example of the document.
fn example() -> Value {
    let (_, rest) = DOCUMENT.split_once("```json\n").expect("an example");
    let (text, _) = rest.split_once("```").expect("its end");
    serde_json::from_str(text).expect("JSON")
}

/// The same with a word instead of addresses, which are others every time.
fn without_addresses(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            let is_address =
                |word: &str| word.parse::<SocketAddr>().is_ok() || word.parse::<IpAddr>().is_ok();
            let words = text.split(' ').map(|word| if is_address(word) { "ADDRESS" } else { word });
            words.collect::<Vec<_>>().join(" ").into()
        }
        Value::Array(all) => all.iter().map(without_addresses).collect(),
        Value::Object(all) => all
            .iter()
            .map(|(key, value)| (key.clone(), without_addresses(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().expect("an object").keys().cloned().collect()
}

#[test]
fn the_example_is_what_it_prints() {
    Lab::enter(|lab| {
        lab.install(Variant::Nft, &["--redirect-dns", "--exclude-inbound-ips", "127.0.0.0/8"]).succeeds();
        let rules = firewall::save(Variant::Nft, Family::V4);
        let jump = rules.lines().find_map(|line| {
            line.split_once("] -A OUTPUT ")
                .map(|(_, rule)| rule)
                .filter(|rule| rule.ends_with("-j KUMA_MESH_OUTBOUND"))
        });
        let jump = jump.expect("a jump");
        firewall::restore(Variant::Nft, Family::V4, &format!("*nat\n-D OUTPUT {jump}\nCOMMIT\n"));
        let said = without_addresses(&verify(lab, &[]).json);
        let example = without_addresses(&example());
        assert_eq!(
            (keys(&example), &example["schema"], &example["method"]),
            (keys(&said), &said["schema"], &said["method"])
        );
        let real = said["checks"].as_array().expect("checks");
        let shown = example["checks"].as_array().expect("checks");
        let statuses: BTreeSet<_> = shown.iter().map(|check| check["status"].to_string()).collect();
        assert_eq!(statuses.len(), 3, "one of each");
        for check in shown {
            assert!(real.contains(check), "{check:#}\nis none of\n{said:#}");
        }
    });
}

#[test]
fn every_key_and_word_is_explained() {
    Lab::enter(|lab| {
        lab.install(Variant::Nft, &["--redirect-dns"]).succeeds();
        let _sidecar = [Mesh::new(lab, Family::V4), Mesh::new(lab, Family::V6)];
        let said = verify(lab, &[]).json;
        let mut words = keys(&said);
        words.extend(said["checks"].as_array().expect("checks").iter().flat_map(keys));
        let ids = [
            Id::Outbound,
            Id::Inbound,
            Id::Sidecar,
            Id::Own,
            Id::Localhost,
            Id::Dns,
            Id::DnsSidecar,
            Id::Passthrough,
            Id::Exclusion,
        ];
        words.extend(ids.map(|id| id.name().to_owned()));
        words.extend([Status::Pass, Status::Fail, Status::NotTested].map(|status| status.name().to_owned()));
        words.extend([Method::Listeners, Method::Counters].map(|method| method.name().to_owned()));
        words.extend(
            [Evidence::Listener, Evidence::Conntrack, Evidence::Counters].map(|of| of.name().to_owned()),
        );
        for word in words {
            assert!(DOCUMENT.contains(&format!("`{word}`")), "{word} is not in docs/verify.md");
        }
    });
}
