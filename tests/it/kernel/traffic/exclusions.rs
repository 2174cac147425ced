//! What is left alone: by port, address, user and direction.

use crate::support::lab::{each_stack, skip};
use crate::support::mesh::{APP_PORT, APP_PORT_2, Mesh};
use crate::support::users::exists_here;
use crate::support::{APP, Family};

each_stack! {
    fn outbound_ports(lab, backend, family) {
        lab.install(backend, &["--exclude-outbound-ports", "2000,2001"]).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.connect(APP, family.outside(), 2000), "world");
        assert_eq!(mesh.connect(APP, family.outside(), 2001), "world");
        assert_eq!(mesh.connect(APP, family.outside(), 2002), "outbound");
    }

    fn more_outbound_ports_than_one_rule_holds(lab, backend, family) {
        let ports = (2000..2040).map(|port| port.to_string()).collect::<Vec<_>>().join(",");
        lab.install(backend, &["--exclude-outbound-ports", &ports]).succeeds();
        let mesh = Mesh::new(lab, family);
        for port in [2000, 2014, 2015, 2029, 2030, 2039] {
            assert_eq!(mesh.connect(APP, family.outside(), port), "world", "port {port}");
        }
        for port in [1999, 2040] {
            assert_eq!(mesh.connect(APP, family.outside(), port), "outbound", "port {port}");
        }
    }

    fn inbound_ports(lab, backend, family) {
        lab.install(backend, &["--exclude-inbound-ports", "9090"]).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.visit(lab, APP_PORT_2), "app");
        assert_eq!(mesh.visit(lab, APP_PORT), "inbound");
    }

    fn outbound_addresses(lab, backend, family) {
        let ips = ["--exclude-outbound-ips", "203.0.113.64/26,2001:db8::40/122"];
        lab.install(backend, &ips).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.connect(APP, family.elsewhere(), 443), "world");
        assert_eq!(mesh.connect(APP, family.outside(), 443), "outbound");
    }

    fn inbound_addresses(lab, backend, family) {
        lab.install(backend, &["--exclude-inbound-ips", "10.77.0.2,fd77::2"]).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.visit(lab, APP_PORT), "app");
        let others = ["--exclude-inbound-ips", "10.77.0.3", "--exclude-inbound-ips", "fd77::3"];
        lab.install(backend, &others).succeeds();
        assert_eq!(mesh.visit(lab, APP_PORT), "inbound");
    }

    fn users_and_their_ports(lab, backend, family) {
        let flags = [
            "--exclude-outbound-ports-for-uids", "tcp:4000-5000,53:5800-5805",
            "--exclude-outbound-ports-for-uids", "5900",
            "--exclude-outbound-ports-for-uids", "udp:*:5901",
            "--redirect-dns",
        ];
        lab.install(backend, &flags).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.connect(5800, family.outside(), 4000), "world");
        assert_eq!(mesh.connect(5805, family.outside(), 5000), "world");
        assert_eq!(mesh.connect(5805, family.outside(), 5001), "outbound");
        assert_eq!(mesh.connect(5806, family.outside(), 4000), "outbound");
        assert_eq!(mesh.ask(5800, family.resolver()), "dns", "only its TCP is excluded");
        assert_eq!(mesh.connect(5900, family.outside(), 443), "world");
        assert_eq!(mesh.ask(5900, family.resolver()), "resolver");
        assert_eq!(mesh.connect(5901, family.outside(), 443), "outbound");
        assert_eq!(mesh.ask(5901, family.resolver()), "resolver");
    }

    fn a_user_beyond_16_bits(lab, backend, family) {
        const OPENSHIFT: u32 = 1_000_680_000;
        if !exists_here(OPENSHIFT) {
            return skip("the user namespace does not map UID 1000680000");
        }
        lab.install(backend, &["--exclude-outbound-ports-for-uids", "1000680000"]).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.connect(OPENSHIFT, family.outside(), 443), "world");
        assert_eq!(mesh.connect(OPENSHIFT + 1, family.outside(), 443), "outbound");
        assert_eq!(mesh.connect(OPENSHIFT & 0xffff, family.outside(), 443), "outbound");
    }

    fn a_users_many_ports(lab, backend, family) {
        // Nine ranges and two ports take twenty of the fifteen places that a rule has.
        let ports = "1000-1001,1010-1011,1020-1021,1030-1031,1040-1041,1050-1051,1060-1061,1070-1071,1080-1081,1090,1099";
        lab.install(backend, &["--exclude-outbound-ports-for-uids", &format!("tcp:{ports}:5700")]).succeeds();
        let mesh = Mesh::new(lab, family);
        for port in [1000, 1001, 1061, 1070, 1081, 1090, 1099] {
            assert_eq!(mesh.connect(APP, family.outside(), port), "world", "port {port}");
        }
        for port in [1002, 1091] {
            assert_eq!(mesh.connect(APP, family.outside(), port), "outbound", "port {port}");
        }
    }

    fn only_some_ports_included(lab, backend, family) {
        let config = "redirect:\n  outbound:\n    includePorts: [443, 444]\n  inbound:\n    includePorts: [8080]\n";
        lab.installing(backend, &["--config", "-"]).stdin(config).run().succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.connect(APP, family.outside(), 443), "outbound");
        assert_eq!(mesh.connect(APP, family.outside(), 444), "outbound");
        assert_eq!(mesh.connect(APP, family.outside(), 445), "world");
        assert_eq!(mesh.visit(lab, APP_PORT), "inbound");
        assert_eq!(mesh.visit(lab, APP_PORT_2), "app");
    }

    fn inbound_off(lab, backend, family) {
        lab.install(backend, &["--redirect-inbound=false"]).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.visit(lab, APP_PORT), "app");
        assert_eq!(mesh.connect(APP, family.outside(), 443), "outbound");
    }

    fn outbound_off(lab, backend, family) {
        let off = |program: crate::support::command::Program| {
            program.env("KUMA_TRANSPARENT_PROXY_REDIRECT_OUTBOUND_ENABLED", "false")
        };
        off(lab.installing(backend, &[])).run().succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.connect(APP, family.outside(), 443), "world");
        assert_eq!(mesh.visit(lab, APP_PORT), "inbound");
    }

    fn ipv4_alone(lab, backend, family) {
        lab.install(backend, &["--ip-family-mode", "IPv4"]).succeeds();
        let mesh = Mesh::new(lab, family);
        let (out, into) = match family {
            Family::V4 => ("outbound", "inbound"),
            Family::V6 => ("world", "app"),
        };
        assert_eq!(mesh.connect(APP, family.outside(), 443), out);
        assert_eq!(mesh.visit(lab, APP_PORT), into);
    }
}
