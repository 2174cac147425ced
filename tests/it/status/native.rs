//! The rules are in our own nftables table.

use std::net::IpAddr;

use tproxy::backend::nftables::{lower, text};
use tproxy::config::{self, File, Layers};
use tproxy::host::{HostFacts, Ipv6Support, Resolver};
use tproxy::plan;

use crate::support::command::find;
use crate::support::generation::nft_generation;
use crate::support::lab::{Lab, everywhere, skip};
use crate::support::listener::Listener;
use crate::support::network::ip;
use crate::support::snapshot::Snapshot;
use crate::support::{APP, Backend, Family, SIDECAR, Variant, as_user, backend, firewall};

use super::{differences, report, status};

const WANTED: &str = "kumaDPUser: kuma-dp
redirect: { dns: { enabled: true }, outbound: { excludePorts: [7777, 7000] }, inbound: { excludePorts: [22] } }
";

/// The table as an installation makes it, and the flags that ask for it.
fn install(lab: &Lab, wanted: &str) -> [String; 2] {
    let file = lab.dir().join("wanted.yaml");
    std::fs::write(&file, wanted).expect("a file of the lab");
    let layers = Layers {
        files: vec![File { name: "wanted.yaml".into(), text: wanted.to_owned(), recorded: false }],
        ..Layers::default()
    };
    let config = config::resolve(&layers).expect("a configuration").config;
    let servers = Family::BOTH.map(|family| Resolver { addr: family.resolver(), zone: None });
    let facts = HostFacts {
        sidecar_uid: SIDECAR,
        loopback: "lo".into(),
        ipv6: Ipv6Support::Available,
        resolvers: servers.into(),
        docker_dns: false,
        translated: tproxy::host::Translated::default(),
    };
    let table = lower::table(&plan::build(&config, &facts), !config.comments.disabled);
    firewall::nft(&text::replace(&table));
    ip("addr replace ::6/128 dev lo\n");
    ["--config".to_owned(), file.display().to_string()]
}

fn flags(flags: &[String; 2]) -> [&str; 2] {
    [&flags[0], &flags[1]]
}

#[test]
fn a_table_is_as_wanted() {
    Lab::enter(|lab| {
        let given = install(lab, WANTED);
        let found = report(lab, 0, &flags(&given));
        assert_eq!((found["backend"].as_str(), found["variant"].as_str()), (Some("nftables"), None));
        assert_eq!(found["comparedWith"], "given");
        assert_eq!(found["sidecar"]["uid"], SIDECAR);
        assert_eq!(found["ports"]["outbound"], 15001);
        assert_eq!(found["ports"]["inbound"], 15006);
        assert_eq!(found["ports"]["dns"], 15053);
        assert_eq!(found["families"].as_array().expect("a list").len(), 2, "{found:#}");
        assert_eq!(found["resolvers"]["asCaptured"], true, "{found:#}");
        assert_eq!(found["listeners"].as_array().expect("a list").len(), 6);
        let text = status(lab, &flags(&given)).exits(0).prints("installed, as wanted");
        let text = text.prints("in the nftables table inet kuma_mesh:");
        assert!(text.stdout.lines().all(|line| line.chars().count() <= 80), "{text}");
    });
}

#[test]
fn everything_that_can_be_configured_is_as_wanted() {
    Lab::enter(|lab| {
        for wanted in [
            "kumaDPUser: kuma-dp\nredirect: { dns: { enabled: true, captureAll: true }, vnet: { networks: \
             ['docker0:172.17.0.0/16', 'br+:fd00:1::/64'] }, outbound: { excludePortsForUIDs: ['tcp:80,90-99:106-108'], \
             excludePortsForIPs: [10.0.0.1, 10.0.0.2, 'fd00::/8'] }, inbound: { excludePortsForIPs: [192.168.0.1, \
             'fe80::/10'] } }\ndropInvalidPackets: true\nlog: { enabled: true }\n",
            "kumaDPUser: kuma-dp\nipFamilyMode: ipv4\ncomments: { disabled: true }\n",
            "kumaDPUser: kuma-dp\nredirect: { inbound: { enabled: false }, outbound: { includePorts: [80, 443], \
             insertRedirectInsteadOfAppend: true } }\n",
        ] {
            let given = install(lab, wanted);
            let found = report(lab, 0, &flags(&given));
            let families = if wanted.contains("ipv4\n") { 1 } else { 2 };
            assert_eq!(found["families"].as_array().expect("a list").len(), families, "{found:#}");
            // There is no record; the table tells the same.
            let found = report(lab, 0, &[]);
            assert_eq!(found["comparedWith"], "inferred", "{found:#}");
        }
    });
}

#[test]
fn without_a_record_the_table_is_compared_with_what_it_says_itself() {
    Lab::enter(|lab| {
        let mut given = install(lab, WANTED);
        let found = report(lab, 0, &[]);
        assert_eq!(found["comparedWith"], "inferred");
        assert_eq!(found["ports"]["outbound"], 15001);
        assert_eq!(found["sidecar"]["uid"], SIDECAR);
        let _ = status(lab, &[]).exits(0).prints("read off the rules");
        // What was lost shows.
        firewall::nft("flush chain inet kuma_mesh inbound\n");
        let found = report(lab, 11, &[]);
        let missing = ("missing".to_owned(), "inbound".to_owned());
        assert_eq!(differences(&found), [missing.clone(), missing], "{found:#}");
        // Where the host's own address is a server, the order of servers counts.
        lab.resolv_conf(
            "nameserver 10.0.0.9\nnameserver 127.0.0.53\nnameserver 127.0.0.1\nnameserver 10.0.0.2\n",
        );
        given[1] = format!("{}.yaml", given[1]);
        std::fs::write(
            &given[1],
            "kumaDPUser: kuma-dp\nbackend: nftables\nredirect: { dns: { enabled: true } }\n",
        )
        .expect("a file of the lab");
        let _ = lab.program().arg("install").args(&given).run().succeeds();
        report(lab, 0, &[]);
        std::fs::remove_dir_all("/run/tproxy").expect("a record");
        assert_eq!(report(lab, 0, &[])["comparedWith"], "inferred");
    });
}

#[test]
fn every_kind_of_difference_is_named() {
    Lab::enter(|lab| {
        let given = install(lab, WANTED);
        firewall::nft(
            "add element inet kuma_mesh excluded_outbound_ports { 9 }\n\
             delete element inet kuma_mesh excluded_outbound_ports { 7777 }\n\
             add rule inet kuma_mesh outbound_redirect tcp dport 9 accept\n\
             add rule inet kuma_mesh inbound_redirect meta mark 1 accept\n\
             flush chain inet kuma_mesh inbound\n\
             add chain inet kuma_mesh theirs\n",
        );
        let found = report(lab, 11, &flags(&given));
        let all = found["differences"].as_array().expect("a list");
        let has = |kind: &str, place: &str, rule: &str| {
            let (key, place) = place.split_once(' ').expect("chain or set");
            all.iter().any(|d| {
                d["kind"] == kind && d[key] == place && d["rule"].as_str().is_some_and(|r| r.contains(rule))
            })
        };
        for (kind, place, rule) in [
            ("extra", "set excluded_outbound_ports", "9"),
            ("missing", "set excluded_outbound_ports", "7777"),
            ("foreign", "chain outbound_redirect", "tcp dport 9"),
            ("foreign", "chain inbound_redirect", "accept"),
            ("missing", "chain inbound", "jump inbound_redirect"),
            ("extra", "chain theirs", ""),
        ] {
            assert!(has(kind, place, rule), "{kind} {place} {rule}: {found:#}");
        }
        assert!(all.iter().all(|d| d["table"] == "inet kuma_mesh" && d["variant"].is_null()), "{found:#}");
        let text = status(lab, &flags(&given)).exits(11);
        let text =
            text.prints("inet kuma_mesh set excluded_outbound_ports").prints("inet kuma_mesh chain inbound");
        assert!(text.stdout.lines().all(|line| line.chars().count() <= 80), "{text}");
    });
}

#[test]
fn a_rule_in_another_place_is_reordered() {
    Lab::enter(|lab| {
        let given = install(lab, WANTED);
        let listed =
            crate::support::command::must("nft", &["-a", "list", "chain", "inet", "kuma_mesh", "outbound"]);
        let last = listed.lines().rfind(|line| line.contains("# handle")).expect("a rule").trim();
        let (rule, handle) = last.rsplit_once(" # handle ").expect("a handle");
        let uncounted = rule.replace("counter packets 0 bytes 0", "counter");
        firewall::nft(&format!(
            "delete rule inet kuma_mesh outbound handle {handle}\ninsert rule inet kuma_mesh outbound {uncounted}\n"
        ));
        let found = report(lab, 11, &flags(&given));
        assert_eq!(differences(&found), [("reordered".to_owned(), "outbound".to_owned())], "{found:#}");
    });
}

#[test]
fn what_comes_first_is_named() {
    Lab::enter(|lab| {
        let given = install(lab, WANTED);
        let ahead = |code: i32| -> Vec<String> {
            let found = report(lab, code, &flags(&given));
            let all = found["ahead"].as_array().expect("a list");
            all.iter()
                .map(|a| {
                    format!(
                        "{} {}",
                        a["place"].as_str().expect("a text"),
                        a["traffic"].as_str().expect("a text")
                    )
                })
                .collect()
        };
        let mine = |priority: i32| {
            firewall::nft(&format!(
                "table ip mine\ndelete table ip mine\ntable ip mine {{\n chain out {{\n \
                 type nat hook output priority {priority}\n tcp dport 9999 redirect to :1\n }}\n}}\n"
            ));
        };
        for (priority, code) in [(-110, 11), (-100, 11), (-95, 11), (-94, 0)] {
            mine(priority);
            assert_eq!(ahead(code).len(), usize::from(code > 0), "{priority}");
        }
        for variant in Variant::BOTH {
            let take = "*nat\n-A OUTPUT -p tcp -m tcp --dport 9999 -j REDIRECT --to-ports 1\nCOMMIT\n";
            firewall::restore(variant, Family::V4, take);
            let place = ["nftables table ip nat outbound", "nat OUTPUT (legacy) outbound"];
            assert_eq!(ahead(11), [place[usize::from(variant == Variant::Legacy)]]);
            let _ = firewall::iptables(variant, Family::V4, "-t nat -F OUTPUT").succeeds();
            // What only accepts lets the next chain see the packet.
            let _ = firewall::iptables(variant, Family::V4, "-t nat -A OUTPUT -p tcp -j ACCEPT").succeeds();
            assert_eq!(ahead(0), [""; 0]);
        }
        let untrack = "*raw\n-A OUTPUT -p tcp -m tcp --dport 9999 -j CT --notrack\nCOMMIT\n";
        firewall::restore(Variant::Nft, Family::V4, untrack);
        assert_eq!(ahead(11), ["nftables table ip raw outbound"]);
        let _ = firewall::iptables(Variant::Nft, Family::V4, "-t raw -F OUTPUT").succeeds();
        // Our name in another family is somebody else's table.
        firewall::nft(
            "table ip kuma_mesh {\n chain out {\n type nat hook output priority -110\n tcp dport 9999 redirect to :1\n }\n}\n",
        );
        assert_eq!(ahead(11), ["nftables table ip kuma_mesh outbound"]);
    });
}

/// Translation of addresses by others: of each family, at each hook, before, at and after ours.
#[test]
fn translation_at_other_priorities_is_named() {
    Lab::enter(|lab| {
        let given = install(lab, WANTED);
        let mine = |family: &str, hook: &str, priority: &str, rule: &str| {
            firewall::nft(&format!(
                "table {family} mine {{}}\ndelete table {family} mine\ntable {family} mine {{\n chain c {{\n \
                 type nat hook {hook} priority {priority}\n {rule}\n }}\n}}\n"
            ));
        };
        let texts = |found: &serde_json::Value, list: &str, key: &str| -> String {
            let all = found[list].as_array().expect("a list").iter();
            all.map(|item| item[key].as_str().expect("a text").to_owned() + "\n").collect()
        };
        for family in ["inet", "ip", "ip6"] {
            let place = format!("nftables table {family} mine");
            for (hook, priority, number) in
                [("output", "-101", -101), ("output", "-99", -99), ("prerouting", "dstnat - 20", -120)]
            {
                mine(family, hook, priority, "tcp dport 9999 counter redirect to :1");
                let found = report(lab, 11, &flags(&given));
                assert!(texts(&found, "ahead", "place").contains(&place), "{found:#}");
                let chain = format!("chain c at priority {number}");
                assert!(texts(&found, "ahead", "rule").contains(&chain), "{found:#}");
                // What only touches addresses, users or protocols that are no business of ours.
                let harmless: &[&str] = match hook {
                    "prerouting" => &["udp dport 9 redirect to :1"],
                    _ => &[
                        "fib daddr type local tcp dport 9 redirect to :1",
                        "meta skuid 5678 meta l4proto tcp redirect to :1",
                    ],
                };
                for rule in harmless {
                    mine(family, hook, priority, rule);
                    let found = report(lab, 0, &flags(&given));
                    let notes = texts(&found, "notes", "what");
                    assert!(
                        notes.contains(&format!("{place}, {chain}")) && notes.contains("before ours"),
                        "{found:#}"
                    );
                }
            }
            mine(family, "output", "-50", "tcp dport 9999 redirect to :1");
            let notes = texts(&report(lab, 0, &flags(&given)), "notes", "what");
            assert!(notes.contains("after ours") && notes.contains("chain c at priority -50"), "{notes}");
            // At the usual priority it is as usual: named only if it takes something.
            mine(family, "prerouting", "dstnat", "udp dport 9 redirect to :1");
            assert_eq!(texts(&report(lab, 0, &flags(&given)), "notes", "what"), "");
            mine(family, "prerouting", "dstnat", "tcp dport 9 redirect to :1");
            report(lab, 11, &flags(&given));
            firewall::nft(&format!("delete table {family} mine\n"));
        }
    });
}

#[test]
fn docker_that_keeps_to_itself_does_not_count_and_kube_proxy_does() {
    for variant in Variant::BOTH {
        Lab::enter(move |lab| {
            firewall::restore(variant, Family::V4, super::ahead::DOCKER);
            let given = install(lab, "kumaDPUser: kuma-dp\n");
            let found = report(lab, 0, &flags(&given));
            assert_eq!(found["ahead"].as_array().expect("a list").len(), 0, "{found:#}");
            firewall::restore(variant, Family::V4, super::ahead::KUBE);
            let found = report(lab, 11, &flags(&given));
            let all = found["ahead"].as_array().expect("a list");
            assert!(!all.is_empty() && all.iter().all(|a| a["whose"] == "kube-proxy"), "{found:#}");
        });
    }
}

#[test]
fn no_child_is_needed_and_nothing_changes() {
    Lab::enter(|lab| {
        let given = install(lab, WANTED);
        // Others use iptables; its nft variant's rules can be read without a program.
        firewall::restore(Variant::Nft, Family::V4, super::ahead::DOCKER);
        lab.silence();
        let before = (Snapshot::take(), nft_generation());
        if find("strace").is_none() {
            return skip("this machine has no strace");
        }
        let executed = super::untouched::children(lab, &flags(&given), 0).expect("strace is there");
        assert_eq!(executed.len(), 0, "{executed:#?}");
        assert_eq!(nft_generation(), before.1);
        Snapshot::take().assert_unchanged_since(&before.0);
    });
}

#[test]
fn a_table_of_our_name_without_our_chains_is_no_installation() {
    Lab::enter(|lab| {
        for theirs in [
            "add table inet kuma_mesh\n",
            "table inet kuma_mesh {\n comment \"mine\"\n chain mine {\n type filter hook input priority 0; policy \
             drop;\n }\n}\n",
        ] {
            firewall::nft(theirs);
            let found = report(lab, 10, &[]);
            assert!(found["sidecar"].is_null() && found["installedBy"].is_null(), "{found:#}");
            let run = status(lab, &[]).exits(10).prints("not installed");
            let _ = run.prints("there is a table of our name, inet kuma_mesh, without our chains");
            let run = lab.program().args(["install", "--dry-run"]).run().succeeds();
            assert!(!run.stderr.contains("it is what is installed"), "{run}");
            // Ours takes its place, and what goes is named.
            let run = lab.install(Backend::Nftables, &[]).succeeds();
            if theirs.contains("mine") {
                let _ = run.says("the table's comment \"mine\"").says("priority 0; policy drop;");
            }
            report(lab, 0, &[]);
            lab.uninstall(Backend::Nftables, &[]).succeeds();
        }
        let door = backend::own_the_table();
        let run = status(lab, &[]).exits(10).prints("stop that process");
        assert!(!run.stdout.contains("run 'tproxy install'"), "{run}");
        door.close();
    });
}

#[test]
fn rules_of_both_kinds_are_a_problem() {
    Lab::enter(|lab| {
        let _ = lab.install(Variant::Nft, &["--redirect-dns"]).succeeds();
        let given = install(lab, WANTED);
        let run = status(lab, &flags(&given)).exits(11).prints("are also there through iptables (nft)");
        let _ = run.prints("run 'tproxy install' again");
        assert!(everywhere().any(|(variant, family)| firewall::rules(variant, family).has_ours()));
    });
}

#[test]
fn servers_that_changed_and_ports_that_are_taken_are_told() {
    Lab::enter(|lab| {
        let given = install(lab, WANTED);
        lab.resolv_conf("nameserver 10.96.0.99\nnameserver fd00:96::10\n");
        let _taken = as_user(APP, || Listener::tcp("app", Family::V4.any(), 15001));
        let found = report(lab, 11, &flags(&given));
        let gone: IpAddr = Family::V4.resolver();
        assert_eq!(found["resolvers"]["gone"][0], gone.to_string());
        assert_eq!(found["differences"].as_array().expect("a list").len(), 0, "{found:#}");
        let _ = status(lab, &flags(&given)).prints("port 15001").prints(&format!("taken by UID {APP}"));
    });
}
