//! The rules are in a table of our own, which no program of iptables knows.

use super::verify;
use crate::support::firewall;
use crate::support::{Lab, command};

/// Installs it, with further flags.
fn install(lab: &Lab, flags: &[&str]) {
    let program = lab.program().args(["install", "--backend", "nftables", "--kuma-dp-user", "kuma-dp"]);
    program.args(flags).run().succeeds();
}

/// The handle of the first rule of a chain that holds a text.
fn handle(chain: &str, text: &str) -> String {
    let listed = command::must("nft", &["-a", "list", "chain", "inet", "kuma_mesh", chain]);
    let rule = listed.lines().find(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}: {listed}"));
    rule.rsplit_once("# handle ").expect("a handle").1.to_owned()
}

/// Takes away the first rule of a chain that holds a text.
pub fn delete(chain: &str, text: &str) {
    firewall::nft(&format!("delete rule inet kuma_mesh {chain} handle {}", handle(chain, text)));
}

#[test]
fn what_is_missing_is_named() {
    Lab::enter(|lab| {
        install(lab, &["--redirect-dns"]);
        delete("output", "jump outbound");
        let said = verify(lab, &[]);
        said.fails(&["ipv4 outbound", "ipv4 self", "ipv6 outbound", "ipv6 self"]);
        said.because("cause", "rules are missing: 'output: ");
        said.because("cause", "jump outbound'");
        said.because("next", "tproxy install --kuma-dp-user kuma-dp");
    });
}

/// One address less in a list of the DNS servers.
#[test]
fn what_is_missing_from_a_list_is_named() {
    Lab::enter(|lab| {
        install(lab, &["--redirect-dns"]);
        firewall::nft("delete element inet kuma_mesh resolvers_ipv4 { 10.96.0.10 }");
        let said = verify(lab, &[]);
        said.fails(&["ipv4 dns"]);
        said.because("cause", "no rule knows of the DNS server 10.96.0.10");
    });
}

#[test]
fn a_flushed_table_is_none() {
    Lab::enter(|lab| {
        install(lab, &[]);
        firewall::nft("flush table inet kuma_mesh");
        let said = verify(lab, &[]);
        said.because("cause", "no redirection is installed for IPv4 here");
        said.because("next", "tproxy install --kuma-dp-user kuma-dp");
    });
}

#[test]
fn a_rule_of_somebody_else_is_named() {
    Lab::enter(|lab| {
        install(lab, &[]);
        firewall::nft("insert rule inet kuma_mesh outbound meta nfproto ipv4 meta skuid 65534 accept");
        let said = verify(lab, &[]);
        said.fails(&["ipv4 outbound"]);
        said.because("cause", "foreign rules are in the redirection's chains: 'outbound: ");
    });
}

/// A firewall of nftables has no `iptables-save` to look into.
#[test]
fn a_firewall_is_looked_for_with_nft() {
    Lab::enter(|lab| {
        install(lab, &[]);
        firewall::nft(
            "add table inet f; add chain inet f c { type filter hook input priority 0; }; add rule inet f c meta nfproto ipv6 iifname != lo tcp dport 15006 ct mark 0 drop",
        );
        let said = verify(lab, &[]);
        said.fails(&["ipv6 inbound"]);
        // What is not evaluated is not blamed.
        said.because("cause", "a firewall is in the way");
        said.because("next", "nft list ruleset");
    });
}
