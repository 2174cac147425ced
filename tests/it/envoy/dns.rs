//! Questions, asked by `dig` and answered by Envoy.

use std::net::{IpAddr, SocketAddr};

use super::evidence::Way;
use super::resolver::{Resolver, address};
use super::server::{Server, seen};
use super::sidecar::Sidecar;
use super::{curl, dig};
use crate::support::lab::each_stack;
use crate::support::{APP, Family, SIDECAR};

/// Numbers of the resolver that resolv.conf lists, and of the other one.
const LISTED: u8 = 80;
const OTHER: u8 = 81;

/// Where the mesh says that its service is; Envoy's configuration has these.
fn service(family: Family) -> IpAddr {
    match family {
        Family::V4 => "240.0.0.7".parse().expect("an address"),
        Family::V6 => "fd00:240::7".parse().expect("an address"),
    }
}

/// The kind of record that holds addresses of this family.
fn kind(family: Family) -> &'static str {
    match family {
        Family::V4 => "A",
        Family::V6 => "AAAA",
    }
}

/// What a user is told who asks this server.
#[track_caller]
pub fn ask(uid: u32, server: IpAddr, name: &str, kind: &str) -> String {
    dig(server, name, kind).user(uid).run().succeeds().stdout.trim().to_owned()
}

/// What Envoy's DNS counted, by listener: questions, those it answered itself, and those it asked about elsewhere.
#[track_caller]
pub fn assert_counted(sidecar: &Sidecar, family: Family, questions: u64, own: u64, elsewhere: u64) {
    let listener = match family {
        Family::V4 => "dns_filter.v4",
        Family::V6 => "dns_filter.v6",
    };
    // Envoy counts an answer when it has sent it, which may be later than that it arrives.
    let name = format!("{listener}.downstream_tx_responses");
    let stats = sidecar.wait_until("Envoy counts its answers", |stats| stats.get(&name) >= questions);
    let get = |name: &str| stats.get(&format!("{listener}.{name}"));
    assert_eq!(get("downstream_tx_responses"), questions);
    assert_eq!(get("downstream_rx_queries"), questions);
    assert_eq!(get("local_a_record_answers") + get("local_aaaa_record_answers"), own);
    assert_eq!(get("external_a_record_answers") + get("external_aaaa_record_answers"), elsewhere);
    assert_eq!(get("unanswered_queries"), 0);
}

each_stack! {
    fn questions_to_the_listed_servers(lab, backend, family) {
        let Some(sidecar) = Sidecar::start(lab, family.resolver()) else { return };
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let listed = lab.peer().run(move || Resolver::start(family.resolver(), 53, LISTED));
        let other = lab.peer().run(move || Resolver::start(family.other_resolver(), 53, OTHER));

        // Both kinds of records over either family.
        assert_eq!(ask(APP, family.resolver(), "svc.mesh", "A"), service(Family::V4).to_string());
        assert_eq!(ask(APP, family.resolver(), "svc.mesh", "AAAA"), service(Family::V6).to_string());
        assert_eq!(listed.asked(), []);
        assert_counted(&sidecar, family, 2, 2, 0);

        // Of other names the host's server is asked, by Envoy, whose question is not redirected.
        for kind in ["A", "AAAA"] {
            let told = ask(APP, family.resolver(), "world.example", kind);
            assert_eq!(told, address(kind, LISTED).to_string());
            assert_eq!(listed.asked(), [("world.example".to_owned(), family.host())]);
        }
        assert_counted(&sidecar, family, 4, 2, 2);

        // The sidecar's own questions, and those to servers that nobody listed, pass by.
        let told = ask(SIDECAR, family.resolver(), "svc.mesh", "A");
        assert_eq!(told, address("A", LISTED).to_string());
        assert_eq!(ask(APP, family.other_resolver(), "svc.mesh", "A"), address("A", OTHER).to_string());
        assert_eq!((listed.asked().len(), other.asked().len()), (1, 1));
        assert_counted(&sidecar, family, 4, 2, 2);
    }

    fn questions_to_anybody(lab, backend, family) {
        let Some(sidecar) = Sidecar::start(lab, family.resolver()) else { return };
        lab.install(backend, &["--redirect-all-dns-traffic"]).succeeds();
        let listed = lab.peer().run(move || Resolver::start(family.resolver(), 53, LISTED));
        let other = lab.peer().run(move || Resolver::start(family.other_resolver(), 53, OTHER));

        for server in [family.resolver(), family.other_resolver()] {
            assert_eq!(ask(APP, server, "svc.mesh", kind(family)), service(family).to_string());
            assert_eq!(ask(APP, server, "world.example", "A"), address("A", LISTED).to_string());
            assert_eq!(listed.asked(), [("world.example".to_owned(), family.host())]);
        }
        assert_eq!(other.asked(), []);
        assert_counted(&sidecar, family, 4, 2, 2);

        let told = ask(SIDECAR, family.other_resolver(), "svc.mesh", "A");
        assert_eq!(told, address("A", OTHER).to_string());
        assert_eq!(other.asked(), [("svc.mesh".to_owned(), family.host())]);
        assert_counted(&sidecar, family, 4, 2, 2);
    }

    /// The whole way of a mesh: a name, an address that exists for the mesh alone, and a connection to it.
    fn a_request_by_name(lab, backend, family) {
        let Some(sidecar) = Sidecar::start(lab, family.resolver()) else { return };
        lab.resolv_conf(&format!("nameserver {}\noptions attempts:1\n", family.resolver()));
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let resolver = lab.peer().run(move || Resolver::start(family.resolver(), 53, LISTED));
        lab.peer().ip(&match family {
            Family::V4 => format!("addr add {}/32 dev lo\n", service(family)),
            Family::V6 => format!("addr add {}/128 dev lo nodad\n", service(family)),
        });
        let _service = lab.peer().run(move || Server::start("service", service(family), 80));

        let only = match family {
            Family::V4 => "--ipv4",
            Family::V6 => "--ipv6",
        };
        let (name, at, from) = seen(&curl("svc.mesh", "/").arg(only).user(APP).run().succeeds().stdout);
        let to = SocketAddr::new(service(family), 80);
        assert_eq!((name.as_str(), at, from.ip()), ("service", to, family.host()));
        assert_eq!(resolver.asked(), [], "only the mesh knows this name");
        sidecar.at_rest().assert_only(&[(Way::Out, family, 1)]);
        let log = sidecar.stop();
        assert_eq!(log.len(), 1, "{log:?}");
        log[0].assert_went(Way::Out.name(family), to);
        assert_eq!(log[0].handed_from, Some(from));
    }
}
