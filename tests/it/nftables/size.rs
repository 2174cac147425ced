//! Long lists: how little is sent for a small change of one, and how much can be sent at once.

use std::fmt::Write as _;
use std::fs;

use tproxy::backend::nftables::decode::Observed;
use tproxy::backend::nftables::observe::observe;
use tproxy::sys::netlink::nftables::Door;

use crate::support::Lab;
use crate::support::command::{Program, find};
use crate::support::lab::skip;
use crate::support::snapshot::Snapshot;

use super::odds::in_user_namespace;

/// All that a change of a list may send, questions and all, in bytes.
const LITTLE: usize = 4096;

fn config(lab: &Lab, addresses: &[String], ports: &[String]) -> String {
    let mut text = "kumaDPUser: kuma-dp\nbackend: nftables\nredirect:\n  outbound:\n".to_owned();
    let _ = writeln!(text, "    excludePortsForIPs: [{}]", addresses.join(", "));
    let _ = writeln!(text, "    excludePorts: [{}]", ports.join(", "));
    let path = lab.dir().join("many.yaml");
    fs::write(&path, text).expect("a file in the private /run");
    path.display().to_string()
}

/// Addresses of which no two are neighbours.
fn addresses(count: u32) -> Vec<String> {
    (0..count)
        .map(|n| std::net::Ipv4Addr::from_bits(0x0a00_0000 + 2 * n).to_string())
        .chain(["2001:db8::/64".to_owned()])
        .collect()
}

/// Ports of which no two are neighbours.
fn ports(count: u32) -> Vec<String> {
    (0..count).map(|n| (1025 + 3 * n).to_string()).collect()
}

/// Installs, and tells how many bytes it sent to the kernel by any socket.
fn sent(lab: &Lab, config: &str) -> usize {
    let log = lab.dir().join("sent.log");
    let program = Program::new("strace")
        .args(["-f", "-qq", "-e", "trace=sendto,sendmsg,sendmmsg,write,writev", "-e", "raw=all", "-o"])
        .arg(&log)
        .arg(lab.program_path())
        .args(["install", "--config", config]);
    program.run().succeeds().prints("nftables rules");
    let log = fs::read_to_string(&log).expect("strace wrote its log");
    let results =
        log.lines().filter(|line| line.contains("send")).filter_map(|line| line.rsplit("= 0x").next());
    results.map(|bytes| usize::from_str_radix(bytes.trim(), 16).expect("a number of bytes")).sum()
}

fn now() -> (u32, Observed) {
    let seen = observe(&mut Door::open().expect("a door")).expect("an answer");
    (seen.generation, seen.table.expect("a table"))
}

/// Installs another list, for which no rule has to change.
#[track_caller]
fn assert_little(lab: &Lab, addresses: &[String], ports: &[String]) {
    let (generation, before) = now();
    let config = config(lab, addresses, ports);
    let bytes = sent(lab, &config);
    assert!(bytes > 0 && bytes < LITTLE, "{bytes} bytes were sent");
    let (later, after) = now();
    assert_eq!(later, generation + 1, "one transaction");
    assert_eq!(after.handles, before.handles, "the rules and sets stay");
    assert_ne!(after.table.sets, before.table.sets);
    lab.program().args(["install", "--config", &config]).run().succeeds().prints("nothing was written");
}

#[test]
fn another_port_of_ten_thousand_is_a_few_bytes() {
    Lab::enter(|lab| {
        if find("strace").is_none() {
            return skip("this machine has no strace");
        }
        let first = ports(10_000);
        let clean = sent(lab, &config(lab, &[], &first));
        assert!(clean > 50 * LITTLE, "{clean} bytes are all that was counted");

        let without = [&first[..5000], &first[5001..]].concat();
        assert_little(lab, &[], &without);
        // What did not touch becomes one interval, 1025-1028, and is taken apart again.
        let filled = [&without[..], &["1026", "1027"].map(str::to_owned)].concat();
        assert_little(lab, &[], &filled);
        let (_, table) = now();
        let intervals = table.table.sets.values().map(|set| set.intervals.len()).max();
        assert_eq!(intervals, Some(9998), "two of 9999 were joined");
        let hole = [&without[..], &["1027".to_owned()]].concat();
        assert_little(lab, &[], &hole);
    });
}

#[test]
fn another_address_beside_a_thousand_ports_is_a_few_bytes() {
    Lab::enter(|lab| {
        if find("strace").is_none() {
            return skip("this machine has no strace");
        }
        // In a user namespace there is just no room for a thousand more.
        let (mut addresses, ports) = (addresses(9000), ports(1000));
        lab.program().args(["install", "--config", &config(lab, &addresses, &ports)]).run().succeeds();
        addresses[77] = "192.0.2.0/25".to_owned();
        addresses.push("2001:db8:0:1::/64".to_owned());
        assert_little(lab, &addresses, &ports);
        assert_little(lab, &addresses, &[&ports[..999], &["65535".to_owned()]].concat());
    });
}

#[test]
fn fifty_thousand_addresses_are_one_transaction() {
    Lab::enter(|lab| {
        if in_user_namespace() {
            return skip("a user namespace has no room for so much");
        }
        let config = config(lab, &addresses(50_000), &[]);
        let install = || lab.program().args(["install", "--config", &config]).run().succeeds();
        let generation = Door::open().expect("a door").generation().expect("a generation");
        let _ = install();
        let (later, table) = now();
        assert_eq!(later, generation + 1);
        assert_eq!(table.table.sets["excluded_outbound_ipv4"].intervals.len(), 50_000);
        let _ = install().prints("nothing was written");
    });
}

/// Bytes of one address in a batch: where an interval begins, and where it ends.
const ADDRESS: u32 = 40;

/// Without the right to a larger buffer, which only the first user namespace can give, there is room for twice the
/// setting. Too much is refused before anything happens, and in words.
#[test]
fn too_much_for_a_user_namespace_is_told_so() {
    Lab::enter(|lab| {
        let setting = fs::read_to_string("/proc/sys/net/core/wmem_max").expect("a setting");
        let room = 2 * setting.trim().parse::<u32>().expect("a number of bytes");
        let within = |addresses: &[String]| {
            let script = "\"$@\"; code=$?; nft list tables; exit $code";
            Program::new("unshare")
                .args(["--user", "--map-root-user", "--net", "--", "sh", "-c", script, "sh"])
                .arg(lab.program_path())
                .args(["install", "--config", &config(lab, addresses, &[]), "--kuma-dp-user", "0"])
                .run()
        };
        let fits = within(&addresses((room / ADDRESS).min(60_000) - 1000)).succeeds();
        assert!(
            fits.stdout.contains("nftables rules") && fits.stdout.contains("table inet kuma_mesh"),
            "{fits}"
        );
        if room / ADDRESS > 300_000 {
            return eprintln!("no list is too long here: there is room for {room} bytes");
        }
        // The record of that namespace, which is gone.
        fs::remove_dir_all("/run/tproxy").expect("a record");
        let before = Snapshot::take();
        let refused = within(&addresses(room / ADDRESS))
            .exits(3)
            .says("bytes of rules and lists are more than the kernel takes from this process at once")
            .says("hint: raise the setting net.core.wmem_max");
        assert_eq!(refused.stdout, "", "nothing was installed: {refused}");
        Snapshot::take().assert_unchanged_since(&before);
    });
}
