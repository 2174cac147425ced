//! `tproxy verify` beside the real sidecar: what it says of a machine in order, and where one thing is wrong.

use std::net::{IpAddr, Ipv4Addr};

use super::dns::ask;
use super::evidence::Way;
use super::resolver::Resolver;
use super::sidecar::Sidecar;
use crate::support::capture::Capture;
use crate::support::lab::each_backend;
use crate::support::{APP, Backend, Family, Lab, command, docker, firewall};
use crate::verify::{Said, verify};

const FLAGS: &[&str] = &[
    "--redirect-dns",
    "--exclude-outbound-ports",
    "9000",
    "--exclude-inbound-ports",
    "22",
    "--exclude-outbound-ips",
    "10.5.0.0/16,fd05::/16",
];

/// Docker's server, and the number by which its answers are known.
const DOCKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
const NUMBER: u8 = 11;

/// Removes the rules of IPv4 with these words, and in a native table those of both families.
#[track_caller]
fn remove(backend: Backend, chain: &str, words: &str, native_chain: &str, native_words: &str) {
    match backend {
        Backend::Iptables(variant) => {
            let table = if chain.starts_with("raw ") { "raw" } else { "nat" };
            let saved = firewall::save(variant, Family::V4);
            let (_, rules) = saved.split_once(&format!("*{table}\n")).expect("the table");
            let rules = rules.split("COMMIT").next().unwrap_or_default();
            let begin = format!("] -A {} ", chain.trim_start_matches("raw "));
            let found: String = rules
                .lines()
                .filter(|line| line.contains(words))
                .filter_map(|line| Some(format!("-D {} {}\n", begin[5..].trim(), line.split_once(&begin)?.1)))
                .collect();
            assert!(!found.is_empty(), "{words}: {rules}");
            firewall::restore(variant, Family::V4, &format!("*{table}\n{found}COMMIT\n"));
        }
        Backend::Nftables => {
            let listed = command::must("nft", &["-a", "list", "chain", "inet", "kuma_mesh", native_chain]);
            let rules = listed.lines().filter(|line| line.contains(native_words));
            let handles = rules.filter_map(|line| Some(line.rsplit_once("# handle ")?.1));
            let script: Vec<String> = handles
                .map(|handle| format!("delete rule inet kuma_mesh {native_chain} handle {handle}\n"))
                .collect();
            assert!(!script.is_empty(), "{native_words}: {listed}");
            firewall::nft(&script.concat());
        }
    }
}

/// A container of Docker's, with its DNS server.
fn in_a_container(lab: &Lab, backend: Backend) -> Resolver {
    firewall::restore(backend.tools(), Family::V4, docker::RULES);
    lab.resolv_conf("nameserver 127.0.0.11\noptions ndots:0\n");
    Resolver::start(DOCKER, docker::UDP_PORT, NUMBER)
}

/// Verifies. Neither it nor Envoy, which passes its probes on, lets anything out.
#[track_caller]
fn verify_quietly(lab: &Lab, sidecar: &Sidecar) -> Said {
    let capture = Capture::begin(lab);
    let said = verify(lab, &[]);
    sidecar.at_rest();
    capture.assert_nothing();
    said
}

each_backend! {
    /// Envoy passes probes on, to where they were sent and no farther, and no connection stays.
    fn all_is_well(lab, backend) {
        let Some(sidecar) = Sidecar::start(lab, Family::V4.resolver()) else { return };
        lab.install(backend, FLAGS).succeeds();
        let capture = Capture::begin(lab);
        let said = verify(lab, &[]);
        said.all_pass();
        assert_eq!(said.method(), "counters");
        for id in ["inbound", "sidecar", "self", "dns", "dns-sidecar", "passthrough"] {
            assert_eq!(said.count(id), 2, "{id}, once for each family");
        }
        assert_eq!(said.count("outbound"), 4, "from the probe's own address and from the host's, for each family");
        assert_eq!((said.count("localhost"), said.count("exclusion")), (5, 9));
        let stats = sidecar.at_rest();
        for family in Family::BOTH {
            for way in Way::BOTH {
                let total = stats.get(&format!("listener.{}.downstream_cx_total", way.name(family)));
                assert!(total > 0, "Envoy has seen no probe {} of {family:?}", way.name(family));
            }
        }
        capture.assert_nothing();
    }

    fn the_jump_is_gone(lab, backend) {
        let Some(sidecar) = Sidecar::start(lab, Family::V4.resolver()) else { return };
        lab.install(backend, FLAGS).succeeds();
        remove(backend, "OUTPUT", "-j KUMA_MESH_OUTBOUND", "output", "jump outbound");
        let said = verify_quietly(lab, &sidecar);
        let four = ["ipv4 outbound", "ipv4 self"];
        match backend {
            Backend::Iptables(_) => said.fails(&four),
            Backend::Nftables => said.fails(&[four[0], four[1], "ipv6 outbound", "ipv6 self"]),
        }
        assert_eq!(said.method(), "counters");
        said.because("happened", "went straight to where it was sent");
        said.because("cause", "rules are missing: '");
        said.because("next", "tproxy install --kuma-dp-user kuma-dp");
    }

    /// The rules are right, and so is IPv4.
    fn envoy_does_not_listen_for_ipv6(lab, backend) {
        let Some(_sidecar) = Sidecar::start_without(lab, "inbound_v6", Family::V4.resolver()) else { return };
        lab.install(backend, FLAGS).succeeds();
        let said = verify(lab, &[]);
        said.fails(&["ipv6 inbound", "ipv6 self"]);
        said.because("happened", "nobody listens on port 15006 for IPv6");
        said.because("cause", "the sidecar is not up, or listens on another port, or not for this family");
        said.because("next", "ss -lnptu 'sport = :15006'");
    }

    fn envoy_does_not_answer_questions_over_ipv6(lab, backend) {
        let Some(_sidecar) = Sidecar::start_without(lab, "dns_v6", Family::V4.resolver()) else { return };
        lab.install(backend, FLAGS).succeeds();
        let said = verify(lab, &[]);
        said.fails(&["ipv6 dns"]);
        said.because("happened", "is redirected to port 15053, where nobody listens for IPv6");
    }

    /// Envoy's own question from an app's port would come back to Envoy.
    fn zones_are_gone(lab, backend) {
        let Some(sidecar) = Sidecar::start(lab, Family::V4.resolver()) else { return };
        lab.install(backend, FLAGS).succeeds();
        for (chain, native) in [("raw OUTPUT", "zones_output"), ("raw PREROUTING", "zones_prerouting")] {
            remove(backend, chain, "--zone", native, "ct zone set");
        }
        let said = verify_quietly(lab, &sidecar);
        match backend {
            Backend::Iptables(_) => said.fails(&["ipv4 dns-sidecar"]),
            Backend::Nftables => said.fails(&["ipv4 dns-sidecar", "ipv6 dns-sidecar"]),
        }
        said.because("happened", "was redirected to the DNS port 15053");
        said.because("next", "tproxy install --kuma-dp-user kuma-dp");
    }

    /// Its questions to Docker's server come from Envoy, and Envoy's own reach it.
    fn in_a_container_all_is_well(lab, backend) {
        let _embedded = in_a_container(lab, backend);
        let Some(sidecar) = Sidecar::start(lab, DOCKER) else { return };
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let said = verify_quietly(lab, &sidecar);
        assert_eq!((said.with_status("fail").len(), said.run.code), (0, Some(0)), "{:#}", said.json);
        // Docker's server has no IPv6 address, and answers no message without a question.
        assert_eq!(said.with_status("not-tested"), ["ipv4 dns-sidecar", "ipv6 dns"]);
        assert_eq!((said.count("dns"), said.count("dns-sidecar")), (2, 1));
        assert_eq!(ask(APP, DOCKER, "svc.mesh", "A"), "240.0.0.7");
    }

    fn dockers_rules_come_first(lab, backend) {
        let _embedded = in_a_container(lab, backend);
        let Some(sidecar) = Sidecar::start(lab, DOCKER) else { return };
        lab.install(backend, &["--redirect-dns"]).succeeds();
        match backend {
            Backend::Iptables(variant) => {
                for line in ["-t nat -D OUTPUT -d 127.0.0.11 -j DOCKER_OUTPUT", "-t nat -I OUTPUT -d 127.0.0.11 -j DOCKER_OUTPUT"] {
                    firewall::iptables(variant, Family::V4, line).succeeds();
                }
            }
            Backend::Nftables => firewall::nft(&format!(
                "table ip theirs {{\nchain first {{\ntype nat hook output priority -110\n\
                 ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:{}\n}}\n}}\n",
                docker::UDP_PORT
            )),
        }
        let said = verify_quietly(lab, &sidecar);
        said.fails(&["ipv4 dns"]);
        said.because("happened", &format!("was redirected to port {}", docker::UDP_PORT));
        said.because("cause", "foreign rules stand before them");
        said.because("next", "tproxy status");
    }

    /// Envoy would ask itself.
    fn envoys_question_to_docker_comes_back(lab, backend) {
        let _embedded = in_a_container(lab, backend);
        let Some(sidecar) = Sidecar::start(lab, DOCKER) else { return };
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let questions = "-m udp --dport 53 -m owner --uid-owner 5678";
        remove(backend, "OUTPUT", questions, "output_first", "The sidecar's own DNS questions");
        let said = verify_quietly(lab, &sidecar);
        said.fails(&["ipv4 dns-sidecar"]);
        said.because("happened", "was redirected to the DNS port 15053");
        said.because("cause", "rules are missing: '");
    }
}
