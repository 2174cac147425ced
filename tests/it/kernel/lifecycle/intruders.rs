//! Somebody else's rules in our chains, and on the way to them.

use super::assert_fresh;
use crate::support::firewall;
use crate::support::lab::{each_backend, each_iptables_variant};
use crate::support::snapshot::Snapshot;
use crate::support::{Backend, Family, Variant};

/// A rule of somebody else that leads to a chain of ours.
fn their_jump(variant: Variant) {
    let text = "*nat\n:THEIRS - [0:0]\n[5:300] -A THEIRS -d 192.0.2.7/32 -p tcp -j KUMA_MESH_OUTBOUND\n\
        [6:360] -A OUTPUT -p tcp -m tcp --dport 7777 -j THEIRS\nCOMMIT\n";
    firewall::restore(variant, Family::V4, text);
}

/// Rules of somebody else in chains of ours; what is said of each.
fn intrude(backend: Backend) -> [&'static str; 2] {
    let Backend::Iptables(variant) = backend else {
        firewall::nft(
            "insert rule inet kuma_mesh outbound ip daddr 192.0.2.9 counter accept
             add rule inet kuma_mesh inbound ip6 saddr 2001:db8:9::/64 counter return",
        );
        return [
            "chain outbound: ip daddr 192.0.2.9 counter accept",
            "chain inbound: ip6 saddr 2001:db8:9::/64 counter return",
        ];
    };
    let first = "-t nat -I KUMA_MESH_OUTBOUND 1 -d 192.0.2.9/32 -j ACCEPT";
    firewall::iptables(variant, Family::V4, first).succeeds();
    let last = "-t nat -A KUMA_MESH_INBOUND -s 2001:db8:9::/64 -j RETURN";
    firewall::iptables(variant, Family::V6, last).succeeds();
    ["-A KUMA_MESH_OUTBOUND -d 192.0.2.9/32 -j ACCEPT", "-A KUMA_MESH_INBOUND -s 2001:db8:9::/64 -j RETURN"]
}

each_backend! {
    fn in_our_chains_they_are_shown_and_replaced(lab, backend) {
        lab.install(backend, &[]).succeeds();
        let [first, second] = intrude(backend);
        lab.install(backend, &["--redirect-dns"]).succeeds().says(first).says(second);
        assert_fresh(backend, &["--redirect-dns"]);
    }

    fn in_our_chains_they_are_replaced_even_if_nothing_else_changed(lab, backend) {
        lab.install(backend, &[]).succeeds();
        let [first, second] = intrude(backend);
        lab.install(backend, &[]).succeeds().says(first).says(second);
        assert_fresh(backend, &[]);
    }
}

// No rule of another table leads into the native one.
each_iptables_variant! {
    fn on_the_way_to_our_chains_they_survive_a_reinstall(lab, variant) {
        lab.install(variant, &[]).succeeds();
        their_jump(variant);
        let before = Snapshot::take();
        lab.install(variant, &["--redirect-dns"]).succeeds();
        let now = Snapshot::take();
        let foreign = |snapshot: &Snapshot| snapshot.rules(variant, Family::V4).clone().without_ours();
        assert_eq!(foreign(&now).tables["nat"]["THEIRS"], foreign(&before).tables["nat"]["THEIRS"]);
        assert_eq!(foreign(&now).tables["nat"]["OUTPUT"], foreign(&before).tables["nat"]["OUTPUT"]);
    }

    fn on_the_way_to_our_chains_they_stop_an_uninstall(lab, variant) {
        lab.install(variant, &["--redirect-dns"]).succeeds();
        their_jump(variant);
        let before = Snapshot::take();
        lab.uninstall(variant, &[])
            .exits(1)
            .says("-A THEIRS -d 192.0.2.7/32 -p tcp -j KUMA_MESH_OUTBOUND")
            .says("--force");
        Snapshot::take().assert_unchanged_since(&before);
        lab.uninstall(variant, &["--force"]).succeeds();
        let rules = firewall::rules(variant, Family::V4);
        assert!(!rules.has_ours(), "{rules}");
        assert_eq!(rules.chain("nat", "THEIRS"), [""; 0], "{rules}");
        assert_eq!(rules.chain("nat", "OUTPUT"), ["-A OUTPUT -p tcp -m tcp --dport 7777 -j THEIRS"]);
    }
}
