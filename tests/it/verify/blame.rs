//! What no firewall has done is not said to be one's: routes that are gone or come later, and programs whose sockets are
//! tied to an interface.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};

use super::{Said, verify};
use crate::support::command::{Program, must};
use crate::support::lab::each_backend;
use crate::support::mesh::Mesh;
use crate::support::{Backend, Family, Lab};

const FIREWALL: &str = "a firewall is in the way";

/// The causes of what failed, of a family.
fn causes(said: &Said, family: &str) -> Vec<String> {
    let checks = said.json["checks"].as_array().expect("a list").iter();
    let failed = checks.filter(|check| check["family"] == family && check["status"] == "fail");
    failed.map(|check| check["cause"].as_str().unwrap_or_default().to_owned()).collect()
}

fn installed(lab: &Lab, backend: Backend) -> [Mesh; 2] {
    lab.install(backend, &["--redirect-dns"]).succeeds();
    Family::BOTH.map(|family| Mesh::new(lab, family))
}

/// A connection by this interface alone, and who accepted it.
fn tied(lab: &Lab, to: IpAddr, interface: &str) -> (TcpStream, TcpListener) {
    let to = SocketAddr::new(to, 7000);
    let listener = lab.peer().run(move || TcpListener::bind(to).expect("a port of the neighbour's"));
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    setsockopt(&fd, sockopt::BindToDevice, &interface.into()).expect("root may");
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).expect("the neighbour listens");
    (TcpStream::from(fd), listener)
}

each_backend! {
    fn a_missing_route_is_named(lab, backend) {
        let _sidecar = installed(lab, backend);
        for (family, net, address, command) in [
            ("ipv4", "127.0.0.0/8", "127.0.0.1", "ip route show table local"),
            ("ipv6", "::1", "::1", "ip -6 route show table local"),
        ] {
            let ip = if family == "ipv4" { "-4" } else { "-6" };
            for to in [net, address] {
                // Of IPv6 they are one.
                let _ = Program::new("ip").args([ip, "route", "del", "local", to, "dev", "lo", "table", "local"]).run();
            }
            let said = verify(lab, &[]);
            let causes = causes(&said, family);
            assert!(causes.iter().any(|cause| cause.contains("no route leads to")), "{:#}", said.json);
            assert!(!causes.iter().any(|cause| cause.contains(FIREWALL)), "{causes:#?}");
            assert!(said.json.to_string().contains(command), "{:#}", said.json);
        }
    }

    fn routing_rules_before_local_addresses_are_named(lab, backend) {
        let _sidecar = installed(lab, backend);
        for (ip, family, gateway) in [("-4", "ipv4", "10.77.0.2"), ("-6", "ipv6", "fd77::2")] {
            must("ip", &[ip, "route", "add", "default", "via", gateway, "table", "100"]);
            must("ip", &[ip, "rule", "add", "from", "all", "lookup", "local", "pref", "9"]);
            must("ip", &[ip, "rule", "add", "from", "all", "lookup", "100", "pref", "5"]);
            must("ip", &[ip, "rule", "del", "pref", "0"]);
            let said = verify(lab, &[]);
            let untested = said.with_status("not-tested").iter().any(|check| check.starts_with(family));
            let causes = causes(&said, family);
            assert!(untested || !causes.is_empty(), "{:#}", said.json);
            assert!(!causes.iter().any(|cause| cause.contains(FIREWALL)), "{causes:#?}");
        }
    }

    fn connections_that_are_tied_to_an_interface_are_named(lab, backend) {
        let open = Family::BOTH.map(|family| tied(lab, if family == Family::V4 { "10.77.0.2" } else { "fd77::2" }.parse().expect("an address"), "eth0"));
        let _sidecar = installed(lab, backend);
        let said = verify(lab, &[]);
        let words = "ties its connections to eth0 (SO_BINDTODEVICE)";
        assert!(said.run.stderr.contains(words), "{}", said.run);
        assert!(said.run.stderr.contains("--exclude-outbound-ports-for-uids tcp:*:0"), "{}", said.run);
        drop(open);
        assert!(!verify(lab, &[]).run.stderr.contains("SO_BINDTODEVICE"));
    }
}
