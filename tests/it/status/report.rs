//! What a report says of an installation.

use std::net::IpAddr;

use crate::support::kumactl::{Kumactl, Version};
use crate::support::lab::{each_backend, each_iptables_variant, each_stack};
use crate::support::listener::Listener;
use crate::support::mesh::Mesh;
use crate::support::network::ip;
use crate::support::{APP, Backend, Family, SIDECAR, as_user, client, firewall};

use super::{differences, install, outbound, report, status};

// In the words of iptables, and what kumactl wrote with it; `native` has the same in those of nft.
each_iptables_variant! {
    fn a_flushed_chain_an_extra_rule_and_a_foreign_one(lab, variant) {
        install(lab, variant);
        let v4 = Family::V4;
        let _ = firewall::iptables(variant, v4, "-t nat -F KUMA_MESH_INBOUND").succeeds();
        let _ = firewall::iptables(variant, v4, "-t nat -A KUMA_MESH_OUTBOUND_REDIRECT -p tcp -j ACCEPT").succeeds();
        let _ = firewall::iptables(variant, v4, "-t nat -A PREROUTING -p tcp --dport 1 -m comment --comment kuma/mesh/transparent/proxy -j RETURN").succeeds();
        let mut found = differences(&report(lab, 11, &[]));
        found.sort();
        let wanted = [("extra", "PREROUTING"), ("foreign", "KUMA_MESH_OUTBOUND_REDIRECT"), ("missing", "KUMA_MESH_INBOUND")];
        assert_eq!(found, wanted.map(|(kind, chain)| (kind.to_owned(), chain.to_owned())));
    }

    fn rules_in_the_wrong_order(lab, variant) {
        install(lab, variant);
        let v4 = Family::V4;
        let saved = firewall::rules(variant, v4);
        let rules = saved.chain("nat", "KUMA_MESH_OUTBOUND");
        let last = rules.last().expect("a rule").to_string();
        let args = last.strip_prefix("-A KUMA_MESH_OUTBOUND ").expect("a rule").to_owned();
        firewall::restore(variant, v4, &format!("*nat\n-D KUMA_MESH_OUTBOUND {args}\n-I KUMA_MESH_OUTBOUND 1 {args}\nCOMMIT\n"));
        let found = report(lab, 11, &[]);
        assert_eq!(differences(&found), [("reordered".to_owned(), "KUMA_MESH_OUTBOUND".to_owned())], "{found:#}");
        assert!(args.ends_with(found["differences"][0]["rule"].as_str().expect("a rule").rsplit(" -j ").next().expect("a target")));
    }

    fn kumactls_installation_is_read_off_its_rules(lab, variant) {
        Kumactl { version: Version::V2_14, dns: true }.install(variant);
        ip("addr add ::6/128 dev lo\n");
        // All that is missing is what kumactl does not leave alone.
        let found = report(lab, 11, &[]);
        let rules = || found["differences"].as_array().expect("a list").iter().map(|d| (&d["kind"], &d["rule"]));
        assert!(rules().all(|(kind, rule)| kind == "missing" && rule.to_string().contains("fe80::/10")), "{found:#}");
        assert_eq!(rules().count(), 3);
        assert_eq!(found["comparedWith"], "inferred");
        assert_eq!(found["installedBy"]["program"], "unknown");
        status(lab, &[]).exits(11).prints("unknown: kumactl, or restored from a file");
        assert_eq!(found["installedBy"]["version"], "2.14 or newer");
        assert_eq!(found["variant"], variant.name());
        assert_eq!(found["sidecar"]["uid"], SIDECAR);
        let _ = firewall::iptables(variant, Family::V4, "-t nat -F KUMA_MESH_OUTBOUND").succeeds();
        assert!(differences(&report(lab, 11, &[])).contains(&("missing".into(), "KUMA_MESH_OUTBOUND".into())));
    }

    fn older_kumactls_are_told_apart(lab, variant) {
        let _ = lab;
        for (version, dns, said) in [
            (Version::V2_9, true, "2.9 to 2.12.0"),
            (Version::V2_13_0, true, "2.11.6 to 2.13.0"),
            (Version::V2_13_1, true, "2.11.9 to 2.13"),
            (Version::V2_9, false, "2.9 or newer"),
            (Version::V2_8, false, "2.8 or older, or with comments disabled"),
        ] {
            let missing = crate::support::Lab::elsewhere(move |lab| {
                Kumactl { version, dns }.install(variant);
                ip("addr add ::6/128 dev lo\n");
                let run = status(lab, &["-o", "json"]);
                let found: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
                assert_eq!(found["installedBy"]["version"], said);
                assert_eq!(run.code, Some(11));
                found["differences"].as_array().expect("a list").len()
            });
            // What they wrote about DNS over TCP is not what is written today, and link-local addresses were no exception.
            assert!(if dns { missing > 3 } else { missing == 1 }, "{said}: {missing}");
        }
    }
}

each_backend! {
    fn half_removed_rules_are_missing_one_by_one(lab, backend) {
        install(lab, backend);
        let (chain, least) = match backend {
            Backend::Iptables(variant) => {
                for family in Family::BOTH {
                    let _ = firewall::iptables(variant, family, "-t nat -F OUTPUT").succeeds();
                }
                ("OUTPUT", 6)
            }
            Backend::Nftables => {
                firewall::nft("flush chain inet kuma_mesh output\n");
                ("output", 1)
            }
        };
        let found = report(lab, 11, &[]);
        let missing = differences(&found);
        assert!(missing.len() >= least && missing.iter().all(|(kind, of)| kind == "missing" && of == chain), "{found:#}");
        let text = status(lab, &[]).exits(11).prints("not as wanted").prints("missing").prints("fix: run 'tproxy install'");
        assert!(text.stdout.lines().all(|line| line.chars().count() <= 80), "{text}");
        install(lab, backend);
        report(lab, 0, &[]);
    }

    fn an_installation_without_comments(lab, backend) {
        let _ = lab.install(backend, &["--redirect-dns", "--disable-comments"]).succeeds();
        assert_eq!(report(lab, 0, &[])["comparedWith"], "recorded");
        match backend {
            Backend::Iptables(variant) => {
                let _ = firewall::iptables(variant, Family::V6, "-t nat -F KUMA_MESH_OUTBOUND").succeeds();
            }
            Backend::Nftables => firewall::nft("flush chain inet kuma_mesh outbound\n"),
        }
        assert!(differences(&report(lab, 11, &[])).contains(&("missing".into(), outbound(backend).into())));
    }

    fn an_installation_is_as_wanted(lab, backend) {
        install(lab, backend);
        let found = report(lab, 0, &[]);
        assert_eq!(found["status"], "installed");
        let (name, variant) = match backend {
            Backend::Nftables => ("nftables", None),
            Backend::Iptables(variant) => ("iptables", Some(variant.name())),
        };
        assert_eq!((found["backend"].as_str(), found["variant"].as_str()), (Some(name), variant));
        assert_eq!(found["comparedWith"], "recorded");
        assert_eq!(found["installedBy"]["program"], "tproxy");
        assert_eq!(found["installedBy"]["version"], env!("CARGO_PKG_VERSION"));
        assert!(found["installedBy"]["since"].as_str().expect("a time").ends_with('Z'));
        assert_eq!(found["sidecar"]["uid"], SIDECAR);
        assert_eq!(found["sidecar"]["name"], "kuma-dp");
        assert_eq!(found["ports"]["outbound"], 15001);
        assert_eq!(found["ports"]["inbound"], 15006);
        assert_eq!(found["ports"]["dns"], 15053);
        assert_eq!(found["families"].as_array().expect("a list").len(), 2);
        assert_eq!(found["resolvers"]["asCaptured"], true);
        for list in ["differences", "ahead", "problems"] {
            assert_eq!(found[list].as_array().expect("a list").len(), 0, "{list}: {found:#}");
        }
        let text = status(lab, &[]).exits(0).prints("installed, as wanted").prints("the sidecar listens");
        assert!(text.stdout.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    fn without_a_sidecar_the_host_is_cut_off(lab, backend) {
        install(lab, backend);
        let alone = || lab.program().arg("status").run().exits(11);
        let text = alone().prints("nobody listens on port 15006 (inbound)").prints("nobody listens on port 15001 (outbound)");
        let _ = text.prints("nobody listens on port 15053 (dns)").prints("traffic does not reach the sidecar");
        // On IPv4 alone, in the hands of another program, and for nobody's redirected traffic.
        let listen = |uid, ip: IpAddr, port| as_user(uid, move || Listener::tcp("somebody", ip, port));
        let four = [15001, 15006].map(|port| listen(SIDECAR, Family::V4.any(), port));
        let _ = alone().prints("nobody listens on IPv6 port 15006").prints("nobody listens on IPv6 port 15001");
        drop(four);
        let other = listen(APP, Family::V6.any(), 15001);
        let _ = status(lab, &[]).exits(11).prints("is taken by UID");
        drop(other);
        let elsewhere = listen(SIDECAR, Family::V4.localhost(), 15006);
        let _ = status(lab, &[]).exits(11).prints("is listened on at 127.0.0.1 alone");
        drop(elsewhere);
        // Waits until nobody has a copy of the last one, as children of other threads do for a moment.
        let _again = listen(SIDECAR, Family::V4.any(), 15006);
        let _ = status(lab, &[]).exits(0);
    }

    /// No server of IPv6 is known, so no question over it is redirected, and nobody needs to listen for it.
    fn nobody_needs_to_listen_for_what_is_not_redirected(lab, backend) {
        let dead = "DNS questions over IPv6";
        for servers in ["nameserver 10.96.0.10\n", "nameserver 10.96.0.10\nnameserver fe80::1%eth0\n"] {
            lab.resolv_conf(servers);
            let _sidecar = [15001, 15006].map(|port| as_user(SIDECAR, move || Listener::tcp("sidecar", Family::V6.any(), port)));
            let _of_ipv4 = [15001, 15006].map(|port| as_user(SIDECAR, move || Listener::tcp("sidecar", Family::V4.any(), port)));
            let run = lab.install(backend, &["--redirect-dns"]).succeeds().prints("DNS questions over IPv4 (port 15053)");
            assert!(!run.stdout.contains(dead), "{run}");
            let _dns = as_user(SIDECAR, || Listener::udp("dns", Family::V4.any(), 15053));
            let run = lab.install(backend, &["--redirect-dns"]).succeeds();
            assert!(!run.stdout.contains("what is redirected fails"), "{run}");
            let run = status(lab, &[]).exits(0);
            assert!(!run.stdout.contains("IPv6 port 15053"), "{run}");
            let linked = servers.contains("fe80");
            assert_eq!(run.stdout.contains("no IPv6 DNS servers"), !linked, "{run}");
            assert_eq!(run.stdout.contains("questions to fe80::1 are not"), linked, "{run}");
        }
    }

    /// What is flushed refuses nobody's connections.
    fn nobody_needs_to_listen_where_the_rules_are_flushed(lab, backend) {
        install(lab, backend);
        match backend {
            Backend::Nftables => firewall::nft("flush table inet kuma_mesh\n"),
            Backend::Iptables(variant) => Family::BOTH.into_iter().for_each(|family| {
                firewall::restore(variant, family, "*nat\n-F\nCOMMIT\n");
            }),
        }
        let run = lab.program().arg("status").run();
        assert!(!run.stdout.contains("nobody listens"), "{run}");
        let _ = run.prints("no rule redirects anything");
        let ports = &report(lab, 11, &[])["ports"];
        assert!(["outbound", "inbound", "dns"].iter().all(|name| ports[name].is_null()), "{ports:#}");
    }

    fn the_sidecars_ipv6_address_is_missed(lab, backend) {
        install(lab, backend);
        ip("addr del ::6/128 dev lo\n");
        let found = report(lab, 11, &[]);
        let problems = found["problems"].as_array().expect("a list");
        assert_eq!(problems.len(), 1, "{found:#}");
        assert!(problems[0]["what"].as_str().is_some_and(|what| what.contains("::6 is gone from lo")), "{found:#}");
        assert!(problems[0]["fix"].as_str().is_some_and(|fix| fix.contains("tproxy install")), "{found:#}");
        install(lab, backend);
        report(lab, 0, &[]);
        // Nobody needs it for IPv4.
        let _ = lab.install(backend, &["--ip-family-mode", "ipv4"]).succeeds();
        report(lab, 0, &[]);
    }

    fn what_was_given_counts_more_than_what_was_recorded(lab, backend) {
        install(lab, backend);
        let user = ["--kuma-dp-user", "kuma-dp"];
        let tools = firewall::executables(backend.tools());
        let named = ["--iptables-executables", tools.as_str()];
        let same = report(lab, 0, &[&user[..], &named, &["--redirect-dns"]].concat());
        assert_eq!(same["comparedWith"], "given");
        let other = report(lab, 11, &[&user[..], &named, &["--redirect-dns", "--exclude-outbound-ports", "7"]].concat());
        assert!(differences(&other).contains(&("missing".into(), outbound(backend).into())), "{other:#}");
        // Where to look is not what is wanted.
        assert_eq!(report(lab, 0, &named)["comparedWith"], "recorded");
    }

    fn everything_that_can_be_configured_is_as_wanted(lab, backend) {
        let flags = [
            "--redirect-all-dns-traffic", "--vnet", "docker0:172.17.0.0/16", "--drop-invalid-packets",
            "--exclude-outbound-ports-for-uids", "tcp:80,90-99:106-108", "--exclude-outbound-ips", "10.0.0.1",
            "--exclude-inbound-ports", "22", "--exclude-inbound-ips", "192.168.0.1,fe80::/10", "--iptables-logs",
        ];
        let _ = lab.install(backend, &flags).succeeds();
        assert_eq!(report(lab, 0, &[])["comparedWith"], "recorded");
        // Without the record, the rules tell the same.
        std::fs::remove_dir_all("/run/tproxy").expect("a record");
        assert_eq!(report(lab, 0, &[])["comparedWith"], "inferred");
    }
}

each_stack! {
    fn hits_and_listeners(lab, backend, family) {
        let _ = lab.install(backend, &["--redirect-dns", "--exclude-outbound-ports", "7777"]).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.connect(APP, family.outside(), 80), "outbound");
        assert_eq!(mesh.connect(APP, family.elsewhere(), 81), "outbound");
        assert_eq!(mesh.visit(lab, 8080), "inbound");
        assert_eq!(mesh.ask(APP, family.resolver()), "dns");
        let _ = mesh.connect(APP, family.outside(), 7777);
        // Beside this sidecar, which speaks one family.
        let run = lab.program().args(["status", "-o", "json"]).run().exits(11);
        let found: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
        assert_eq!(found["redirected"]["outbound"], 2, "{found:#}");
        assert_eq!(found["redirected"]["inbound"], 1);
        assert_eq!(found["redirected"]["dns"], 1);
        assert_eq!(found["excluded"], 1);
        // The rules of our own table are both families'.
        assert_eq!(found["families"][0]["redirected"]["outbound"].is_null(), backend == Backend::Nftables);
        let name = format!("ip{}", if family == Family::V4 { "v4" } else { "v6" });
        for listener in found["listeners"].as_array().expect("a list") {
            let wanted = if listener["family"] == name { "sidecar" } else { "nobody" };
            assert_eq!(listener["listens"], wanted, "{listener}");
        }
    }

    fn a_port_taken_by_somebody_else(lab, backend, family) {
        install(lab, backend);
        let _taken = as_user(APP, move || Listener::tcp("app", family.any(), 15001));
        let name = format!("ip{}", if family == Family::V4 { "v4" } else { "v6" });
        let found = report(lab, 11, &[]);
        let all = found["listeners"].as_array().expect("a list");
        let outbound = all.iter().find(|l| l["name"] == "outbound" && l["family"] == name).expect("the port");
        assert_eq!((outbound["listens"].as_str(), outbound["uid"].as_u64()), (Some("other"), Some(APP.into())));
        let _ = status(lab, &[]).prints("port 15001").prints(&format!("taken by UID {APP}"));
        let _ = client::connect_to((family.localhost(), 15001).into()).expect("somebody answers");
    }
}

/// The names in a report, at every depth.
fn keys(value: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                found.insert(key.clone());
                keys(value, found);
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

#[test]
fn the_documentation_names_every_key() {
    crate::support::Lab::enter(|lab| {
        let mut found = std::collections::BTreeSet::new();
        keys(&report(lab, 10, &[]), &mut found);
        install(lab, firewall::Variant::Nft);
        keys(&report(lab, 0, &[]), &mut found);
        let _taken = as_user(APP, || Listener::tcp("app", Family::V4.any(), 15001));
        let _elsewhere = as_user(SIDECAR, || Listener::tcp("sidecar", Family::V4.localhost(), 15006));
        let v4 = Family::V4;
        let _ = firewall::iptables(firewall::Variant::Nft, v4, "-t nat -I OUTPUT -p tcp --dport 1 -j ACCEPT")
            .succeeds();
        let _ = firewall::iptables(firewall::Variant::Nft, v4, "-t nat -F KUMA_MESH_INBOUND").succeeds();
        lab.resolv_conf("nameserver 10.96.0.99\n");
        let last = report(lab, 11, &[]);
        keys(&last, &mut found);
        assert!(
            last["listeners"].as_array().expect("a list").iter().any(|l| l["listens"] == "elsewhere"),
            "{last:#}"
        );
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/status.md"))
            .expect("the file");
        for key in ["kind", "takes", "uid", "process", "address", "error"] {
            assert!(found.contains(key), "{key} was not seen: {last:#}");
        }
        for key in found {
            assert!(text.contains(&format!("`{key}`")), "{key} is not in docs/status.md");
        }
    });
}
