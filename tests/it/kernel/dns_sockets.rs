//! Programs that keep one socket for all their questions, on a machine where the kernel tracks for others too.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::support::client::Asker;
use crate::support::conntrack::known;
use crate::support::lab::each_stack;
use crate::support::listener::Listener;
use crate::support::mesh::Mesh;
use crate::support::{APP, SIDECAR, as_user, firewall};

const ON: [&str; 1] = ["--redirect-dns"];
const ALL: [&str; 1] = ["--redirect-all-dns-traffic"];
const ELSEWHERE: [&str; 3] = ["--redirect-dns", "--redirect-dns-port", "15054"];
const ONE_ZONE: &str = "--skip-dns-conntrack-zone-split";

/// As any stateful firewall does.
fn others_track() {
    firewall::nft(
        "table inet others {\nchain input {\ntype filter hook input priority 0;\nct state established counter\n}\n}\n",
    );
}

struct Kept(Asker);

impl Kept {
    fn by(uid: u32, server: IpAddr) -> Self {
        let server = SocketAddr::new(server, 53);
        Self(as_user(uid, move || Asker::to(server, None)).expect("a socket"))
    }

    #[track_caller]
    fn meets(&self, who: &str, when: &str) {
        let by = self.0.ask("svc.mesh").map_or_else(|error| format!("nobody: {error}"), |answer| answer.by);
        assert_eq!(by, who, "{when}");
    }
}

each_stack! {
    fn their_questions_go_where_they_are_to_go_now(lab, backend, family) {
        others_track();
        let mesh = Mesh::new(lab, family);
        let _other = as_user(SIDECAR, move || Listener::udp("other dns", family.any(), 15054));
        for zones in [&[][..], &[ONE_ZONE]] {
            let app = Kept::by(APP, family.resolver());
            let sidecar = Kept::by(SIDECAR, family.resolver());
            let install = |flags: &[&str]| lab.install(backend, &[flags, zones].concat()).succeeds();
            let both = |who: &str, when: &str| {
                app.meets(who, &format!("{when} {zones:?}"));
                sidecar.meets("resolver", &format!("{when} {zones:?}, the sidecar"));
            };
            both("resolver", "nothing is installed");
            install(&ON);
            both("dns", "redirected");
            install(&ELSEWHERE);
            both("other dns", "redirected to another port");
            install(&[]);
            both("resolver", "redirected no longer");
            install(&ELSEWHERE);
            both("other dns", "redirected again");
            lab.uninstall(backend, &[]).succeeds();
            both("resolver", "uninstalled");
        }
        drop(mesh);
    }

    fn servers_come_and_go_too(lab, backend, family) {
        others_track();
        let _mesh = Mesh::new(lab, family);
        let app = Kept::by(APP, family.other_resolver());
        app.meets("other resolver", "nothing is installed");
        lab.install(backend, &ALL).succeeds();
        app.meets("dns", "all are redirected");
        lab.install(backend, &ON).succeeds();
        app.meets("other resolver", "those of resolv.conf are");
    }

    fn zones_come_and_go(lab, backend, family) {
        others_track();
        let _mesh = Mesh::new(lab, family);
        let app = Kept::by(APP, family.resolver());
        lab.install(backend, &ON).succeeds();
        app.meets("dns", "with zones");
        lab.install(backend, &["--redirect-dns", ONE_ZONE]).succeeds().says("conntrack zones");
        app.meets("dns", "without");
        lab.install(backend, &ON).succeeds().says("conntrack zones");
        app.meets("dns", "with zones again");
    }

    fn nothing_else_is_forgotten(lab, backend, family) {
        others_track();
        let _mesh = Mesh::new(lab, family);
        let (from, to) = (SocketAddr::new(family.host(), 0), SocketAddr::new(family.resolver(), 5300));
        let socket = UdpSocket::bind(from).expect("a socket");
        socket.send_to(b"word", to).expect("it is sent");
        let port = socket.local_addr().expect("an address").port();
        let app = Kept::by(APP, family.resolver());
        for flags in [&ON[..], &ELSEWHERE, &[]] {
            lab.install(backend, flags).succeeds();
            assert!(known().iter().any(|flow| flow.source.port() == port), "{flags:?}");
            drop(app.0.ask("svc.mesh"));
        }
        // Another port for what is excluded says nothing of DNS.
        app.meets("resolver", "not redirected");
        lab.install(backend, &ON).succeeds();
        app.meets("dns", "redirected");
        let flows = || known().into_iter().filter(|flow| flow.destination.port() == 53).collect::<Vec<_>>();
        let before = flows();
        lab.install(backend, &["--redirect-dns", "--exclude-outbound-ports", "7001"]).succeeds();
        assert_eq!(flows(), before);
    }
}
