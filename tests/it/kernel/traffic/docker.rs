//! Docker's embedded DNS server: 127.0.0.11:53 leads to some other port of the same address, by rules in the
//! container's own nat table.

use std::net::IpAddr;

use crate::support::lab::each_variant;
use crate::support::listener::Listener;
use crate::support::mesh::Mesh;
use crate::support::{APP, Family, Lab, SIDECAR, Variant, firewall};

/// As dockerd sets it up in containers of networks that users made.
pub const RULES: &str = "*nat
:DOCKER_OUTPUT - [0:0]
:DOCKER_POSTROUTING - [0:0]
-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT
-A POSTROUTING -d 127.0.0.11/32 -j DOCKER_POSTROUTING
-A DOCKER_OUTPUT -d 127.0.0.11/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination 127.0.0.11:40053
-A DOCKER_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:40000
-A DOCKER_POSTROUTING -s 127.0.0.11/32 -p tcp -m tcp --sport 40053 -j SNAT --to-source :53
-A DOCKER_POSTROUTING -s 127.0.0.11/32 -p udp -m udp --sport 40000 -j SNAT --to-source :53
COMMIT
";

const RESOLVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 11));

fn questions_and_answers(lab: &Lab, variant: Variant, mode: &str) {
    firewall::restore(variant, Family::V4, RULES);
    lab.resolv_conf("nameserver 127.0.0.11\noptions ndots:0\n");
    let docker = Listener::udp("docker", RESOLVER, 40000);
    let mesh = Mesh::new(lab, Family::V4);
    assert_eq!(mesh.ask(APP, RESOLVER), "docker", "without us");
    let run = lab.install(variant, &[mode]).succeeds();
    for round in 0..3 {
        assert_eq!(mesh.ask(APP, RESOLVER), "dns", "round {round}, {run}");
        assert_eq!(mesh.ask(SIDECAR, RESOLVER), "docker", "round {round}, {run}");
    }
    assert_eq!(docker.served(), 4);
    // A second install finds the same host and has nothing to do.
    let before = crate::support::snapshot::Snapshot::take();
    lab.install(variant, &[mode]).succeeds();
    crate::support::snapshot::Snapshot::take().assert_unchanged_since(&before);
    lab.uninstall(variant, &[]).succeeds();
    assert_eq!(mesh.ask(APP, RESOLVER), "docker", "after us");
}

each_variant! {
    fn with_the_servers_of_resolv_conf(lab, variant) {
        questions_and_answers(lab, variant, "--redirect-dns");
    }

    fn with_every_question(lab, variant) {
        questions_and_answers(lab, variant, "--redirect-all-dns-traffic");
    }
}
