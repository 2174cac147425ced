//! Connections that were open before the redirection came, on a machine that tracked none until then.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tproxy::sys::netlink::conntrack::enter::{Entry, Phase, enter, leave};
use tproxy::sys::netlink::streams::streams;
use tproxy::sys::socket;

use super::trial::{end_ago, wait_for_the_end};
use crate::support::conntrack::{forget_all, known};
use crate::support::lab::{each_backend, each_iptables_stack, each_stack};
use crate::support::mesh::Mesh;
use crate::support::session::{Session, Sessions, listener, outbound};
use crate::support::tracer::{Then, When, trace};
use crate::support::{APP, Backend, Family, Lab, SIDECAR, Variant, as_user, firewall};

const EXCLUDED: [&str; 2] = ["--exclude-inbound-ports", Sessions::EXCLUDED];
const PATIENCE: Duration = Duration::from_secs(30);

/// `IPCTNL_MSG_CT_NEW`
const NEW_CONNECTION: u16 = 0x100;

/// What is told to connection tracking about connections, if this message does.
fn entries(bytes: &[u8]) -> bool {
    bytes.get(4..6) == Some(&NEW_CONNECTION.to_ne_bytes()[..])
}

each_stack! {
    fn they_live_on(lab, backend, family) {
        let mesh = Mesh::new(lab, family);
        let mut old = Sessions::open(lab, family);
        lab.install(backend, &EXCLUDED).succeeds();
        old.assert_alive("installed");
        assert_eq!(mesh.connect(APP, family.outside(), 80), "outbound", "new ones are redirected");
        lab.install(backend, &["--redirect-dns"]).succeeds();
        old.assert_alive("installed another way");
        lab.uninstall(backend, &[]).succeeds();
        old.assert_alive("uninstalled");
        assert_eq!(mesh.connect(APP, family.outside(), 80), "world");

        let mut new = Sessions::open(lab, family);
        lab.install(backend, &EXCLUDED).succeeds();
        old.assert_alive("installed again");
        new.assert_alive("installed after they began");
        for other in Backend::ALL.into_iter().filter(|other| *other != backend) {
            lab.install(other, &[]).succeeds();
            old.assert_alive(&format!("moved to {other:?}"));
            new.assert_alive(&format!("moved to {other:?}"));
        }
    }

    fn they_live_through_a_trial_that_nobody_confirms(lab, backend, family) {
        let _mesh = Mesh::new(lab, family);
        let mut before = Sessions::open(lab, family);
        lab.install(backend, &["--confirm", "600s"]).succeeds();
        before.assert_alive("on trial");
        end_ago(1, true);
        wait_for_the_end();
        before.assert_alive("gone back");
    }
}

each_iptables_stack! {
    /// While IPv6 is not redirected, nobody tracks it, and the way back makes the kernel do it again.
    fn a_way_back_may_be_what_redirects(lab, variant, family) {
        let _mesh = Mesh::new(lab, family);
        lab.install(variant, &["--redirect-dns"]).succeeds();
        lab.install(variant, &["--ip-family-mode", "ipv4", "--confirm", "600s"]).succeeds();
        let mut meanwhile = if family == Family::V6 { Some(Sessions::open(lab, family)) } else { None };
        end_ago(1, true);
        wait_for_the_end();
        if let Some(sessions) = &mut meanwhile {
            sessions.assert_alive("gone back");
        }
    }
}

each_stack! {
    /// Its plaintext would leave the machine.
    fn a_redirected_connection_that_was_forgotten_is_not_let_go(lab, backend, family) {
        lab.install(backend, &[]).succeeds();
        let any = family.any();
        let sidecar = as_user(SIDECAR, move || listener(any, 15001));
        let world = lab.peer().run(move || listener(any, 443));
        let to = SocketAddr::new(family.outside(), 443);
        let mut app = as_user(APP, move || TcpStream::connect_timeout(&to, PATIENCE)).expect("a connection");
        let (mut redirected, _) = sidecar.accept().expect("a connection");
        redirected.set_read_timeout(Some(PATIENCE)).expect("a patience");

        lab.uninstall(backend, &[]).succeeds();
        forget_all();
        lab.install(backend, &[]).succeeds();
        app.write_all(b"word").expect("a connection");
        let mut heard = [0; 4];
        redirected.read_exact(&mut heard).expect("the sidecar hears what it heard before");
        assert_eq!(heard, *b"word");
        world.set_nonblocking(true).expect("a setting");
        assert!(world.accept().is_err());
    }

    /// The other end's answers come late: the neighbour drops what arrives until the rules are there.
    fn what_is_asked_for_already_begins(lab, backend, family) {
        let drop_all = move |how: &str| {
            firewall::restore(Variant::Nft, family, &format!("*filter\n-{how} INPUT -p tcp -j DROP\nCOMMIT\n"));
        };
        let (any, host, peer) = (family.any(), family.host(), family.peer());
        let ask = |to: SocketAddr| {
            let socket = socket::tcp(to.ip()).expect("a socket");
            socket::begin_connect(&socket, to).expect("it begins");
            socket
        };
        let port = |listener: &TcpListener| listener.local_addr().expect("a port").port();
        let (here, there) = (listener(any, 0), lab.peer().run(move || listener(any, 0)));
        let (inside, outside) = (SocketAddr::new(host, port(&here)), SocketAddr::new(peer, port(&there)));
        lab.peer().run(move || drop_all("I"));
        let out = as_user(APP, move || ask(outside));
        let incoming = lab.peer().run(move || ask(inside));
        // The neighbour may have to find out first where the host is.
        let arrived = || {
            let mut found = false;
            let of = if family == Family::V4 { tproxy::plan::Family::V4 } else { tproxy::plan::Family::V6 };
            streams(of, |stream| found |= stream.local == inside).expect("the kernel tells");
            found
        };
        let deadline = Instant::now() + PATIENCE;
        while !arrived() {
            assert!(Instant::now() < deadline, "it never came");
            std::thread::yield_now();
        }

        lab.install(backend, &[]).succeeds();
        lab.peer().run(move || drop_all("D"));
        for (name, listener, client) in [("out", there, out), ("in", here, incoming)] {
            let client = socket::connected(client, Instant::now() + PATIENCE).expect("a connection");
            client.set_nonblocking(false).expect("a setting");
            Session::begun(name, listener, client).talk().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    fn what_begins_between_the_look_and_the_commit_lives_on(lab, backend, family) {
        let _mesh = Mesh::new(lab, family);
        // One to begin with, so that there is something to enter before.
        let mut before = outbound(lab, "before", family.peer());
        let mut between = None;
        let run = trace(&lab.installing(backend, &[]), |call, when| {
            let entered = when == When::After && call.sent().is_some_and(|bytes| entries(&bytes));
            if entered && between.is_none() {
                between = Some(outbound(lab, "between", family.peer()));
            }
            Then::GoOn
        });
        run.succeeds();
        before.talk().expect("it was entered before");
        between.expect("something was entered").talk().expect("it is entered after");
    }
}

each_backend! {
    fn what_cannot_be_entered_is_counted(lab, backend) {
        let _mesh = Mesh::new(lab, Family::V4);
        let sessions = [outbound(lab, "a", Family::V4.peer()), outbound(lab, "b", Family::V4.peer())];
        let run = trace(&lab.installing(backend, &[]), |call, when| {
            let told = (when == When::Before).then(|| call.sent()).flatten();
            if let Some(mut bytes) = told.filter(|bytes| entries(bytes)) {
                // A subsystem that no kernel has.
                bytes[5] = 0x7f;
                call.say(&bytes);
            }
            Then::GoOn
        });
        let run = run.succeeds().says("2 open connections are not in connection tracking");
        assert_eq!(run.stderr.matches("connection tracking").count(), 1, "{run}");
        drop(sessions);
    }
}

#[test]
fn a_known_connection_stays_as_it_is_and_one_that_ended_goes() {
    Lab::enter(|_| {
        let entry = |client: &str, server: &str| Entry {
            client: client.parse().expect("an address"),
            server: server.parse().expect("an address"),
            phase: Phase::Established,
            timeout: 1000,
        };
        let all = [
            entry("10.77.0.2:5000", "10.77.0.1:22"),
            entry("[fd77::2]:5000", "[fd77::1]:22"),
            // The first one, from its other end.
            entry("10.77.0.1:22", "10.77.0.2:5000"),
            entry("127.0.0.1:7", "127.0.0.1:7"),
        ];
        let first = enter(&all);
        assert_eq!((first.new, first.refused.map(|(count, _)| count)), (vec![0, 1, 3], None));
        assert_eq!(known().len(), 3);
        assert_eq!(enter(&all).new, [0; 0]);
        leave(&all[1..2]).expect("the kernel forgets");
        leave(&all[1..2]).expect("what is not known is no error");
        assert_eq!(known().len(), 2);
    });
}

#[test]
fn thousands_are_entered_in_few_messages() {
    Lab::enter(|lab| {
        let _mesh = Mesh::new(lab, Family::V4);
        let here = listener(Family::V4.localhost(), 0);
        let to = here.local_addr().expect("an address");
        let connected = || {
            let client = TcpStream::connect(to).expect("a connection");
            (client, here.accept().expect("a connection"))
        };
        let all: Vec<_> = (0..300).map(|_| connected()).collect();
        let mut sent = 0;
        let run = trace(&lab.installing(Backend::Nftables, &[]), |call, when| {
            sent += usize::from(when == When::Before && call.sent().is_some_and(|bytes| entries(&bytes)));
            Then::GoOn
        });
        run.succeeds();
        // Each is a connection of two sockets.
        assert!((1..=8).contains(&sent), "{sent} messages");
        assert!(known().len() >= all.len());
    });
}
