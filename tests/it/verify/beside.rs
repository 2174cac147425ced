//! Programs of other users that have a port of the sidecar's beside the sidecar, at an address of their own: the kernel
//! prefers the more specific one.

use std::net::IpAddr;

use super::verify;
use crate::support::firewall::Family;
use crate::support::lab::each_backend;
use crate::support::listener::Listener;
use crate::support::mesh::Mesh;
use crate::support::network::ip;
use crate::support::{APP, SIDECAR, as_user};

each_backend! {
    fn who_takes_questions_on_loopback(lab, backend) {
        let flags = ["--redirect-all-dns-traffic"];
        lab.install(backend, &flags).succeeds();
        let meshes = Family::BOTH.map(|family| Mesh::new(lab, family));
        verify(lab, &[]).all_pass();
        for (mesh, family) in meshes.iter().zip(Family::BOTH) {
            let (name, server) = match family {
                Family::V4 => ("IPv4", "10.96.0.10"),
                Family::V6 => ("IPv6", "2001:db8::53"),
            };
            let server: IpAddr = server.parse().expect("an address");
            assert_eq!(mesh.ask(APP, server), "dns");
            let at = family.localhost();
            let thief = as_user(APP, move || Listener::udp("thief", at, 15053));
            // An answer of another user's comes back only without zones of connection tracking.
            assert_ne!(mesh.ask(APP, server), "dns");
            assert!(thief.served() > 0, "the kernel prefers it");
            let run = lab.install(backend, &flags).succeeds();
            let run = run.says(&format!("UDP port 15053 at {at} is held by UID {APP} (process "));
            assert!(!run.stdout.contains("You can now run kuma-dp"), "{run}");
            let status = lab.program().arg("status").run().exits(11);
            let text = status.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
            let taken = format!("{name} port 15053 (dns) at {at} is taken by UID {APP}, process ");
            assert!(text.contains(&taken), "{status}");
            let before = thief.served();
            let said = verify(lab, &[]);
            let dns = format!("{} dns", name.to_lowercase());
            assert!(said.with_status("fail").contains(&dns), "{:#}", said.json);
            said.because("happened", &format!("was not sent: UID {APP} has port 15053 at {at}"));
            assert_eq!(thief.served(), before, "nothing was sent there");
            // Not the sidecar's, although nothing comes back to it.
            let excluded = format!("udp:53:{APP}");
            let flags = [&flags[..], &["--exclude-outbound-ports-for-uids", &excluded]].concat();
            lab.install(backend, &flags).succeeds();
            let said = verify(lab, &[]);
            assert!(said.with_status("fail").contains(&dns), "{:#}", said.json);
            said.because("happened", &format!("is redirected to port 15053, which UID {APP} has"));
            drop(thief);
            lab.install(backend, &flags[..1]).succeeds().prints("You can now run kuma-dp");
            lab.program().arg("status").run().succeeds();
        }
    }

    fn who_takes_connections_to_one_of_the_host_s_addresses(lab, backend) {
        ip("addr add 10.78.0.1/24 dev eth0\naddr add fd78::1/64 dev eth0 nodad\n");
        lab.install(backend, &[]).succeeds();
        let listen = |uid, at: &str, port| {
            let at: IpAddr = at.parse().expect("an address");
            as_user(uid, move || Listener::tcp("somebody", at, port))
        };
        let _outbound = ["0.0.0.0", "::"].map(|at| listen(SIDECAR, at, 15001));
        let _inbound = ["10.77.0.1", "fd77::1"].map(|at| listen(SIDECAR, at, 15006));
        lab.program().arg("status").run().succeeds();
        for (family, at) in [("ipv4", "10.78.0.1"), ("ipv4", "127.0.0.1"), ("ipv6", "fd78::1"), ("ipv6", "::1")] {
            let other = listen(APP, at, 15006);
            let status = lab.program().arg("status").run().exits(11);
            let text = status.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.contains(&format!("port 15006 (inbound) at {at} is taken by UID {APP}, ")), "{status}");
            lab.install(backend, &[]).succeeds().says(&format!("TCP port 15006 at {at} is held by UID {APP} "));
            let said = verify(lab, &[]);
            assert!(said.with_status("fail").contains(&format!("{family} inbound")), "{:#}", said.json);
            let happened = said.all(family, "inbound")[0]["happened"].to_string();
            assert!(happened.contains(&format!("was not sent: UID {APP} has port 15006 at {at}")), "{happened}");
            assert_eq!(other.served(), 0, "nothing was sent there");
            drop(other);
            lab.program().arg("status").run().succeeds();
        }
        // Nothing is redirected there.
        let _not_here = listen(APP, "127.0.0.2", 15006);
        lab.program().arg("status").run().succeeds();
    }
}
