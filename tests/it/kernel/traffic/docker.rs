//! In a container with Docker's embedded DNS server.

use std::net::IpAddr;

use crate::support::lab::each_backend;
use crate::support::listener::Listener;
use crate::support::mesh::Mesh;
use crate::support::{APP, Backend, Family, Lab, SIDECAR, docker, firewall};

const RESOLVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 11));

fn questions_and_answers(lab: &Lab, backend: Backend, mode: &str) {
    firewall::restore(backend.tools(), Family::V4, docker::RULES);
    lab.resolv_conf("nameserver 127.0.0.11\noptions ndots:0\n");
    let embedded = Listener::udp("docker", RESOLVER, docker::UDP_PORT);
    let mesh = Mesh::new(lab, Family::V4);
    assert_eq!(mesh.ask(APP, RESOLVER), "docker", "without us");
    let run = lab.install(backend, &[mode]).succeeds();
    for round in 0..3 {
        assert_eq!(mesh.ask(APP, RESOLVER), "dns", "round {round}, {run}");
        assert_eq!(mesh.ask(SIDECAR, RESOLVER), "docker", "round {round}, {run}");
    }
    assert_eq!(embedded.served(), 4);
    // A second install finds the same host and has nothing to do.
    let before = crate::support::snapshot::Snapshot::take();
    lab.install(backend, &[mode]).succeeds();
    crate::support::snapshot::Snapshot::take().assert_unchanged_since(&before);
    lab.uninstall(backend, &[]).succeeds();
    assert_eq!(mesh.ask(APP, RESOLVER), "docker", "after us");
}

each_backend! {
    fn with_the_servers_of_resolv_conf(lab, backend) {
        questions_and_answers(lab, backend, "--redirect-dns");
    }

    fn with_every_question(lab, backend) {
        questions_and_answers(lab, backend, "--redirect-all-dns-traffic");
    }
}
