use std::collections::BTreeSet;

use super::*;
use crate::backend::iptables::save::Saved;
use crate::rules::words::chains as chains_of;
use crate::status::ahead::IPTABLES;

/// Rules of the table `filter`, of a host at 192.0.2.1 on which somebody listens on these ports.
fn found(flags: impl FnOnce(&mut Config), rules: &str, drops: &[&str], ports: &[u16]) -> Vec<Met> {
    let mut config = Config::default();
    flags(&mut config);
    let text = format!(
        "*filter\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:f2b-sshd - [0:0]\n:InstanceServices - [0:0]\n{rules}\nCOMMIT\n"
    );
    let saved = Saved::parse(&text);
    let chains = chains_of(&saved, Family::V4, |_, chain| drops.contains(&chain));
    let road = Road { address: "192.0.2.1".parse().unwrap(), interface: "eth0".into(), index: 2 };
    let asked = Asked {
        config: &config,
        sidecar: 5678,
        nobody: 60_999,
        families: &[Family::V4],
        stand: Stand { outbound: IPTABLES, inbound: IPTABLES, dns: IPTABLES },
        loopback: ("lo", 1),
        departures: std::slice::from_ref(&road),
        arrivals: std::slice::from_ref(&road),
        servers: &["192.0.2.53".parse().unwrap()],
        ports,
        by_marks: &[Family::V4],
    };
    judge(&asked, &chains)
}

fn plain(rules: &str) -> Vec<Met> {
    found(|_| (), rules, &[], &[22, 80])
}

#[track_caller]
fn one(found: &[Met], dead: bool, words: &[&str]) {
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].dead, dead, "{found:#?}");
    for word in words {
        assert!(found[0].what.contains(word) || found[0].fix.contains(word), "{word}: {found:#?}");
    }
}

#[test]
fn who_alone_was_let_through_is_cut_off() {
    // As images of Oracle's cloud have it.
    let services = "-A OUTPUT -d 169.254.0.0/16 -j InstanceServices\n\
        -A InstanceServices -d 169.254.0.2/32 -p tcp -m owner --uid-owner 0 -m tcp --dport 3260 -j ACCEPT\n\
        -A InstanceServices -d 169.254.0.0/16 -p tcp -j REJECT --reject-with tcp-reset";
    one(
        &plain(services),
        true,
        &["UID 0", "169.254.0.2 TCP port 3260", "--exclude-outbound-ips 169.254.0.2"],
    );
    let excluded = |config: &mut Config| {
        config.redirect.outbound.exclude_ports_for_ips = vec!["169.254.0.0/16".parse().unwrap()];
    };
    assert_eq!(found(excluded, services, &[], &[]), []);
    let user = |config: &mut Config| {
        config.redirect.outbound.exclude_ports_for_uids = vec!["tcp:*:0".parse().unwrap()];
    };
    assert_eq!(found(user, services, &[], &[]), []);
    // Everything but what root sends.
    let all = found(|_| (), "-A OUTPUT -m owner --uid-owner 0 -j ACCEPT", &["OUTPUT"], &[]);
    one(&all, true, &["policy drop", "UID 0", "other hosts"]);
    let sidecar = plain("-A OUTPUT -o eth0 -m owner --uid-owner 5678 -p tcp -j DROP");
    one(&sidecar, true, &["the users whom no rule names"]);
}

#[test]
fn who_was_kept_off_gets_out() {
    let net = "-A OUTPUT -d 203.0.113.0/24 -m owner --uid-owner 5701 -j REJECT";
    one(&plain(net), false, &["keeps UID 5701 from 203.0.113.0/24", "tcp:*:5701", "gets there"]);
    let port = "-A OUTPUT -p tcp -m owner --uid-owner 5701 -m tcp --dport 25 -j DROP";
    one(
        &plain(port),
        false,
        &["TCP port 25 of other hosts", "--exclude-outbound-ports-for-uids tcp:25:5701 "],
    );
    let several = "-A OUTPUT -p tcp -m owner --uid-owner 5701 -m multiport --dports 25,6000:6100 -j DROP";
    one(&plain(several), false, &["--exclude-outbound-ports-for-uids tcp:25,6000-6100:5701 "]);
    let group = "-A OUTPUT -d 203.0.113.0/24 -m owner --gid-owner 900 -j DROP";
    one(&plain(group), false, &["GID 900", "unless it is of that group", "may get there"]);
    // Who does not come to the sidecar either is kept off as before.
    assert_eq!(plain("-A OUTPUT -m owner --uid-owner 5701 -j REJECT"), []);
    // A rule of this table sees the interface by which the packet was to leave.
    assert_eq!(plain("-A OUTPUT -o eth0 -m owner --uid-owner 5701 -j REJECT"), []);
    assert_eq!(plain("-A OUTPUT -d 127.0.0.0/8 -m owner --uid-owner 5701 -j REJECT"), []);
    assert_eq!(plain("-A OUTPUT -d 203.0.113.9/32 -p icmp -m owner --uid-owner 5701 -j REJECT"), []);
}

#[test]
fn questions_and_marks_count_too() {
    let dns = |config: &mut Config| config.redirect.dns.enabled = true;
    let rule = "-A OUTPUT -d 192.0.2.53/32 -p udp -m udp --dport 53 -m owner --uid-owner 5701 -j DROP";
    one(&found(dns, rule, &[], &[]), false, &["the DNS server 192.0.2.53", "udp:53:5701"]);
    assert_eq!(plain(rule), []);
    let mark = "-A OUTPUT -m owner --uid-owner 5702 -j MARK --set-xmark 0x1/0xffffffff";
    one(&plain(mark), false, &["marks what UID 5702 sends", "another route"]);
}

#[test]
fn who_shuts_out_the_sidecar_shuts_out_every_client() {
    for ban in ["-p tcp -m tcp --dport 22 -s 127.0.0.6/32", "-s 127.0.0.6/32"] {
        let rules =
            format!("-A INPUT -j f2b-sshd\n-A f2b-sshd {ban} -j REJECT --reject-with icmp-port-unreachable");
        let all = plain(&rules);
        one(&all, true, &["127.0.0.6", "22", "--exclude-inbound-ports 22"]);
        assert_eq!(all[0].what.contains("80"), !ban.contains("--dport"), "{all:?}");
        let lo = format!("-A INPUT -i lo -j ACCEPT\n{rules}");
        assert_eq!(plain(&lo), []);
    }
    // A list of addresses, and nothing about the loopback interface.
    let list = "-A INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 80 -j ACCEPT";
    let all = found(|_| (), list, &["INPUT"], &[22, 80]);
    one(&all, true, &["policy drop", "TCP port 80"]);
    assert!(!all[0].what.contains("22"), "nobody reached it before: {all:?}");
}

#[test]
fn bans_of_clients_do_not_hold_for_a_redirected_port() {
    let ban = "-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd\n\
        -A f2b-sshd -s 203.0.113.5/32 -j REJECT\n-A f2b-sshd -s 203.0.113.6/32 -j REJECT\n\
        -A f2b-sshd -s 203.0.113.7/32 -j REJECT\n-A f2b-sshd -j RETURN";
    one(&plain(ban), false, &["203.0.113.5/32", "203.0.113.6/32", "up to 1 more", "TCP port 22", "15006"]);
    let all = "-A INPUT -s 203.0.113.5/32 -j DROP";
    assert_eq!(plain(all), [], "it meets what is redirected as well");
    let others = "-A INPUT ! -s 10.0.0.0/8 -p tcp -m tcp --dport 80 -i eth0 -j DROP";
    one(&plain(others), false, &["TCP port 80", "--exclude-inbound-ports 80"]);
    let off = |config: &mut Config| config.redirect.inbound.enabled = false;
    assert_eq!(found(off, ban, &[], &[22]), []);
}

#[test]
fn ordinary_firewalls_say_nothing_about_it() {
    // As ufw, firewalld and Docker begin and end.
    let ufw = "-A INPUT -i lo -j ACCEPT\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -s 192.0.2.0/24 -p tcp -m tcp --dport 80 -j ACCEPT\n\
        -A OUTPUT -o lo -j ACCEPT";
    assert_eq!(found(|_| (), ufw, &["INPUT"], &[22, 80]), []);
    let firewalld = "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT\n-A INPUT -i lo -j ACCEPT\n\
        -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -j REJECT --reject-with icmp-host-prohibited";
    assert_eq!(plain(firewalld), []);
    assert_eq!(plain("-A INPUT -m conntrack --ctstate INVALID -j DROP"), []);
    assert_eq!(plain(""), []);
}

#[test]
fn networks_are_said_as_such() {
    let said = |first: &str, last: &str| {
        let number = |text: &str| number_of(text.parse().unwrap());
        words::networks(&(number(first)..=number(last)))
    };
    assert_eq!(said("10.0.0.0", "10.255.255.255"), "10.0.0.0/8");
    assert_eq!(said("10.0.0.1", "10.0.0.1"), "10.0.0.1");
    assert_eq!(said("10.0.0.1", "10.0.0.2"), "10.0.0.1-10.0.0.2");
    assert_eq!(said("0.0.0.0", "255.255.255.255"), "0.0.0.0/0");
    assert_eq!(said("fd00::", "fd00::ffff"), "fd00::/112");
    assert_eq!(said("fd00::6", "fd00::6"), "fd00::6");
}

#[test]
fn the_ports_that_lose_addresses_are_named_once() {
    let mut config = Config::default();
    config.redirect.inbound.exclude_ports = vec![25.try_into().unwrap()];
    let lost = clients::lost(&config, &[22, 80], &Family::BOTH).unwrap();
    assert!(lost.0.contains("TCP ports 22, 80 sees 127.0.0.6 or ::6"), "{lost:?}");
    assert!(lost.1.contains("--exclude-inbound-ports 25,22,80"));
    assert_eq!(clients::lost(&config, &[], &Family::BOTH), None);
    let many: BTreeSet<u16> = (100..200).collect();
    let many: Vec<u16> = many.into_iter().collect();
    assert!(clients::lost(&config, &many, &[Family::V4]).unwrap().0.contains("and 92 more"));
}
