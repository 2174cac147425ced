//! Connections that were there before an installation is changed are there afterwards, and never fell silent.

use std::net::SocketAddr;

use super::conversation::{Chatter, Conversation, all_talk};
use super::curl;
use super::evidence::{Stats, Way, assert_all_went};
use super::server::{Server, seen};
use super::sidecar::Sidecar;
use crate::support::lab::each_stack;
use crate::support::mesh::APP_PORT;
use crate::support::{APP, Backend, Family, as_user, firewall};

/// Connections each way.
const MANY: usize = 20;

/// One after the other, each different from the one before in what it redirects.
const CHANGES: [&[&str]; 4] = [
    &["--redirect-dns", "--exclude-outbound-ports", "7001", "--exclude-inbound-ports", "7002"],
    &["--redirect-all-dns-traffic", "--drop-invalid-packets"],
    &["--redirect-inbound-insert-instead-of-append", "--redirect-outbound-insert-instead-of-append"],
    // Even those that the connections would match, were they new.
    &["--exclude-outbound-ports", "80", "--exclude-inbound-ports", "8080", "--skip-dns-conntrack-zone-split"],
];

/// A rule of somebody else's that needs connections to be tracked, as most firewalls have one. The kernel tracks for
/// as long as a rule needs it, and redirects what it tracks: with our last rule gone and none of others', connections
/// that were redirected lose their way.
const TRACKS: &str = "-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT";

/// A rule of somebody else's for which addresses are translated. The kernel does so for as long as there is a chain of
/// that kind; those of iptables stay when they are empty, and the native table goes with all that is in it.
const TRANSLATES: &str = "-t nat -A POSTROUTING -j RETURN";

/// The same connections as ever, and none besides.
#[track_caller]
fn assert_still_the_same(stats: &Stats, family: Family, extra: u64) {
    let many = MANY as u64;
    stats.assert_only(&[(Way::Out, family, many + extra), (Way::In, family, many)]);
    assert_eq!((stats.open(Way::Out, family), stats.open(Way::In, family)), (many, many));
}

each_stack! {
    fn conversations_survive_every_change(lab, backend, family) {
        let Some(sidecar) = Sidecar::start(lab, family.resolver()) else { return };
        lab.install(backend, &[]).succeeds();
        let _world = lab.peer().run(move || Server::start("world", family.any(), 80));
        let _app = as_user(APP, move || Server::start("app", family.any(), APP_PORT));
        let outside = SocketAddr::new(family.outside(), 80);
        let host = SocketAddr::new(family.host(), APP_PORT);
        let out = as_user(APP, move || Conversation::open_many(outside, MANY)).expect("open");
        let into = lab.peer().run(move || Conversation::open_many(host, MANY)).expect("open");

        let chatter = [out, into].map(Chatter::start);
        let go_on = |when: &str| chatter.iter().for_each(|chatter| chatter.goes_on(when));
        go_on("before any change");
        for flags in CHANGES {
            let run = lab.install(backend, flags).succeeds();
            assert!(!run.stdout.contains("nothing was written"), "{run}");
            go_on(&format!("after install {flags:?}"));
            assert_still_the_same(&sidecar.stats(), family, 0);
        }
        // New connections follow the new rules, so the change is real: port 80 is excluded by now.
        let ask = || seen(&curl(outside, "/").user(APP).run().succeeds().stdout).0;
        assert_eq!(ask(), "world");
        assert_still_the_same(&sidecar.stats(), family, 0);
        lab.install(backend, &[]).succeeds();
        assert_eq!(ask(), "world");
        let stats = sidecar.wait_until("curl's connection has ended", |stats| {
            stats.open(Way::Out, family) == MANY as u64
        });
        assert_still_the_same(&stats, family, 1);
        go_on("after the last install");

        let [out, into] = chatter;
        let mut staying = vec![out];
        match family {
            Family::V4 => staying.push(into),
            // These come from the address ::6, which goes with what brought it.
            Family::V6 => drop(into.finish()),
        }
        firewall::iptables(backend.tools(), family, TRACKS).succeeds();
        if backend == Backend::Nftables {
            firewall::iptables(backend.tools(), family, TRANSLATES).succeeds();
        }
        lab.uninstall(backend, &[]).succeeds();
        for chatter in staying {
            chatter.goes_on("after uninstall");
            all_talk(&mut chatter.finish()).expect("open to the end");
        }
        let log = sidecar.stop();
        assert_eq!(log.len(), 2 * MANY + 1, "{log:?}");
        assert_all_went(&log, Way::Out.name(family), outside, MANY + 1);
        assert_all_went(&log, Way::In.name(family), host, MANY);
    }
}
