//! The tools of these tests do what they say: with rules put there by plain iptables, no program of ours involved.

use std::net::SocketAddr;

use crate::support::backend::own_table_handle;
use crate::support::client::{Asker, ask, connect_to};
use crate::support::generation::nft_generation;
use crate::support::kumactl::{Kumactl, Version};
use crate::support::lab::{each_iptables_stack, each_iptables_variant, in_a_namespace_of_our_own};
use crate::support::listener::Listener;
use crate::support::snapshot::Snapshot;
use crate::support::wrappers::{Fault, Wrappers};
use crate::support::{APP, Backend, Family, Lab, Ruleset, SIDECAR, Variant, as_user, firewall};

#[test]
fn outside_a_lab_nothing_is_done() {
    let refused = std::panic::catch_unwind(in_a_namespace_of_our_own);
    assert!(refused.is_err());
}

// What an old kumactl wrote, replayed by the programs of iptables.
each_iptables_stack! {
    fn listeners_and_clients_tell_who_met_whom(lab, variant, family) {
        Kumactl { version: Version::V2_14, dns: true }.install(variant);
        let out = as_user(SIDECAR, move || Listener::tcp("outbound", family.any(), 15001));
        let _dns = as_user(SIDECAR, move || Listener::udp("dns", family.any(), 15053));
        let server = lab.peer().run(move || Listener::tcp("server", family.any(), 80));
        let _resolver = lab.peer().run(move || Listener::udp("resolver", family.resolver(), 53));
        let to = SocketAddr::new(family.outside(), 80);

        let app = as_user(APP, move || connect_to(to)).expect("an answer");
        assert_eq!((app.by.as_str(), app.about), ("outbound", to.to_string()));
        let sidecar = as_user(SIDECAR, move || connect_to(to)).expect("an answer");
        assert_eq!((sidecar.by.as_str(), sidecar.from.ip()), ("server", family.host()));
        assert_eq!((out.served(), server.served()), (1, 1));

        let app = as_user(APP, move || ask(family.resolver())).expect("an answer");
        assert_eq!(app.by, "dns");
        let upstream = SocketAddr::new(family.resolver(), 53);
        let sidecar = as_user(SIDECAR, move || Asker::to(upstream, None)?.ask("x")).expect("an answer");
        assert_eq!((sidecar.by.as_str(), sidecar.about.as_str()), ("resolver", "x"));
    }
}

// Of the programs of iptables themselves.
each_iptables_variant! {
    fn snapshots_see_a_lost_counter_and_a_rule_put_back(_lab, variant) {
        let rules = "*nat\n:MINE - [0:0]\n[3:180] -A OUTPUT -d 198.51.100.1/32 -j MINE\n[1:60] -A MINE -j RETURN\nCOMMIT\n";
        firewall::restore(variant, Family::V4, rules);
        let before = Snapshot::take();
        Snapshot::take().assert_unchanged_since(&before);
        Kumactl { version: Version::V2_14, dns: true }.install(variant);
        Snapshot::take().assert_foreign_unchanged_since(&before);

        firewall::iptables(variant, Family::V4, "-t nat -Z MINE").succeeds();
        let zeroed = Snapshot::take();
        assert!(std::panic::catch_unwind(|| zeroed.assert_foreign_unchanged_since(&before)).is_err());
    }

    fn wrappers_count_and_fail(_lab, variant) {
        let wrappers = Wrappers::new(variant).at(&("iptables-save".to_owned(), 2), &Fault::fails(7, "no more"));
        let flag = wrappers.flag();
        let save = flag.split(',').find_map(|pair| pair.strip_prefix("iptables-save:")).expect("a path").to_owned();
        let call = || crate::support::command::Program::new(&save).arg("-t").arg("nat").run();
        call().succeeds();
        call().exits(7).says("no more");
        call().succeeds();
        assert_eq!(wrappers.log().len(), 3, "{:?}", wrappers.log());
        assert_eq!(wrappers.calls()[2], ("iptables-save".to_owned(), 3));
    }
}

#[test]
fn snapshots_see_the_native_table_without_what_it_counts() {
    Lab::enter(|_| {
        assert_eq!(Backend::installed(), []);
        let table = "table inet kuma_mesh { set s { type inet_service; elements = { 7 } }
            chain c { type nat hook output priority -95; counter packets 5 bytes 9 return; }; }";
        firewall::nft(table);
        assert_eq!(Backend::installed(), [Backend::Nftables]);
        assert_eq!(Backend::Nftables.packets(Family::V4, "return"), [5]);
        let handle = own_table_handle();
        let before = Snapshot::take();
        firewall::nft(&format!("delete table inet kuma_mesh\n{}", table.replace("packets 5", "packets 6")));
        assert_ne!(own_table_handle(), handle);
        let quiet = || before.clone().without_counters();
        Snapshot::take().without_counters().assert_unchanged_since(&quiet());
        let now = Snapshot::take();
        assert!(std::panic::catch_unwind(|| now.assert_unchanged_since(&before)).is_err());
        firewall::nft("add element inet kuma_mesh s { 8 }");
        let now = Snapshot::take().without_counters();
        assert!(std::panic::catch_unwind(|| now.assert_unchanged_since(&quiet())).is_err());
    });
}

#[test]
fn the_generation_moves_with_a_change_and_only_then() {
    Lab::enter(|_| {
        firewall::restore(Variant::Nft, Family::V4, "*nat\n-A OUTPUT -j RETURN\nCOMMIT\n");
        let before = nft_generation();
        let _ = firewall::save(Variant::Nft, Family::V4);
        assert_eq!(nft_generation(), before);
        firewall::iptables(Variant::Nft, Family::V4, "-t nat -D OUTPUT -j RETURN").succeeds();
        assert_ne!(nft_generation(), before);
    });
}

#[test]
fn saves_are_read_with_their_quotes() {
    let text = concat!(
        "*nat\n:OUTPUT ACCEPT [0:0]\n[1:2] -A OUTPUT -m comment --comment \"a \\\"b\\\" \\\\ c\" -j RETURN\n",
        "-A OUTPUT -m comment --comment \"kuma/mesh/transparent/proxyx\" -j RETURN\n",
        "-A OUTPUT -m comment --comment kuma/mesh/transparent/proxy -j RETURN\nCOMMIT\n"
    );
    let rules = Ruleset::parse(text);
    let rules: Vec<_> = rules.rules().collect();
    assert_eq!(rules[0].comment().as_deref(), Some("a \"b\" \\ c"));
    assert_eq!(rules[0].counters, "[1:2]");
    assert_eq!(rules.iter().map(|rule| rule.is_tagged()).collect::<Vec<_>>(), [false, false, true]);
}
