//! It keeps to itself: nothing leaves the host, and nothing stays on it.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};

use super::verify;
use crate::support::firewall::Family;
use crate::support::lab::each_variant;
use crate::support::{Lab, client, command};

/// What arrives at the neighbour, by whatever interface.
struct Capture(OwnedFd);

impl Capture {
    fn begin(lab: &Lab) -> Self {
        Self(lab.peer().run(|| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
                .expect("a packet socket")
        }))
    }

    /// The packets so far, but for what neighbours say to each other by themselves.
    fn packets(&self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut bytes = [0; 2048];
        while let Ok(size) = recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            let frame = &bytes[..size];
            let meant = match frame.get(12..14) {
                Some([0x08, 0x00]) => true,
                // ICMPv6, and hop-by-hop options in front of it, are neighbour and multicast discovery.
                Some([0x86, 0xdd]) => !matches!(frame.get(20), Some(0 | 58)),
                _ => false,
            };
            if meant {
                packets.push(frame.to_vec());
            }
        }
        packets
    }
}

fn interfaces() -> Vec<String> {
    let mut names: Vec<String> =
        nix::ifaddrs::getifaddrs().unwrap().map(|interface| interface.interface_name).collect();
    names.sort();
    names.dedup();
    names
}

const FLAGS: [&str; 8] = [
    "--redirect-dns",
    "--exclude-outbound-ips",
    "10.5.0.0/16,fd05::/16",
    "--exclude-inbound-ips",
    "10.9.0.0/16,fd09::/64",
    "--exclude-outbound-ports-for-uids",
    "*:*:7000",
    "--drop-invalid-packets",
];

each_variant! {
    /// Neither from a sound host nor from one without a single rule.
    fn nothing_leaves(lab, variant) {
        let capture = Capture::begin(lab);
        let given: Vec<&str> = [&["--kuma-dp-user", "kuma-dp"], &FLAGS[..]].concat();
        assert_eq!(verify(lab, &given).run.code, Some(12));
        lab.install(variant, &FLAGS).succeeds();
        let routes = command::must("ip", &["route", "show", "table", "all"]);
        verify(lab, &[]).all_pass();
        let sent = capture.packets();
        assert!(sent.is_empty(), "{} packets left, the first is {:02x?}", sent.len(), sent[0]);
        assert_eq!(interfaces(), ["eth0", "lo"]);
        assert_eq!(command::must("ip", &["route", "show", "table", "all"]), routes);

        // What does leave is seen.
        lab.uninstall(variant, &[]).succeeds();
        let _ = client::connect_to(SocketAddr::new(Family::V4.outside(), 80));
        let _ = client::connect_to(SocketAddr::new(Family::V6.outside(), 80));
        assert!(capture.packets().len() >= 2);
    }

    /// The interface goes with the process, however that ends.
    fn a_kill_leaves_nothing(lab, variant) {
        lab.install(variant, &[]).succeeds();
        let drop = "*filter\n-A INPUT -p tcp --dport 15006 -j DROP\nCOMMIT\n";
        crate::support::firewall::restore(variant, Family::V4, drop);
        let running = lab.program().arg("verify").start();
        until(|| interfaces().len() == 3);
        kill(command::pid(running.pid), Signal::SIGKILL).unwrap();
        assert_eq!(running.finish().signal, Some(9));
        until(|| interfaces() == ["eth0", "lo"]);
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
