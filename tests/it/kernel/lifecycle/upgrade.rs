//! Over a kumactl's rules, whatever version wrote them.

use super::assert_fresh;
use crate::support::kumactl::{Kumactl, Version};
use crate::support::lab::{each_backend, each_iptables_variant};
use crate::support::mesh::{APP_PORT, Mesh, listening_sidecar};
use crate::support::snapshot::Snapshot;
use crate::support::{APP, Backend, Family, Variant, firewall};

each_backend! {
    fn every_version_with_comments_becomes_ours(lab, backend) {
        // A table of its own takes over from both.
        let variants = match backend {
            Backend::Iptables(variant) => vec![variant],
            Backend::Nftables => Variant::BOTH.to_vec(),
        };
        for (version, variant) in Version::COMMENTED.into_iter().flat_map(|v| variants.iter().map(move |&of| (v, of))) {
            for dns in [false, true] {
                Kumactl { version, dns }.install(variant);
                let flags: &[&str] = if dns { &["--redirect-all-dns-traffic"] } else { &[] };
                lab.install(backend, flags).succeeds();
                assert_fresh(backend, flags);
                lab.uninstall(backend, &[]).succeeds();
                assert_eq!(Backend::installed(), [], "{version:?}");
            }
        }
    }
}

// Another backend says them in other words.
each_iptables_variant! {
    /// In a chain that is shared, who lets pass first has the last word; a table of our own asks nobody.
    fn what_others_let_pass_is_named_on_the_way_to_a_table_of_our_own(lab, variant) {
        let family = Family::V4;
        let theirs = format!(
            "*nat\n-A OUTPUT -d {}/32 -j RETURN\n-A PREROUTING -p tcp --dport {APP_PORT} -j ACCEPT\nCOMMIT\n",
            family.outside()
        );
        firewall::restore(variant, family, &theirs);
        lab.install(variant, &[]).succeeds();
        let mesh = Mesh::new(lab, family);
        let goes = || [mesh.connect(APP, family.outside(), 443), mesh.visit(lab, APP_PORT)];
        assert_eq!(goes(), ["world", "app"]);
        let address = format!("{}/32", family.outside());
        let run = lab.install(Backend::Nftables, &[]).succeeds().says(&format!("-d {address} -j RETURN"));
        let options = ["--exclude-outbound-ips", &address, "--exclude-inbound-ports", &APP_PORT.to_string()];
        let _ = run.says(&options[..2].join(" ")).says(&options[2..].join(" "));
        assert_eq!(goes(), ["outbound", "inbound"]);
        lab.install(Backend::Nftables, &options).succeeds();
        assert_eq!(goes(), ["world", "app"]);
        // What came first anyway goes on as it did.
        let first =
            ["--redirect-outbound-insert-instead-of-append", "--redirect-inbound-insert-instead-of-append"];
        lab.uninstall(variant, &[]).succeeds();
        lab.install(variant, &first).succeeds();
        let run = lab.install(Backend::Nftables, &first).succeeds();
        assert!(!run.stderr.contains("lets traffic pass"), "{run}");
    }

    fn todays_rules_are_left_as_they_are(lab, variant) {
        Kumactl { version: Version::V2_14, dns: true }.install(variant);
        let before = Snapshot::take();
        let _ = lab.program().arg("status").run().exits(11).prints("fe80::/10");
        lab.install(variant, &["--redirect-all-dns-traffic"]).succeeds();
        let after = Snapshot::take();
        assert_eq!(after.rules(variant, Family::V4), before.rules(variant, Family::V4));
        // What kumactl does not leave alone is all that comes.
        let mut six = after.rules(variant, Family::V6).clone();
        let mut added = 0;
        for chain in six.tables.values_mut().flat_map(|table| table.values_mut()) {
            let rules = chain.rules.len();
            chain.rules.retain(|rule| !rule.text.contains("fe80::/10"));
            added += rules - chain.rules.len();
        }
        assert_eq!((&six, added), (before.rules(variant, Family::V6), 3));
        let _sidecar = listening_sidecar();
        lab.program().arg("status").run().exits(0);
    }
}
