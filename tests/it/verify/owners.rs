//! Programs that listen already: sidecars of another user, DNS servers on this host, and addresses that somebody
//! translates.

use std::net::UdpSocket;

use super::verify;
use crate::support::firewall::{self, Family};
use crate::support::lab::each_backend;
use crate::support::listener::Listener;
use crate::support::mesh::{Mesh, listening_sidecar};
use crate::support::{APP, SIDECAR, as_user};

each_backend! {
    /// All that it passes on would come back to it.
    fn a_sidecar_of_another_user(lab, backend) {
        let taken = as_user(APP, || Listener::tcp("other", Family::V4.any(), 15001));
        let run = lab.install(backend, &["--ip-family-mode", "ipv4"]).succeeds();
        let run = run.says(&format!("TCP port 15001 is held by UID {APP} "));
        let run = run.says(&format!("or install with --kuma-dp-user {APP}"));
        assert!(!run.stdout.contains("You can now run kuma-dp"), "{run}");
        let run = lab.program().arg("status").run().exits(11);
        assert!(run.stdout.split_whitespace().collect::<Vec<_>>().join(" ").contains(&format!("--kuma-dp-user {APP}")), "{run}");
        let said = verify(lab, &[]);
        let failed = said.with_status("fail");
        assert!(failed.contains(&"ipv4 outbound".to_owned()), "{:#}", said.json);
        said.because("happened", &format!("was not sent: UID {APP} has port 15001"));
        assert_eq!(taken.served(), 0, "nothing was sent there");

        // Whose traffic is let through may listen there.
        let excluded = format!("tcp:*:{APP}");
        lab.install(backend, &["--ip-family-mode", "ipv4", "--exclude-outbound-ports-for-uids", &excluded])
            .succeeds()
            .prints("You can now run kuma-dp");
    }

    /// It asks a server whose questions go to the sidecar, and the sidecar asks it.
    fn a_dns_server_on_this_host(lab, backend) {
        std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0").expect("a setting of the own namespace");
        lab.resolv_conf("nameserver 127.0.0.1\nnameserver 10.96.0.10\n");
        let _server = as_user(APP, || UdpSocket::bind("127.0.0.1:53").expect("a socket"));
        let cure = format!("udp:53:{APP}");
        for flag in ["--redirect-dns", "--redirect-all-dns-traffic"] {
            lab.install(backend, &[flag])
                .succeeds()
                .says("and its own questions are redirected as well")
                .says(&format!("--exclude-outbound-ports-for-uids {cure}"));
            let said = verify(lab, &[]);
            assert!(said.with_status("fail").contains(&"ipv4 resolver".to_owned()), "{:#}", said.json);
            let check = said.all("ipv4", "resolver")[0];
            assert!(check["next"].as_str().is_some_and(|next| next.ends_with(&format!("--exclude-outbound-ports-for-uids {cure}"))));
            let run = lab.install(backend, &[flag, "--exclude-outbound-ports-for-uids", &cure]).succeeds();
            assert!(!run.stderr.contains("and its own questions"), "{run}");
            let said = verify(lab, &[]);
            assert_eq!(said.with_status("fail").len(), 0, "{:#}", said.json);
        }
    }

    /// A service's address that somebody leads on to whoever serves it.
    fn a_dns_server_behind_translation(lab, backend) {
        let rule = "-d 10.96.0.10/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.77.0.2:5353";
        firewall::restore(
            backend.tools(),
            Family::V4,
            &format!("*nat\n:SERVICES - [0:0]\n-A OUTPUT -j SERVICES\n-A SERVICES {rule}\nCOMMIT\n"),
        );
        let _resolver = lab.peer().run(|| Listener::udp("service", "10.77.0.2".parse().expect("an address"), 5353));
        for flags in [&["--redirect-dns"][..], &["--redirect-dns", "--skip-dns-conntrack-zone-split"], &["--redirect-all-dns-traffic"]] {
            lab.install(backend, flags).succeeds().says("address translation of");
            let sidecar = listening_sidecar();
            lab.program().arg("status").run().succeeds();
            drop(sidecar);
            let said = verify(lab, &[]);
            said.all_pass();
            let check = said.all("ipv4", "dns-sidecar")[0];
            assert!(check["happened"].as_str().is_some_and(|text| text.contains("leads it on to 10.77.0.2:5353")), "{check:#}");
            let mesh = Mesh::new(lab, Family::V4);
            let server = "10.96.0.10".parse().expect("an address");
            assert_eq!(mesh.ask(SIDECAR, server), "service", "{flags:?}");
            assert_eq!(mesh.ask(APP, server), "dns", "{flags:?}");
        }
    }

    /// Whenever a foreign rule translates, and however late its chain is called: the check says what becomes of a
    /// question.
    fn a_dns_server_that_is_translated_late(lab, backend) {
        let _resolver = lab.peer().run(|| Listener::udp("service", "10.77.0.2".parse().expect("an address"), 5353));
        let server = "10.96.0.10".parse().expect("an address");
        let late = "table ip late { chain output { type nat hook output priority 50; \
            ip daddr 10.96.0.10 udp dport 53 dnat to 10.77.0.2:5353; }; }\n";
        let rule = "-d 10.96.0.10/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.77.0.2:5353";
        let iptables = format!("*nat\n-I OUTPUT 1 {rule}\nCOMMIT\n");
        let translate = |in_nft: bool| {
            if in_nft { firewall::nft(late) } else { firewall::restore(backend.tools(), Family::V4, &iptables) }
        };
        let no_longer = |in_nft: bool| {
            if in_nft {
                firewall::nft("delete table ip late\n");
            } else {
                firewall::restore(backend.tools(), Family::V4, &iptables.replace("-I OUTPUT 1", "-D OUTPUT"));
            }
        };
        for (in_nft, before) in [(true, true), (true, false), (false, false)] {
            if before {
                translate(in_nft);
            }
            let run = lab.install(backend, &["--redirect-dns"]).succeeds();
            assert_eq!(run.stderr.contains("address translation of"), before, "{run}");
            if !before {
                translate(in_nft);
            }
            let [sidecar, app] = {
                let mesh = Mesh::new(lab, Family::V4);
                [(SIDECAR, "service"), (APP, "dns")].map(|(user, by)| mesh.ask(user, server) == by)
            };
            assert!(sidecar || !before, "the installation knew of it");
            for with_sidecar in [false, true] {
                let mesh = with_sidecar.then(|| Mesh::new(lab, Family::V4));
                let said = verify(lab, &[]);
                let passes = |id: &str| said.all("ipv4", id).iter().all(|check| check["status"] == "pass");
                let told = [passes("dns-sidecar"), passes("dns")];
                assert_eq!(told, [sidecar, app], "{in_nft} {before} {with_sidecar} {:#}", said.json);
                drop(mesh);
            }
            no_longer(in_nft);
            lab.uninstall(backend, &[]).succeeds();
        }
    }
}
