//! The rules of an installation are Kuma's, as the save tools of a released kumactl's containers showed them.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::ruleset::assert_same;
use crate::support::{Family, Lab, Ruleset, Variant, firewall, lab::each_iptables_variant};

/// Parameters of the dump `with-multiple-flags`.
const MULTIPLE_FLAGS: [&str; 23] = [
    "--redirect-all-dns-traffic",
    "--vnet",
    "docker0:172.17.0.0/16",
    "--vnet",
    "br+:172.18.0.0/16",
    "--vnet",
    "iface:::1/64",
    "--exclude-outbound-ports-for-uids",
    "53,3000-5000:106-108",
    "--exclude-outbound-ips",
    "10.0.0.1,192.168.0.0/24,fe80::1",
    "--exclude-outbound-ips",
    "fd00::/8",
    "--exclude-outbound-ports",
    "1,22,333",
    "--exclude-inbound-ports",
    "4444,55555",
    "--exclude-inbound-ips",
    "192.168.0.1,172.32.16.8/16,fe80::/10",
    "--exclude-inbound-ips",
    "a81b:a033:6399:73c7:72b6:aa8c:6f22:7098",
    "--wait",
    "5",
];

/// Unlike a missing tool no reason to fail in CI: a copy of the repository alone does not have them.
fn without_dumps() {
    eprintln!("skipped: the dumps of ../shared/corpus are not there");
}

/// Where the dumps are, if they are there.
fn corpus() -> Option<PathBuf> {
    let path = env::var_os("TPROXY_CORPUS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"), PathBuf::from);
    path.join("save").is_dir().then(|| path.join("save"))
}

/// The dumps of one set of parameters that have rules, of every distribution: the tools print alike everywhere.
fn dumps(corpus: &Path, variant: Variant, family: Family, params: &str) -> Vec<(String, Ruleset)> {
    let ending = format!("-{params}.{}.txt", firewall::tool(variant, family, ""));
    let mut dumps = Vec::new();
    for entry in fs::read_dir(corpus).expect("the dumps can be listed") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        if name.ends_with(&ending) {
            let text = fs::read_to_string(corpus.join(&name)).expect("a dump can be read");
            let rules = Ruleset::parse(&text.replace("-o ifPlaceholder", "-o lo")).quiet();
            dumps.push((name, rules));
        }
    }
    dumps.retain(|(_, rules)| !rules.tables.is_empty());
    // The alias `ip6tables` of a legacy host is the only dump that some distributions have.
    assert!(!dumps.is_empty(), "no dump ends with {ending}");
    dumps
}

/// Without what kumactl lacks: the rules that give a virtual network's DNS question the zone of its answer, and those
/// that leave link-local destinations alone. The dumps have neither, whatever the parameters.
fn without_what_kumactl_lacks(mut rules: Ruleset) -> Ruleset {
    for chain in rules.tables.values_mut().flat_map(BTreeMap::values_mut) {
        chain.rules.retain(|rule| {
            let vnet_zone = rule.text.contains(" -i ") && rule.text.ends_with("-j CT --zone 2");
            let link_local = rule.text.contains("link-local addresses");
            !vnet_zone && !link_local
        });
    }
    rules
}

#[track_caller]
fn assert_like_dumps(corpus: &Path, variant: Variant, params: &str) {
    for family in Family::BOTH {
        let found = without_what_kumactl_lacks(firewall::rules(variant, family).quiet()).to_string();
        for (name, wanted) in dumps(corpus, variant, family, params) {
            assert_same(&format!("not the rules of {name}"), &wanted.to_string(), &found);
        }
    }
}

// What save tools printed; the native table's goldens are loaded by nft in their own tests.
each_iptables_variant! {
    fn default_installation(lab, variant) {
        let Some(corpus) = corpus() else { return without_dumps() };
        lab.install(variant, &[]).succeeds();
        assert_like_dumps(&corpus, variant, "default");
    }

    fn many_flags(lab, variant) {
        let Some(corpus) = corpus() else { return without_dumps() };
        lab.install(variant, &MULTIPLE_FLAGS).succeeds();
        assert_like_dumps(&corpus, variant, "with-multiple-flags");
    }

    /// What later tests replay as a kumactl installation is one.
    fn the_replayed_kumactl_is_one(_lab, variant) {
        let Some(corpus) = corpus() else { return without_dumps() };
        let kumactl = crate::support::kumactl::Kumactl { version: crate::support::kumactl::Version::V2_14, dns: false };
        kumactl.install(variant);
        assert_like_dumps(&corpus, variant, "default");
    }
}

#[test]
fn a_virtual_networks_dns_question_gets_the_zone_of_its_answer() {
    Lab::enter(|lab| {
        lab.install(Variant::Nft, &["--redirect-all-dns-traffic", "--vnet", "br+:172.18.0.0/16"]).succeeds();
        let rules = firewall::rules(Variant::Nft, Family::V4).quiet();
        let zones: Vec<&str> = rules
            .chain("raw", "PREROUTING")
            .into_iter()
            .filter(|rule| rule.ends_with("-j CT --zone 2"))
            .collect();
        assert!(zones.iter().any(|rule| rule.contains("-i br+") && rule.contains("--dport 53")), "{rules}");
    });
}
