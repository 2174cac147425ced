//! Envoy in a container: Docker's own DNS server at 127.0.0.11, by rules that Docker put there first.

use std::net::{IpAddr, Ipv4Addr};

use super::dns::{ask, assert_counted};
use super::resolver::{Resolver, address};
use super::sidecar::Sidecar;
use crate::support::lab::each_backend;
use crate::support::{APP, Backend, Family, Lab, SIDECAR, docker, firewall};

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// The number of Docker's server.
const NUMBER: u8 = 11;

fn names_of_the_mesh_and_of_docker(lab: &Lab, backend: Backend, mode: &str) {
    firewall::restore(backend.tools(), Family::V4, docker::RULES);
    lab.resolv_conf("nameserver 127.0.0.11\noptions ndots:0\n");
    let embedded = Resolver::start(SERVER, docker::UDP_PORT, NUMBER);
    let Some(sidecar) = Sidecar::start(lab, SERVER) else { return };
    let docker_says = address("A", NUMBER).to_string();
    assert_eq!(ask(APP, SERVER, "db.container", "A"), docker_says, "before install");
    embedded.asked();

    lab.install(backend, &[mode]).succeeds();
    for round in 1..=3 {
        assert_eq!(ask(APP, SERVER, "svc.mesh", "A"), "240.0.0.7", "round {round}");
        assert_eq!(embedded.asked(), []);
        // By way of Envoy, whose own question Docker's server gets.
        assert_eq!(ask(APP, SERVER, "db.container", "A"), docker_says, "round {round}");
        assert_eq!(ask(SIDECAR, SERVER, "db.container", "A"), docker_says, "round {round}");
        assert_eq!(embedded.asked().len(), 2);
        assert_counted(&sidecar, Family::V4, 2 * round, round, round);
    }

    lab.uninstall(backend, &[]).succeeds();
    assert_eq!(ask(APP, SERVER, "svc.mesh", "A"), docker_says, "after uninstall");
    assert_counted(&sidecar, Family::V4, 6, 3, 3);
}

each_backend! {
    fn with_the_servers_of_resolv_conf(lab, backend) {
        names_of_the_mesh_and_of_docker(lab, backend, "--redirect-dns");
    }

    fn with_every_question(lab, backend) {
        names_of_the_mesh_and_of_docker(lab, backend, "--redirect-all-dns-traffic");
    }
}
