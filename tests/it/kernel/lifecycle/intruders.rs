//! Somebody else's rules in our chains, and on the way to them.

use super::assert_fresh;
use crate::support::firewall;
use crate::support::lab::each_iptables_variant;
use crate::support::snapshot::Snapshot;
use crate::support::{Family, Variant};

/// A rule of somebody else that leads to a chain of ours.
fn their_jump(variant: Variant) {
    let text = "*nat\n:THEIRS - [0:0]\n[5:300] -A THEIRS -d 192.0.2.7/32 -p tcp -j KUMA_MESH_OUTBOUND\n\
        [6:360] -A OUTPUT -p tcp -m tcp --dport 7777 -j THEIRS\nCOMMIT\n";
    firewall::restore(variant, Family::V4, text);
}

each_iptables_variant! {
    fn in_our_chains_they_are_shown_and_replaced(lab, variant) {
        lab.install(variant, &[]).succeeds();
        firewall::iptables(variant, Family::V4, "-t nat -I KUMA_MESH_OUTBOUND 1 -d 192.0.2.9/32 -j ACCEPT").succeeds();
        firewall::iptables(variant, Family::V6, "-t nat -A KUMA_MESH_INBOUND -s 2001:db8:9::/64 -j RETURN").succeeds();
        lab.install(variant, &["--redirect-dns"])
            .succeeds()
            .says("-A KUMA_MESH_OUTBOUND -d 192.0.2.9/32 -j ACCEPT")
            .says("-A KUMA_MESH_INBOUND -s 2001:db8:9::/64 -j RETURN");
        assert_fresh(variant, &["--redirect-dns"]);
    }

    fn in_our_chains_they_are_replaced_even_if_nothing_else_changed(lab, variant) {
        lab.install(variant, &[]).succeeds();
        firewall::iptables(variant, Family::V4, "-t nat -I KUMA_MESH_OUTBOUND 1 -d 192.0.2.9/32 -j ACCEPT").succeeds();
        lab.install(variant, &[]).succeeds().says("-A KUMA_MESH_OUTBOUND -d 192.0.2.9/32 -j ACCEPT");
        assert_fresh(variant, &[]);
    }

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
