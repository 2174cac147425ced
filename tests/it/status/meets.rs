//! Rules about users and addresses that meet the sidecar in place of others.

use std::net::SocketAddr;

use crate::support::client::connect_from;
use crate::support::command::must;
use crate::support::lab::{each_backend, each_stack};
use crate::support::mesh::{APP_PORT, Mesh, name};
use crate::support::users::as_user;
use crate::support::{APP, Backend, Family, Lab, SIDECAR, firewall};

use super::{report, status};

/// Appends a rule to the table `filter` by the tools of a backend.
fn rule(backend: Backend, family: Family, rule: &str) {
    let _ = firewall::iptables(backend.tools(), family, &format!("-A {rule}")).succeeds();
}

/// What status says of such rules, where it ends with this code.
#[track_caller]
fn met(lab: &Lab, code: i32) -> Vec<String> {
    let found = report(lab, code, &[]);
    let all = found["meetSidecar"].as_array().expect("a list");
    all.iter().map(|met| format!("{} {}", met["what"], met["dead"])).collect()
}

#[track_caller]
fn one(all: &[String], words: &[&str]) {
    assert!(all.len() == 1 && words.iter().all(|word| all[0].contains(word)), "{words:?}: {all:#?}");
}

fn as_passthrough(family: Family, port: u16) -> String {
    let to = SocketAddr::new(family.host(), port);
    name(as_user(SIDECAR, move || connect_from(Some(family.passthrough()), to)))
}

each_stack! {
    fn who_was_kept_off_gets_out_and_an_exclusion_cures_it(lab, backend, family) {
        let mesh = Mesh::new(lab, family);
        let out = family.outside();
        rule(backend, family, &format!("OUTPUT -p tcp -d {out} -m owner --uid-owner {APP} -j REJECT"));
        assert!(mesh.connect(APP, out, 80).starts_with("nobody"));
        let run = lab.install(backend, &[]).succeeds();
        let _ = run.says(&format!("keeps UID {APP} from {out}"));
        assert_eq!((mesh.connect(APP, out, 80), mesh.connect(SIDECAR, out, 80)), ("outbound".into(), "world".into()));
        one(&met(lab, 0), &[&format!("keeps UID {APP} from {out}"), "gets there", "false"]);
        let _ = lab.install(backend, &["--exclude-outbound-ports-for-uids", &format!("tcp:*:{APP}")]).succeeds();
        assert!(mesh.connect(APP, out, 80).starts_with("nobody"));
        assert_eq!(met(lab, 0), [""; 0]);
    }

    fn who_alone_was_let_through_is_cut_off(lab, backend, family) {
        let mesh = Mesh::new(lab, family);
        let out = family.outside();
        rule(backend, family, &format!("OUTPUT -p tcp -d {out} -m owner --uid-owner {APP} -j ACCEPT"));
        rule(backend, family, &format!("OUTPUT -p tcp -d {out} -j REJECT"));
        assert_eq!(mesh.connect(APP, out, 80), "world");
        let _ = lab.install(backend, &[]).succeeds();
        assert_eq!(mesh.connect(APP, out, 80), "outbound");
        assert!(mesh.connect(SIDECAR, out, 80).starts_with("nobody"));
        one(&met(lab, 11), &[&format!("redirected connections of UID {APP} to {out}"), "true"]);
        let net = out.to_string();
        let _ = lab.install(backend, &["--exclude-outbound-ips", &net]).succeeds();
        assert_eq!(mesh.connect(APP, out, 80), "world");
        assert_eq!(met(lab, 0), [""; 0]);
    }

    fn who_does_not_come_to_the_sidecar_stays_off(lab, backend, family) {
        let mesh = Mesh::new(lab, family);
        for kept in ["", "-o eth0 ", "! -o lo "] {
            rule(backend, family, &format!("OUTPUT {kept}-m owner --uid-owner {APP} -j REJECT"));
            let _ = lab.install(backend, &[]).succeeds();
            let answer = mesh.connect(APP, family.outside(), 80);
            assert!(answer.starts_with("nobody"), "{kept}: {answer}");
            assert_eq!(met(lab, 0), [""; 0], "{kept}");
            let _ = firewall::iptables(backend.tools(), family, "-F OUTPUT").succeeds();
        }
    }

    fn a_ban_of_the_sidecars_address_shuts_the_port_for_all(lab, backend, family) {
        let _mesh = Mesh::new(lab, family);
        let from = family.passthrough();
        for (ban, other) in [(format!("-p tcp --dport {APP_PORT} -s {from}"), 0), (format!("-s {from}"), 1)] {
            let _ = lab.install(backend, &[]).succeeds();
            assert_eq!(as_passthrough(family, APP_PORT), "app");
            rule(backend, family, &format!("INPUT {ban} -j REJECT"));
            assert!(as_passthrough(family, APP_PORT).starts_with("nobody"));
            let all = met(lab, 11);
            one(&all, &[&from.to_string(), &APP_PORT.to_string(), "nobody reaches", "true"]);
            assert_eq!(all[0].contains("9090"), other == 1, "{all:?}");
            let flags = ["--exclude-inbound-ports", &format!("{APP_PORT},9090")];
            let _ = lab.install(backend, &flags).succeeds();
            assert_eq!(met(lab, 0), [""; 0]);
            let _ = firewall::iptables(backend.tools(), family, "-F INPUT").succeeds();
        }
    }

    fn bans_of_clients_do_not_hold_any_more(lab, backend, family) {
        let mesh = Mesh::new(lab, family);
        rule(backend, family, &format!("INPUT -p tcp --dport {APP_PORT} -s {} -j REJECT", family.peer()));
        assert!(mesh.visit(lab, APP_PORT).starts_with("nobody"));
        let _ = lab.install(backend, &[]).succeeds().says("keeps clients by their addresses");
        assert_eq!((mesh.visit(lab, APP_PORT), as_passthrough(family, APP_PORT)), ("inbound".into(), "app".into()));
        one(&met(lab, 0), &["keeps clients by their addresses", &APP_PORT.to_string(), "false"]);
        let _ = lab.install(backend, &["--exclude-inbound-ports", &APP_PORT.to_string()]).succeeds();
        assert!(mesh.visit(lab, APP_PORT).starts_with("nobody"));
        assert_eq!(met(lab, 0), [""; 0]);
    }
}

each_backend! {
    fn routes_of_some_users_are_named(lab, backend) {
        let _ = must("ip", &["rule", "add", "uidrange", "5702-5702", "lookup", "77"]);
        let run = lab.install(backend, &[]).succeeds();
        let _ = run.says("gives UID 5702 the routes of table 77").says("tcp:*:5702");
        one(&met(lab, 0), &["UID 5702", "false"]);
        let _ = lab.install(backend, &["--exclude-outbound-ports-for-uids", "tcp:*:5702"]).succeeds();
        assert_eq!(met(lab, 0), [""; 0]);
    }

    fn ports_that_lose_the_addresses_of_clients_are_named(lab, backend) {
        let _mesh = Mesh::new(lab, Family::V4);
        // Nothing here goes by clients' addresses.
        let run = lab.install(backend, &[]).succeeds();
        assert!(!run.stderr.contains("in place of the client's address"), "{run}");
        let _ = lab.uninstall(backend, &[]).succeeds();
        rule(backend, Family::V4, "INPUT -s 198.51.100.7 -j DROP");
        let lost = "sees 127.0.0.6 or ::6 in place of the client's address";
        let run = lab.install(backend, &[]).succeeds().says(lost);
        let _ = run.says("TCP ports 8080, 9090").says("--exclude-inbound-ports 8080,9090");
        let run = lab.install(backend, &["--exclude-inbound-ports", "8080,9090"]).succeeds();
        assert!(!run.stderr.contains("in place of the client's address"), "{run}");
    }

    fn a_proof_does_not_pass_them_in_silence(lab, backend) {
        let out = Family::V4.outside();
        rule(backend, Family::V4, &format!("OUTPUT -p tcp -d {out} -m owner --uid-owner {APP} -j REJECT"));
        let run = lab.install(backend, &["--verify"]).succeeds();
        let _ = run.prints("not tested  IPv4 rules").prints("gets there");
        rule(backend, Family::V4, &format!("OUTPUT -p tcp -d {} -m owner --uid-owner 0 -j ACCEPT", Family::V4.elsewhere()));
        rule(backend, Family::V4, &format!("OUTPUT -p tcp -d {} -j REJECT", Family::V4.elsewhere()));
        let run = lab.install(backend, &["--verify", "--redirect-dns"]).exits(1);
        let _ = run.prints("FAILED      IPv4 rules: rules about users and addresses");
        let _ = status(lab, &[]).prints("Rules that meet the sidecar in place of others");
    }
}

each_stack! {
    fn native_rules_are_understood_as_well(lab, backend, family) {
        let mesh = Mesh::new(lab, family);
        let (out, ip) = (family.outside(), family.nft());
        firewall::nft(&format!(
            "table inet mine {{\nset banned {{\ntype {}_addr\nelements = {{ {} }}\n}}\nchain out {{\ntype filter hook output \
             priority 0\nmeta skuid {APP} {ip} daddr {out} reject\n}}\nchain in {{\ntype filter hook input priority 0\ntcp \
             dport {APP_PORT} {ip} saddr @banned drop\n}}\n}}\n",
            if family == Family::V4 { "ipv4" } else { "ipv6" },
            family.passthrough(),
        ));
        let _ = lab.install(backend, &[]).succeeds();
        assert_eq!((mesh.connect(APP, out, 80), mesh.connect(SIDECAR, out, 80)), ("outbound".into(), "world".into()));
        assert!(as_passthrough(family, APP_PORT).starts_with("nobody"));
        let all = met(lab, 11).join("\n");
        assert!(all.contains(&format!("keeps UID {APP}")) && all.contains("nobody reaches TCP port 8080"), "{all}");
    }
}
