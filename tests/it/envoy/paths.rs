//! Single requests: which way they take, and what everybody on it sees.

use std::net::SocketAddr;

use super::curl;
use super::evidence::Way;
use super::server::{Seen, Server, seen};
use super::sidecar::Sidecar;
use crate::support::lab::each_stack;
use crate::support::mesh::APP_PORT;
use crate::support::{APP, Family, Lab, SIDECAR, as_user};

/// A user of the machine asks for the first page.
fn visit(uid: u32, to: SocketAddr) -> Seen {
    seen(&curl(to, "/").user(uid).run().succeeds().stdout)
}

/// The neighbour does.
fn visit_from_outside(lab: &Lab, to: SocketAddr) -> Seen {
    lab.peer().run(move || seen(&curl(to, "/").run().succeeds().stdout))
}

fn app(family: Family) -> Server {
    as_user(APP, move || Server::start("app", family.any(), APP_PORT))
}

fn world(lab: &Lab, family: Family, port: u16) -> Server {
    lab.peer().run(move || Server::start("world", family.any(), port))
}

each_stack! {
    fn an_applications_request_goes_out_through_envoy(lab, backend, family) {
        let Some(sidecar) = Sidecar::start(lab, family.resolver()) else { return };
        lab.install(backend, &[]).succeeds();
        let (_world, _other) = (world(lab, family, 80), world(lab, family, 8443));
        for (count, port) in [80, 8443].into_iter().enumerate() {
            let to = SocketAddr::new(family.outside(), port);
            let (name, at, from) = visit(APP, to);
            assert_eq!((name.as_str(), at, from.ip()), ("world", to, family.host()));
            sidecar.at_rest().assert_only(&[(Way::Out, family, count as u64 + 1)]);
        }
        let log = sidecar.stop();
        assert_eq!(log.len(), 2, "{log:?}");
        for (entry, port) in log.iter().zip([80, 8443]) {
            entry.assert_went(Way::Out.name(family), SocketAddr::new(family.outside(), port));
            assert_eq!(entry.from.ip(), family.host());
        }
    }

    fn a_strangers_request_comes_in_through_envoy(lab, backend, family) {
        let Some(sidecar) = Sidecar::start(lab, family.resolver()) else { return };
        lab.install(backend, &[]).succeeds();
        let _app = app(family);
        let to = SocketAddr::new(family.host(), APP_PORT);
        let (name, at, from) = visit_from_outside(lab, to);
        assert_eq!((name.as_str(), at, from.ip()), ("app", to, family.passthrough()));
        sidecar.at_rest().assert_only(&[(Way::In, family, 1)]);

        let log = sidecar.stop();
        assert_eq!(log.len(), 1, "{log:?}");
        log[0].assert_went(Way::In.name(family), to);
        assert_eq!((log[0].from.ip(), log[0].handed_from), (family.peer(), Some(from)));
    }

    /// From one sidecar to the other and back: nothing of it passes Envoy twice.
    fn what_the_sidecar_sends_does_not_come_round(lab, backend, family) {
        let Some(sidecar) = Sidecar::start(lab, family.resolver()) else { return };
        lab.install(backend, &["--redirect-all-dns-traffic"]).succeeds();
        let (_world, _app) = (world(lab, family, 80), app(family));
        let outside = SocketAddr::new(family.outside(), 80);
        let (name, _, from) = visit(SIDECAR, outside);
        assert_eq!((name.as_str(), from.ip()), ("world", family.host()));
        let localhost = SocketAddr::new(family.localhost(), APP_PORT);
        assert_eq!(visit(SIDECAR, localhost).0, "app");
        sidecar.at_rest().assert_only(&[]);

        // To the machine's own address it is another sidecar's client, and comes in like a stranger.
        let host = SocketAddr::new(family.host(), APP_PORT);
        assert_eq!(visit(SIDECAR, host).2.ip(), family.passthrough());
        sidecar.at_rest().assert_only(&[(Way::In, family, 1)]);
        let log = sidecar.stop();
        assert_eq!(log.len(), 1, "{log:?}");
        log[0].assert_went(Way::In.name(family), host);
    }

    fn an_application_reaches_its_own_machine_without_envoy(lab, backend, family) {
        let Some(sidecar) = Sidecar::start(lab, family.resolver()) else { return };
        lab.install(backend, &[]).succeeds();
        let _app = app(family);
        for ip in [family.host(), family.localhost()] {
            let (name, at, from) = visit(APP, SocketAddr::new(ip, APP_PORT));
            assert_eq!((name.as_str(), at.ip(), from.ip()), ("app", ip, ip));
        }
        sidecar.at_rest().assert_only(&[]);
        assert_eq!(sidecar.stop(), []);
    }

    fn what_is_excluded_passes_by_and_after_uninstall_everything(lab, backend, family) {
        let Some(sidecar) = Sidecar::start(lab, family.resolver()) else { return };
        lab.install(backend, &["--exclude-outbound-ports", "8443", "--exclude-inbound-ports", "8080"]).succeeds();
        let (_world, _other, _app) = (world(lab, family, 80), world(lab, family, 8443), app(family));
        let host = SocketAddr::new(family.host(), APP_PORT);
        assert_eq!(visit(APP, SocketAddr::new(family.outside(), 8443)).0, "world");
        assert_eq!(visit_from_outside(lab, host).2.ip(), family.peer());
        sidecar.at_rest().assert_only(&[]);
        assert_eq!(visit(APP, SocketAddr::new(family.outside(), 80)).0, "world");
        sidecar.at_rest().assert_only(&[(Way::Out, family, 1)]);

        lab.uninstall(backend, &[]).succeeds();
        assert_eq!(visit(APP, SocketAddr::new(family.outside(), 80)).0, "world");
        assert_eq!(visit_from_outside(lab, host).2.ip(), family.peer());
        sidecar.at_rest().assert_only(&[(Way::Out, family, 1)]);
        assert_eq!(sidecar.stop().len(), 1);
    }
}
