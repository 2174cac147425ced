//! A host that is as it should be.

use super::verify;
use crate::support::command;
use crate::support::lab::each_backend;

each_backend! {
    /// Given no configuration it takes the recorded one, and says so.
    fn everything_passes(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let said = verify(lab, &[]);
        said.all_pass();
        assert_eq!(said.method(), "listeners");
        assert_eq!(said.json["schema"], 1);
        for id in ["inbound", "sidecar", "self", "dns", "dns-sidecar", "passthrough"] {
            assert_eq!(said.count(id), 2, "{id}, once for each family");
        }
        assert_eq!(said.count("exclusion"), 3, "DNS over TCP, and IPv6's link-local addresses");
        assert_eq!(said.count("outbound"), 4, "and from the address that the host's routes use");
        assert_eq!(said.count("localhost"), 5, "and another address of the host, and another of IPv4's loopback");
        assert!(said.run.stderr.contains("the configuration that the installation recorded"), "{}", said.run.stderr);
    }

    fn every_dns_question(lab, backend) {
        lab.install(backend, &["--redirect-all-dns-traffic"]).succeeds();
        let said = verify(lab, &[]);
        said.all_pass();
        assert_eq!(said.count("dns"), 4, "the host's servers and any other one");
    }

    fn a_server_on_loopback(lab, backend) {
        lab.resolv_conf("nameserver 127.0.0.53\nnameserver ::1\n");
        lab.install(backend, &["--redirect-dns"]).succeeds();
        verify(lab, &[]).all_pass();
    }

    /// Redirection of questions that nobody of a family is asked is not silently taken for proven.
    fn no_server_of_a_family(lab, backend) {
        lab.resolv_conf("nameserver 10.96.0.10\n");
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let said = verify(lab, &[]);
        assert_eq!(said.with_status("not-tested"), ["ipv6 dns"], "{:#}", said.json);
        assert_eq!(said.one("ipv6", "dns")["happened"], "resolv.conf lists no IPv6 DNS server");
        assert_eq!((said.with_status("fail").len(), said.run.code), (0, Some(0)), "{:#}", said.json);
    }

    fn exclusions_of_every_kind(lab, backend) {
        let flags = [
            "--redirect-dns",
            "--exclude-outbound-ports",
            "9000,9001",
            "--exclude-inbound-ports",
            "22,8443",
            "--exclude-outbound-ips",
            "10.5.0.0/16,fd05::/16,127.9.0.0/16",
            "--exclude-inbound-ips",
            "10.9.0.0/16,fd09::/64",
            "--exclude-outbound-ports-for-uids",
            "*:*:7000-7001",
            "--exclude-outbound-ports-for-uids",
            "udp:53:7010",
        ];
        lab.install(backend, &flags).succeeds();
        let said = verify(lab, &[]);
        said.all_pass();
        // Of each family: TCP to port 53, two ports, two in, a network, one in, five for users; one more of IPv4, and
        // link-local addresses.
        assert_eq!(said.count("exclusion"), 2 * 12 + 2);
    }

    /// Addresses that no route leads to are tested as any, and it is said that nobody can send to them.
    fn no_default_route(lab, backend) {
        lab.resolv_conf("nameserver 10.77.0.2\nnameserver fd77::2\n");
        command::must("ip", &["route", "del", "default"]);
        command::must("ip", &["-6", "route", "del", "default"]);
        let flags = [
            "--redirect-dns",
            "--exclude-outbound-ips",
            "10.100.0.0/24,fd10::/64",
            "--exclude-inbound-ips",
            "10.200.0.0/24,fd20::/64",
        ];
        lab.install(backend, &flags).succeeds();
        let said = verify(lab, &[]);
        assert_eq!((said.run.code, said.with_status("fail")), (Some(0), Vec::new()), "{:#}", said.json);
        assert_eq!(said.with_status("not-tested"), ["ipv4 outbound", "ipv6 outbound"], "{:#}", said.json);
    }

    fn only_some_ports(lab, backend) {
        let file = lab.dir().join("some.yaml");
        let config = "redirect: {inbound: {includePorts: [80, 8080]}, outbound: {includePorts: [443, 8443]}}\n";
        std::fs::write(&file, config).unwrap();
        lab.install(backend, &["--config", &file.to_string_lossy()]).succeeds();
        let said = verify(lab, &[]);
        said.all_pass();
        assert_eq!((said.count("outbound"), said.count("inbound"), said.count("exclusion")), (6, 4, 5));
    }

    fn nothing_inbound(lab, backend) {
        lab.install(backend, &["--redirect-inbound=false"]).succeeds();
        verify(lab, &[]).all_pass();
    }

    fn no_zones_are_wanted(lab, backend) {
        lab.install(backend, &["--redirect-dns", "--skip-dns-conntrack-zone-split"]).succeeds();
        verify(lab, &[]).all_pass();
    }

    /// Nobody can be connected to an interface of the host, and nobody says so.
    fn bridges_are_not_tested(lab, backend) {
        lab.install(backend, &["--vnet", "docker0:172.17.0.0/16"]).succeeds();
        let said = verify(lab, &[]);
        said.run.clone().exits(0);
        assert_eq!(said.with_status("not-tested"), ["ipv4 exclusion", "ipv4 outbound"]);
    }

    /// Where only the beginning of its name is given, one can be made.
    fn guests_of_virtual_networks(lab, backend) {
        let networks = ["--vnet", "br-+:172.17.0.0/16", "--vnet", "br-+:fd17::/64", "--redirect-dns"];
        lab.install(backend, &networks).succeeds();
        let said = verify(lab, &[]);
        said.all_pass();
        assert_eq!(said.count("dns"), 4, "an app and a guest, of each family");
        assert_eq!(said.count("outbound"), 6, "and an app as the host's own address");
    }
    /// Each guest has addresses of its own: two with the same would get each other's answers.
    fn many_virtual_networks(lab, backend) {
        let networks: Vec<String> = (1..=16).map(|n| format!("--vnet=br{n}-+:172.17.{n}.0/24")).collect();
        lab.install(backend, &networks.iter().map(String::as_str).collect::<Vec<_>>()).succeeds();
        let said = verify(lab, &[]);
        assert_eq!(said.with_status("fail"), [""; 0], "{:#}", said.json);
        assert_eq!((said.count("outbound"), said.run.code), (4 + 16, Some(0)));
    }
}
