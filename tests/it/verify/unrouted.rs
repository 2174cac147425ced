//! DNS servers to which this host has no route or no source address: the application's question ends with an error before
//! any rule sees it, so nothing of it passes.

use super::{Said, verify};
use crate::support::client::Asker;
use crate::support::firewall::Family;
use crate::support::lab::{each_backend, each_stack};
use crate::support::mesh::Mesh;
use crate::support::{APP, as_user, command, network};

/// Whether an application's socket may send to the family's server.
fn application_can_ask(family: Family) -> bool {
    as_user(APP, move || Asker::to((family.resolver(), 53).into(), None).is_ok())
}

fn name(family: Family) -> &'static str {
    if family == Family::V4 { "ipv4" } else { "ipv6" }
}

fn only_server(lab: &crate::support::Lab, family: Family) {
    lab.resolv_conf(&format!("nameserver {}\n", family.resolver()));
}

/// Both checks of the server fail, and name the route.
#[track_caller]
fn says_that_nobody_can_ask(said: &Said, family: Family) {
    let family = name(family);
    said.fails(&[&format!("{family} dns"), &format!("{family} dns-sidecar")]);
    said.because("happened", "cannot send to");
    said.because("cause", "no route");
    said.because("next", "ip route get");
}

each_stack! {
    fn a_server_that_no_route_leads_to(lab, backend, family) {
        only_server(lab, family);
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let six = if family == Family::V4 { "-4" } else { "-6" };
        let to = family.resolver().to_string();
        for kind in ["unreachable", "blackhole", "prohibit"] {
            command::must("ip", &[six, "route", "add", kind, &to]);
            assert!(!application_can_ask(family), "{kind}");
            says_that_nobody_can_ask(&verify(lab, &[]), family);
            command::must("ip", &[six, "route", "del", kind, &to]);
        }
        assert!(application_can_ask(family));
        assert_eq!(verify(lab, &[]).with_status("fail"), [""; 0]);
        command::must("ip", &[six, "route", "del", "default"]);
        assert!(!application_can_ask(family));
        let said = verify(lab, &[]);
        says_that_nobody_can_ask(&said, family);
        let untested = said.with_status("not-tested");
        assert!(untested.contains(&format!("{} outbound", name(family))), "{untested:?}");
    }

    /// The network of the server is that of an interface which is down.
    fn a_server_behind_an_interface_that_is_down(lab, backend, family) {
        let (addr, server) = if family == Family::V4 { ("10.44.0.1/24", "10.44.0.53") } else { ("fd44::1/64", "fd44::53") };
        network::ip("link add back0 type veth peer name back1\nlink set back0 up\nlink set back1 up\n");
        let at_once: &[&str] = if family == Family::V4 { &[] } else { &["nodad"] };
        command::must("ip", &[&["addr", "add", addr, "dev", "back0"], at_once].concat());
        let six = if family == Family::V4 { "-4" } else { "-6" };
        // Else it would be asked by way of the neighbour.
        command::must("ip", &[six, "route", "del", "default"]);
        lab.resolv_conf(&format!("nameserver {server}\n"));
        lab.install(backend, &["--redirect-dns"]).succeeds();
        assert_eq!(verify(lab, &[]).with_status("fail"), [""; 0]);
        command::must("ip", &["link", "set", "back0", "down"]);
        says_that_nobody_can_ask(&verify(lab, &[]), family);
    }

    /// Routing rules for users: those of the application that is tried, and of others.
    fn users_who_are_led_nowhere(lab, backend, family) {
        only_server(lab, family);
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let six = if family == Family::V4 { "-4" } else { "-6" };
        let app = format!("{APP}-{APP}");
        command::must("ip", &[six, "rule", "add", "uidrange", &app, "prohibit", "pref", "5"]);
        assert!(!application_can_ask(family));
        let said = verify(lab, &[]);
        let happened = |id: &str| -> Vec<String> {
            let all = said.all(name(family), id).into_iter().filter(|check| check["status"] == "not-tested");
            all.map(|check| format!("{} {}", check["target"], check["happened"])).collect()
        };
        for id in ["dns", "outbound"] {
            let said = happened(id);
            assert!(said.len() == 1 && said[0].contains(&format!("UID {APP} ")), "{id}: {said:?}");
        }
        assert_eq!(said.run.code, Some(0), "{:#}", said.json);
        // Everybody but root and the sidecar: that is the one who is tried.
        command::must("ip", &[six, "rule", "add", "uidrange", "5679-4294967294", "prohibit", "pref", "6"]);
        let said = verify(lab, &[]);
        let failed = said.with_status("fail");
        assert!(failed.contains(&format!("{} dns", name(family))), "{failed:?}");
    }
}

each_backend! {
    /// The C library goes on to the next server.
    fn one_of_two_servers(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        command::must("ip", &["-6", "route", "add", "unreachable", "fd00:96::10"]);
        let said = verify(lab, &[]);
        assert_eq!(said.run.code, Some(0), "{:#}", said.json);
        assert_eq!(said.with_status("not-tested"), ["ipv6 dns", "ipv6 dns-sidecar"]);
        let happened = said.one("ipv6", "dns")["happened"].to_string();
        assert!(happened.contains("fd00:96::10") && happened.contains("No route to host"), "{happened}");
    }

    /// Where every question is redirected the servers of resolv.conf still have to be asked first.
    fn every_question_is_redirected(lab, backend) {
        lab.install(backend, &["--redirect-all-dns-traffic"]).succeeds();
        for route in [["-4", "10.96.0.10"], ["-6", "fd00:96::10"]] {
            command::must("ip", &[route[0], "route", "add", "unreachable", route[1]]);
        }
        verify(lab, &[]).fails(&["ipv4 dns", "ipv4 dns-sidecar", "ipv6 dns", "ipv6 dns-sidecar"]);
    }

    /// A server at a link-local address is asked by its link, or not at all.
    fn a_link_of_the_server(lab, backend) {
        for (zone, code) in [("%eth0", 0), ("%back0", 12), ("%no", 12), ("", 12)] {
            command::must("sh", &["-c", "ip link add back0 type veth peer name back1 2>/dev/null || true"]);
            lab.resolv_conf(&format!("nameserver fe80::1{zone}\n"));
            lab.install(backend, &["--redirect-dns"]).succeeds();
            let said = verify(lab, &[]);
            assert_eq!(said.run.code, Some(code), "{zone}: {:#}", said.json);
            if code == 12 {
                said.fails(&["ipv6 dns", "ipv6 dns-sidecar"]);
            }
        }
    }
}

each_backend! {
    /// It would be asked from 0.0.0.0, to which no answer comes. IPv6 takes an address of the loopback interface.
    fn a_host_without_a_source_address(lab, backend) {
        only_server(lab, Family::V4);
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let mesh = Mesh::new(lab, Family::V4);
        assert_eq!(mesh.ask(APP, Family::V4.resolver()), "dns");
        command::must("ip", &["addr", "flush", "dev", "eth0"]);
        command::must("ip", &["route", "replace", "default", "dev", "eth0"]);
        assert!(mesh.ask(APP, Family::V4.resolver()).starts_with("nobody"));
        let said = verify(lab, &[]);
        let failed = said.with_status("fail");
        assert!(failed.contains(&"ipv4 dns".to_owned()), "{failed:?}");
        assert_eq!(said.one("ipv4", "dns")["status"], "fail", "{:#}", said.json);
    }

    /// It is not installed where applications get no answer.
    fn an_installation_that_proves_itself(lab, backend) {
        lab.resolv_conf("nameserver 10.96.0.10\n");
        command::must("ip", &["route", "add", "unreachable", "10.96.0.10"]);
        lab.install(backend, &["--redirect-dns", "--verify"]).exits(1);
        let _ = lab.program().arg("status").run().exits(10);
    }
}
