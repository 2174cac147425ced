//! The doors to the kernel, with real neighbours: what iptables leaves behind, and who holds its lock.

use std::path::Path;
use std::time::Duration;

use tproxy::plan::Family;
use tproxy::sys::{lock, netlink, netns};

use crate::support::lab::each_iptables_variant;
use crate::support::{Lab, Variant, firewall};

const LOCK: &str = "/run/xtables.lock";

// The native backend makes no table of iptables.
each_iptables_variant! {
    fn tables_of_the_nft_variant_alone_are_listed(_lab, variant) {
        assert_eq!(netlink::nft_table_names(Family::V4).expect("a list"), [""; 0]);
        firewall::restore(variant, firewall::Family::V4, "*nat\n-A OUTPUT -j RETURN\nCOMMIT\n*raw\n-A OUTPUT -j RETURN\nCOMMIT\n");
        let listed = netlink::nft_table_names(Family::V4).expect("a list");
        let wanted: &[&str] = if variant == Variant::Nft { &["nat", "raw"] } else { &[] };
        assert_eq!(listed, wanted);
        assert_eq!(netlink::nft_table_names(Family::V6).expect("a list"), [""; 0]);
    }
}

#[test]
fn tables_of_two_families_are_not_among_those_of_one() {
    Lab::enter(|_| {
        firewall::nft("add table inet both\nadd table ip six\nadd table ip6 four\nadd table arp none\n");
        assert_eq!(netlink::nft_table_names(Family::V4).expect("a list"), ["six"]);
        assert_eq!(netlink::nft_table_names(Family::V6).expect("a list"), ["four"]);
        assert_eq!(netlink::nft_inet_table_names().expect("a list"), ["both"]);
    });
}

#[test]
fn an_address_can_be_bound_at_once_and_not_any_more() {
    Lab::enter(|_| {
        let six = "::6".parse().expect("an address");
        let bind = || std::net::UdpSocket::bind((std::net::Ipv6Addr::from(6u128), 0)).map(drop);
        assert!(bind().is_err());
        assert!(netlink::add_address("lo", six, 128).expect("added"));
        bind().expect("no duplicate address detection to wait for");
        assert!(!netlink::add_address("lo", six, 128).expect("there"));
        assert!(netlink::remove_address("lo", six, 128).expect("removed"));
        assert!(!netlink::remove_address("lo", six, 128).expect("gone"));
        assert!(bind().is_err());
    });
}

#[test]
fn the_holder_of_the_xtables_lock_is_named() {
    Lab::enter(|_| {
        assert_eq!(lock::holder(Path::new(LOCK)), None, "there is no such file yet");
        // It reads its rules under the lock, and gets none.
        let (rules, no_rules) = std::io::pipe().expect("a pipe");
        let mut holder =
            std::process::Command::new(firewall::path(Variant::Legacy, firewall::Family::V4, "-restore"))
                .arg("--noflush")
                .stdin(rules)
                .stderr(std::process::Stdio::null())
                .spawn()
                .expect("a child");
        std::io::Write::write_all(&mut &no_rules, b"*nat\n").expect("a reader");
        let limit = std::time::Instant::now() + Duration::from_secs(20);
        let held = loop {
            match lock::holder(Path::new(LOCK)) {
                None if std::time::Instant::now() < limit => std::thread::yield_now(),
                held => break held,
            }
        };
        let held = held.expect("a holder");
        assert_eq!(held.pid, holder.id());
        assert!(held.command.contains("legacy-restore --noflush"), "{held}");
        drop(no_rules);
        holder.wait().expect("its end");
        assert_eq!(lock::holder(Path::new(LOCK)), None);
    });
}

#[test]
fn namespaces_are_told_apart() {
    Lab::enter(|lab| {
        let here = netns::current_id().expect("a name");
        assert_eq!(netns::current_id().expect("a name"), here);
        let there = lab.peer().run(|| netns::current_id().expect("a name"));
        let elsewhere = Lab::elsewhere(|_| netns::current_id().expect("a name"));
        assert_ne!(here, there);
        assert_ne!(here, elsewhere);
    });
}
