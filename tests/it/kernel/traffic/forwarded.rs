//! Guests behind a bridge of the machine, which forwards what they send.

use std::fs;
use std::net::SocketAddr;

use crate::support::client::connect_to;
use crate::support::lab::each_stack;
use crate::support::mesh::{APP_PORT, Mesh, listening_sidecar, name};
use crate::support::network::ip;
use crate::support::{Backend, Family, Lab, Peer, Variant, firewall};

const FLAG: &str = "--exclude-forwarded";

/// Two guests on a bridge of a machine that forwards.
fn guests(lab: &Lab) -> [Peer; 2] {
    for path in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"] {
        fs::write(path, "1").expect("the machine forwards");
    }
    ip("link add br0 type bridge
        link set br0 up
        addr add 172.18.0.1/16 dev br0
        addr add fd18::1/64 dev br0 nodad
    ");
    lab.peer().ip("route add 172.18.0.0/16 via 10.77.0.1\nroute add fd18::/64 via fd77::1\n");
    [2, 3].map(|number| {
        let guest = Peer::new("guest");
        guest.plug(&format!("tap{number}"), "eth0");
        ip(&format!("link set tap{number} master br0 up\n"));
        guest.ip(&format!(
            "link set lo up
            link set eth0 up
            addr add 172.18.0.{number}/16 dev eth0
            addr add fd18::{number}/64 dev eth0 nodad
            route add default via 172.18.0.1
            route add ::/0 via fd18::1
            "
        ));
        guest
    })
}

fn meets(guest: &Peer, to: &str, port: u16) -> String {
    let to = SocketAddr::new(to.parse().expect("an address"), port);
    name(guest.run(move || connect_to(to)))
}

each_stack! {
    fn what_is_forwarded_can_be_left_alone(lab, backend, family) {
        let [one, _two] = guests(lab);
        let (machine, outside) = match family {
            Family::V4 => ("172.18.0.1", family.outside().to_string()),
            Family::V6 => ("fd18::1", family.outside().to_string()),
        };
        let mesh = Mesh::new(lab, family);
        let _of_the_other = listening_sidecar();
        let run = lab.install(backend, &[]).succeeds().says("br0 (172.18.0.0/16, fd18::/64)").says(FLAG);
        let _ = run.says("--vnet br0:172.18.0.0/16 --vnet br0:fd18::/64");
        let _ = lab.program().arg("status").run().exits(0).prints("br0").prints(FLAG);
        assert_eq!(meets(&one, &outside, 443), "inbound");

        for first in [false, true] {
            let more = if first { &["--redirect-inbound-insert-instead-of-append"][..] } else { &[] };
            let run = lab.install(backend, &[&[FLAG], more].concat()).succeeds();
            assert!(!run.stderr.contains("br0"), "{run}");
            assert_eq!(meets(&one, &outside, 443), "world", "{first}");
            assert_eq!(meets(&one, machine, APP_PORT), "inbound", "what is for this host is not forwarded");
            assert_eq!(mesh.visit(lab, APP_PORT), "inbound", "{first}");
            let run = lab.program().arg("status").run().exits(0);
            assert!(!run.stdout.contains("br0"), "{run}");
            // Without a record, too.
            fs::remove_dir_all("/run/tproxy").expect("the record");
            lab.program().arg("status").run().exits(0);
        }
        lab.install(backend, &[FLAG]).succeeds().prints("setup completed");
        lab.install(backend, &[FLAG]).succeeds().prints("nothing was written");
        lab.install(backend, &["--vnet", "br+:172.18.0.0/16", "--vnet", "br+:fd18::/64", FLAG]).succeeds();
        assert_eq!(meets(&one, &outside, 443), "outbound", "guests of virtual networks are the sidecar's");
        lab.uninstall(backend, &[]).succeeds();
        assert_eq!(Backend::installed(), []);
    }

    fn what_a_bridge_passes_on_is_left_alone(lab, backend, family) {
        let path = match family {
            Family::V4 => "/proc/sys/net/bridge/bridge-nf-call-iptables",
            Family::V6 => "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
        };
        if fs::write(path, "1").is_err() {
            return crate::support::lab::skip("this kernel does not show rules what a bridge passes on");
        }
        let [one, two] = guests(lab);
        let second = if family == Family::V4 { "172.18.0.3" } else { "fd18::3" };
        let _mesh = Mesh::new(lab, family);
        two.run(move || firewall::restore(Variant::Nft, family, "*nat\n-A PREROUTING -p tcp -j REDIRECT --to-ports 80\nCOMMIT\n"));
        let _server = two.run(move || crate::support::listener::Listener::tcp("guest", family.any(), 80));
        lab.install(backend, &[]).succeeds().says("br0");
        assert_eq!(meets(&one, second, 443), "inbound");
        lab.install(backend, &[FLAG]).succeeds();
        assert_eq!(meets(&one, second, 443), "guest");
    }
}
