//! Hosts with routing rules and settings of their own, beside a running sidecar: nothing leaves, and what is in order
//! is found to be.

use super::verify;
use crate::support::capture::Capture;
use crate::support::command;
use crate::support::firewall::{self, Family};
use crate::support::lab::each_backend;
use crate::support::mesh::Mesh;

/// Another table that leads everything to the neighbour.
fn other_table() {
    command::must("ip", &["route", "add", "default", "via", "10.77.0.2", "table", "100"]);
    command::must("ip", &["-6", "route", "add", "default", "via", "fd77::2", "table", "100"]);
}

fn rule(args: &[&str]) {
    for family in ["-4", "-6"] {
        command::must("ip", &[&[family, "rule", "add"], args, &["lookup", "100", "pref", "5"]].concat());
    }
}

each_backend! {
    /// The answers to what came from outside are the sidecar's, and go where its packets go.
    fn a_rule_for_everybody_or_for_the_sidecar(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let _sidecar = [Mesh::new(lab, Family::V4), Mesh::new(lab, Family::V6)];
        other_table();
        rule(&["from", "all"]);
        rule(&["uidrange", "5678-5678"]);
        let capture = Capture::begin(lab);
        verify(lab, &[]).all_pass();
        capture.assert_nothing();
    }

    /// A rule of the firewall sends packets another way without naming one.
    fn a_rule_for_marked_packets(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let _sidecar = [Mesh::new(lab, Family::V4), Mesh::new(lab, Family::V6)];
        other_table();
        rule(&["fwmark", "7"]);
        firewall::nft("table inet theirs { chain o { type route hook output priority 10; meta l4proto tcp meta mark set 7; }; }");
        let capture = Capture::begin(lab);
        verify(lab, &[]).all_pass();
        capture.assert_nothing();
    }

    /// Where rules come before everything, nobody can tell where marked packets go, so none are sent.
    fn rules_before_local_addresses(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let _sidecar = [Mesh::new(lab, Family::V4), Mesh::new(lab, Family::V6)];
        other_table();
        rule(&["fwmark", "7"]);
        for family in ["-4", "-6"] {
            command::must("ip", &[family, "rule", "add", "from", "all", "lookup", "local", "pref", "9"]);
            command::must("ip", &[family, "rule", "del", "pref", "0"]);
        }
        let capture = Capture::begin(lab);
        let said = verify(lab, &[]);
        let untested = said.with_status("not-tested");
        assert!(untested.contains(&"ipv4 inbound".to_owned()) && untested.contains(&"ipv6 outbound".to_owned()), "{untested:?}");
        assert_eq!(said.with_status("fail").len(), 0, "{:#}", said.json);
        capture.assert_nothing();
    }

    /// Interfaces get IPv6 only where somebody switches it on, as the host's own has it.
    fn ipv6_is_off_for_new_interfaces(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("off");
        verify(lab, &[]).all_pass();
        lab.uninstall(backend, &[]).succeeds();
        let said = verify(lab, &["--kuma-dp-user", "kuma-dp"]);
        assert!(said.with_status("fail").contains(&"ipv6 outbound".to_owned()), "{:#}", said.json);
    }
}
