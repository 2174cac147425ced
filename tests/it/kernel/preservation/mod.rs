//! Nothing of anybody else changes: not a rule, not its place, not its counters, not its handle.

mod shapes;
mod writer;

use crate::support::backend::own_table;
use crate::support::command::must;
use crate::support::lab::{each_backend, each_iptables_variant};
use crate::support::snapshot::Snapshot;
use crate::support::{Backend, Family, Lab, Variant, firewall};

/// What somebody else has on the machine.
struct Shape {
    /// For `iptables-restore --counters`.
    v4: &'static str,
    /// For `ip6tables-restore --counters`.
    v6: &'static str,
    /// For `nft -f`, whatever the backend.
    native: &'static str,
}

/// Puts it on the machine by these variants.
fn put(variants: &[Variant], shape: &Shape) {
    for &variant in variants {
        for (family, rules) in [(Family::V4, shape.v4), (Family::V6, shape.v6)] {
            if !rules.is_empty() {
                firewall::restore(variant, family, rules);
            }
        }
    }
    if !shape.native.is_empty() {
        firewall::nft(shape.native);
    }
}

fn survives(lab: &Lab, backend: Backend, shape: &Shape) {
    lab.silence();
    // A table of its own stands beside either.
    match backend {
        Backend::Iptables(variant) => put(&[variant], shape),
        Backend::Nftables => put(&Variant::BOTH, shape),
    }
    let before = Snapshot::take();
    let steps: [&[&str]; 4] = [
        &["--redirect-dns"],
        &["--redirect-all-dns-traffic", "--drop-invalid-packets", "--exclude-outbound-ports", "1,2,3"],
        &["--redirect-outbound-insert-instead-of-append", "--vnet", "br+:172.18.0.0/16"],
        &["--ip-family-mode", "ipv4"],
    ];
    for flags in steps {
        lab.install(backend, flags).succeeds();
        let now = Snapshot::take();
        assert_eq!(
            jumps_to_outbound(backend),
            if flags.contains(&"ipv4") { [1, 0] } else { [1, 1] },
            "{flags:?}"
        );
        now.assert_foreign_unchanged_since(&before);
    }
    lab.uninstall(backend, &[]).succeeds();
    Snapshot::take().assert_unchanged_since(&before);
}

// There and back, between the programs of iptables and the native table.
each_iptables_variant! {
    fn moves_between_backends_leave_everything_alone(lab, variant) {
        lab.silence();
        for shape in [&shapes::DOCKER, &shapes::MENTIONS, &shapes::NATIVE] {
            put(&[variant], shape);
        }
        let before = Snapshot::take();
        let iptables = ["--redirect-dns", "--backend", "iptables"];
        for _ in 0..2 {
            lab.install(variant, &iptables).succeeds();
            Snapshot::take().assert_foreign_unchanged_since(&before);
            lab.install(Backend::Nftables, &["--redirect-all-dns-traffic"]).succeeds();
            assert_eq!(Backend::installed(), [Backend::Nftables]);
            Snapshot::take().assert_foreign_unchanged_since(&before);
        }
        lab.install(variant, &iptables).succeeds();
        assert_eq!(Backend::installed(), [variant.into()]);
        lab.uninstall(Backend::Nftables, &[]).succeeds();
        Snapshot::take().assert_unchanged_since(&before);
    }
}

/// How many rules lead to our outbound chain, by family; asked of the kernel, because save tools leave out tables
/// that hold what they have no words for.
fn jumps_to_outbound(backend: Backend) -> [usize; 2] {
    if backend == Backend::Nftables {
        let table = own_table().unwrap_or_default();
        let jumps = table.matches("jump outbound ").count();
        return Family::BOTH.map(|family| jumps * usize::from(backend.has_ours(family)));
    }
    Family::BOTH.map(|family| {
        let legacy = firewall::rules(Variant::Legacy, family);
        let legacy = legacy.rules().filter(|rule| rule.text.ends_with("-j KUMA_MESH_OUTBOUND")).count();
        let native = must("nft", &["-j", "list", "ruleset", family.nft()]);
        legacy + native.matches("{\"jump\": {\"target\": \"KUMA_MESH_OUTBOUND\"}}").count()
    })
}

macro_rules! shapes_survive {
    ($($shape:ident as $name:ident,)+) => {
        each_backend! {$(
            fn $name(lab, backend) {
                survives(lab, backend, &shapes::$shape);
            }
        )+}
    };
}

shapes_survive! {
    DOCKER as docker,
    KUBE_PROXY as kube_proxy,
    UFW as ufw,
    FAIL2BAN as fail2ban,
    FIREWALLD as firewalld,
    FIREWALLD_NATIVE as firewalld_in_its_own_tables,
    LIBVIRT as libvirt,
    NETAVARK as netavark,
    NATIVE as native_sets_in_shared_tables,
    UNPRINTABLE as native_rules_that_iptables_cannot_print,
    ISTIO as istio_leftovers,
    LINKERD as linkerd_leftovers,
    CALICO as calico,
    NAMESAKES as chains_with_names_like_ours,
    MENTIONS as words_like_ours,
    QUOTES as comments_with_quotes,
    FILTER as filter_and_security,
}

#[test]
fn a_chain_of_ours_to_be_that_cannot_be_read_stops_a_run_that_needs_it() {
    Lab::enter(|lab| {
        firewall::nft(
            "table ip nat {
                chain OUTPUT {
                    type nat hook output priority -100; policy accept;
                    tcp dport 81 redirect to :80
                }
            }",
        );
        let before = Snapshot::take();
        let named = ["--backend", "iptables"];
        lab.install(Variant::Nft, &named).exits(3).says("the chain OUTPUT of the nftables table ip nat");
        lab.uninstall(Variant::Nft, &named).exits(3);
        Snapshot::take().assert_unchanged_since(&before);
    });
}
