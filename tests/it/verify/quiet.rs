//! It keeps to itself: nothing leaves the host, and nothing stays on it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use super::verify;
use crate::support::capture::Capture;
use crate::support::firewall::{self, Family, Variant};
use crate::support::lab::each_backend;
use crate::support::mesh::Mesh;
use crate::support::{Backend, client, command, conntrack};

fn interfaces() -> Vec<String> {
    let mut names: Vec<String> =
        nix::ifaddrs::getifaddrs().unwrap().map(|interface| interface.interface_name).collect();
    names.sort();
    names.dedup();
    names
}

const FLAGS: [&str; 10] = [
    "--vnet",
    "br-+:172.17.0.0/16",
    "--redirect-dns",
    "--exclude-outbound-ips",
    "10.5.0.0/16,fd05::/16",
    "--exclude-inbound-ips",
    "10.9.0.0/16,fd09::/64",
    "--exclude-outbound-ports-for-uids",
    "*:*:7000",
    "--drop-invalid-packets",
];

/// Empties chains of a table: of ours, where it is our own.
fn flush(backend: Backend, table: &str) {
    match (backend, table) {
        (Backend::Iptables(variant), _) => {
            for family in Family::BOTH {
                firewall::restore(variant, family, &format!("*{table}\n-F\nCOMMIT\n"));
            }
        }
        (Backend::Nftables, "raw") => firewall::nft(
            "flush chain inet kuma_mesh zones_output\nflush chain inet kuma_mesh zones_prerouting\n",
        ),
        (Backend::Nftables, _) => firewall::nft(
            "flush chain inet kuma_mesh prerouting\nflush chain inet kuma_mesh output\n\
             flush chain inet kuma_mesh output_first\n",
        ),
    }
}

/// Somebody sends everything to the neighbour.
fn lead_astray(variant: Variant) {
    for (family, to) in [(Family::V4, "10.77.0.2"), (Family::V6, "fd77::2")] {
        let bracketed = if family == Family::V4 { to.to_owned() } else { format!("[{to}]") };
        let dnat = format!("-j DNAT --to-destination {bracketed}:7");
        firewall::restore(
            variant,
            family,
            &format!(
                "*nat\n-I OUTPUT 1 -p tcp {dnat}\n-I OUTPUT 1 -p udp {dnat}\n-I PREROUTING 1 -p tcp {dnat}\nCOMMIT\n"
            ),
        );
    }
    for forward in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{forward}"), "1").expect("the machine forwards");
    }
}

/// Every route but that to `::6`, which the kernel adds a moment after the installation has added the address.
fn routes() -> Vec<String> {
    let all = command::must("ip", &["route", "show", "table", "all"]);
    all.lines().filter(|line| !line.contains("::6 ")).map(str::to_owned).collect()
}

each_backend! {
    /// Not even where rules of others lead what is sent to somewhere else.
    fn nothing_is_led_astray(lab, backend) {
        lab.install(backend, &FLAGS).succeeds();
        lead_astray(backend.tools());
        let capture = Capture::begin(lab);
        let said = verify(lab, &[]);
        let all = ["dns", "dns-sidecar", "exclusion", "inbound", "localhost", "outbound", "passthrough", "self", "sidecar"];
        let all: Vec<_> = ["ipv4", "ipv6"].into_iter().flat_map(|family| all.map(|id| format!("{family} {id}"))).collect();
        // Where the plan has something at the head, our own table comes before others' translation of addresses: for
        // DNS, and for what arrives over the virtual network's family.
        let first = |check: &String| check.ends_with(" dns") || check == "ipv4 inbound";
        let led = all.iter().filter(|check| backend != Backend::Nftables || !first(check));
        said.fails(&led.map(String::as_str).collect::<Vec<_>>());
        said.because("happened", "would have gone to 10.77.0.2:7 instead");
        println!("{:#}", said.json);
        capture.assert_nothing();
    }
}

each_backend! {
    /// With the sidecar's ports in use, too.
    fn nothing_leaves_past_a_running_sidecar(lab, backend) {
        lab.install(backend, &FLAGS).succeeds();
        let _sidecar = [Mesh::new(lab, Family::V4), Mesh::new(lab, Family::V6)];
        let capture = Capture::begin(lab);
        let said = verify(lab, &[]);
        assert_eq!((said.run.code, said.method()), (Some(0), "counters"), "{}", said.run.stderr);
        assert_eq!(said.with_status("not-tested"), ["ipv4 exclusion"], "a guest to the network itself");
        lead_astray(backend.tools());
        assert_eq!(verify(lab, &[]).run.code, Some(12));
        capture.assert_nothing();
    }

    /// Neither from a sound host nor from one without a single rule.
    fn nothing_leaves(lab, backend) {
        let capture = Capture::begin(lab);
        let given: Vec<&str> = [&["--kuma-dp-user", "kuma-dp"], &FLAGS[..]].concat();
        assert_eq!(verify(lab, &given).run.code, Some(12));
        lab.install(backend, &FLAGS).succeeds();
        let before = routes();
        verify(lab, &[]).all_pass();
        capture.assert_nothing();
        assert_eq!(interfaces(), ["eth0", "lo"]);
        assert_eq!(routes(), before);

        // What does leave is seen.
        lab.uninstall(backend, &[]).succeeds();
        let _ = client::connect_to(SocketAddr::new(Family::V4.outside(), 80));
        let _ = client::connect_to(SocketAddr::new(Family::V6.outside(), 80));
        assert!(capture.packets().len() >= 2);
    }

    /// Connection tracking would know of connections that never came about for two minutes.
    fn no_connection_is_known_afterwards(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let documentation = |addr: std::net::SocketAddr| {
            let networks = ["192.0.2.", "198.51.100.", "203.0.113.", "2001:db8:"];
            networks.iter().any(|network| addr.ip().to_string().starts_with(network))
        };
        for with_sidecar in [false, true] {
            let sidecar = with_sidecar.then(|| [Mesh::new(lab, Family::V4), Mesh::new(lab, Family::V6)]);
            verify(lab, &[]).all_pass();
            let mut known = conntrack::known();
            known.retain(|flow| documentation(flow.source) && documentation(flow.destination));
            assert_eq!(known, [], "with a sidecar: {with_sidecar}");
            drop(sidecar);
        }
    }

    /// The interface goes with the process, however that ends.
    fn a_kill_leaves_nothing(lab, backend) {
        lab.install(backend, &[]).succeeds();
        let drop = "*filter\n-A INPUT -p tcp --dport 15006 -j DROP\nCOMMIT\n";
        firewall::restore(backend.tools(), Family::V4, drop);
        let running = lab.program().arg("verify").start();
        until(|| interfaces().len() == 3);
        kill(command::pid(running.pid), Signal::SIGKILL).unwrap();
        assert_eq!(running.finish().signal, Some(9));
        until(|| interfaces() == ["eth0", "lo"]);
    }

    /// Whatever is left of the rules, by each method.
    fn nothing_leaves_past_what_is_left_of_the_rules(lab, backend) {
        let capture = Capture::begin(lab);
        let what = [&["nat"][..], &["raw"], &["nat", "raw"]];
        for (gone, with_sidecar) in what.into_iter().flat_map(|gone| [(gone, false), (gone, true)]) {
            lab.install(backend, &FLAGS).succeeds();
            for table in gone {
                flush(backend, table);
            }
            let sidecar = with_sidecar.then(|| [Mesh::new(lab, Family::V4), Mesh::new(lab, Family::V6)]);
            let said = verify(lab, &[]);
            assert_eq!(said.run.code, Some(12), "{gone:?}: {:#}", said.json);
            assert_eq!(said.method(), if with_sidecar { "counters" } else { "listeners" });
            drop(sidecar);
            capture.assert_nothing();
        }
    }
}

#[track_caller]
fn until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "it never came to that");
        std::thread::yield_now();
    }
}
