//! A host on which others use the legacy variant, and ours is the native backend.

use std::fmt::Write as _;
use std::fs;

use crate::support::command::{Program, find, must};
use crate::support::kumactl::{Kumactl, Version};
use crate::support::lab::skip;
use crate::support::mesh::listening_sidecar;
use crate::support::snapshot::Snapshot;
use crate::support::{APP, Backend, Family, Lab, Run, Variant, docker, firewall};

/// As Docker and a service mesh of many services leave it, with counters.
fn long(family: Family) -> String {
    let (net, server, bits) = match family {
        Family::V4 => ("172.17.0.0/16", "172.17.", 32),
        Family::V6 => ("fd00:d0c::/64", "fd00:d0c::", 128),
    };
    let server = |n: usize| match family {
        Family::V4 => format!("{server}{}.{}", n / 250, n % 250 + 1),
        Family::V6 => format!("{server}{n:x}"),
    };
    let mut nat = String::from(
        "*nat\n:DOCKER - [0:0]\n[31:1860] -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
         [7:420] -A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER\n[2:120] -A DOCKER -i docker0 -j RETURN\n",
    );
    let _ = writeln!(nat, "[5:300] -A POSTROUTING -s {net} ! -o docker0 -j MASQUERADE");
    let mut filter = String::from(
        "COMMIT\n*filter\n:DOCKER - [0:0]\n[61:3660] -A FORWARD -o docker0 -j DOCKER\n\
         [44:2640] -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n",
    );
    for n in 0..1000 {
        let to = match family {
            Family::V4 => format!("{}:80", server(n)),
            Family::V6 => format!("[{}]:80", server(n)),
        };
        let port = 1_000 + n;
        let _ = writeln!(
            nat,
            "[{n}:{n}] -A DOCKER ! -i docker0 -p tcp -m tcp --dport {port} -j DNAT --to-destination {to}"
        );
        let _ = writeln!(
            filter,
            "[{n}:{n}] -A DOCKER -d {}/{bits} ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT",
            server(n)
        );
    }
    nat + &filter + "COMMIT\n"
}

fn install_theirs() {
    for family in Family::BOTH {
        firewall::restore(Variant::Legacy, family, &long(family));
    }
}

/// What a run executes beside itself.
fn executed(lab: &Lab, args: &[&str]) -> Option<(Run, Vec<String>)> {
    if find("strace").is_none() {
        skip("this machine has no strace");
        return None;
    }
    let log = lab.dir().join("strace.log");
    let program = Program::new("strace").args(["-f", "-qq", "-e", "trace=execve,execveat", "-o"]).arg(&log);
    // Without one, status ends with 11.
    let _sidecar = (args.first() == Some(&"status")).then(listening_sidecar);
    let run = program.arg(lab.program_path()).args(args).run();
    let log = fs::read_to_string(&log).expect("strace wrote its log");
    let lines = log.lines().filter(|line| line.contains("exec") && !line.contains("= -1 "));
    let lines = lines.filter(|line| !line.contains("resumed")).skip(1);
    Some((run, lines.map(str::to_owned).collect()))
}

/// Which legacy tables there are.
fn tables() -> [String; 2] {
    ["ip_tables_names", "ip6_tables_names"]
        .map(|name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default())
}

const INSTALL: [&str; 5] = ["install", "--kuma-dp-user", "kuma-dp", "--backend", "nftables"];

#[test]
fn their_long_tables_cost_no_program() {
    Lab::enter(|lab| {
        install_theirs();
        // The packets of verify are counted.
        let (before, names) = (Snapshot::take().without_counters(), tables());
        let changed = [&INSTALL[..], &["--exclude-outbound-ports", "7001"]].concat();
        let runs: [(&[&str], i32, &str); 8] = [
            (&["status"], 10, "not installed"),
            (&INSTALL, 0, "nftables rules"),
            (&INSTALL, 0, "nothing was written"),
            (&["status"], 0, "installed, as wanted"),
            (&["verify"], 0, ""),
            (&changed, 0, "nftables rules"),
            // Nobody has to name the backend again.
            (&["install", "--kuma-dp-user", "kuma-dp", "--dry-run"], 0, "table inet kuma_mesh"),
            (&["uninstall"], 0, "nftables rules removed"),
        ];
        for (args, code, says) in runs {
            let Some((run, executed)) = executed(lab, args) else { return };
            let run = run.exits(code).prints(says);
            assert_eq!(executed, [""; 0], "{run}");
        }
        assert_eq!(tables(), names);
        Snapshot::take().without_counters().assert_unchanged_since(&before);
    });
}

#[test]
fn where_there_is_no_table_none_comes_into_being() {
    Lab::enter(|lab| {
        firewall::restore(Variant::Legacy, Family::V6, "*filter\n-A INPUT -p udp -j ACCEPT\nCOMMIT\n");
        let names = tables();
        assert_eq!(names, ["", "filter\n"]);
        for args in [&["status"][..], &INSTALL, &["status"], &["verify"], &["uninstall"]] {
            let Some((run, executed)) = executed(lab, args) else { return };
            assert_eq!(executed, [""; 0], "{run}");
            assert_eq!(tables(), names, "{run}");
        }
    });
}

#[test]
fn what_takes_traffic_before_ours_is_told_without_a_program() {
    Lab::enter(|lab| {
        for family in Family::BOTH {
            let to = match family {
                Family::V4 => "127.0.0.1:1",
                Family::V6 => "[::1]:1",
            };
            firewall::restore(
                Variant::Legacy,
                family,
                &format!(
                    "*nat\n:KUBE-SERVICES - [0:0]\n[9:540] -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
                     [3:180] -A KUBE-SERVICES -p tcp -m tcp --dport 443 -m statistic --mode random --probability 0.5 -j DNAT --to-destination {to}\n\
                     [4:240] -A KUBE-SERVICES -p tcp -m tcp --dport 444 -j ACCEPT\nCOMMIT\n\
                     *raw\n[2:120] -A PREROUTING -p tcp -m tcp --dport 7 -j CT --notrack\nCOMMIT\n"
                ),
            );
        }
        let _ = lab.program().args(INSTALL).run().succeeds();
        let Some((run, executed)) = executed(lab, &["status", "-o", "json"]) else { return };
        let run = run.exits(11);
        assert_eq!(executed, [""; 0], "{run}");
        let found: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
        let ahead = found["ahead"].as_array().expect("a list");
        for family in ["ipv4", "ipv6"] {
            let mut ours = ahead.iter().filter(|ahead| ahead["family"] == family);
            let mut is = |place: &str, rule: &str, traffic: &str, packets: u64| {
                let next = ours.next().unwrap_or_else(|| panic!("{place}: {found:#}"));
                assert_eq!(next["place"], place, "{found:#}");
                assert_eq!((next["rule"].as_str(), next["traffic"].as_str()), (Some(rule), Some(traffic)));
                assert_eq!((next["takes"].as_str(), next["packets"].as_u64()), (Some("part"), Some(packets)));
            };
            let kube = "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES";
            is("nat OUTPUT (legacy)", kube, "outbound", 3);
            is("raw PREROUTING (legacy)", "-p tcp -m tcp --dport 7 -j CT --notrack", "inbound", 2);
            assert_eq!(ours.count(), 0, "{found:#}");
        }
        assert_eq!(ahead.len(), 4, "{found:#}");
    });
}

#[test]
fn rules_of_kumactl_among_theirs_are_taken_over_by_the_programs() {
    Lab::enter(|lab| {
        install_theirs();
        let before = Snapshot::take();
        let kumactl = Kumactl { version: Version::V2_14, dns: true };
        kumactl.install(Variant::Legacy);
        let Some((run, executed)) = executed(lab, &[&INSTALL[..], &["--redirect-dns"]].concat()) else {
            return;
        };
        let run = run.succeeds().prints("nftables rules");
        let programs = |name: &str| executed.iter().filter(|line| line.contains(name)).count();
        assert_eq!((programs("-save"), programs("-restore"), executed.len()), (2, 2, 4), "{run}");
        for family in Family::BOTH {
            assert!(!firewall::rules(Variant::Legacy, family).has_ours());
        }
        assert_eq!(Backend::installed(), [Backend::Nftables]);
        Snapshot::take().assert_foreign_unchanged_since(&before);
        let _ = lab.program().arg("uninstall").run().succeeds();
        kumactl.install(Variant::Legacy);
        let _ = lab.program().arg("uninstall").run().succeeds();
        for family in Family::BOTH {
            assert!(!firewall::rules(Variant::Legacy, family).has_ours());
        }
        Snapshot::take().assert_foreign_unchanged_since(&before);
    });
}

#[test]
fn one_familys_rules_alone_start_one_familys_programs_alone() {
    Lab::enter(|lab| {
        install_theirs();
        let six = Kumactl { version: Version::V2_14, dns: false }.restore_file(Family::V6);
        firewall::restore(Variant::Legacy, Family::V6, &six);
        let Some((run, executed)) = executed(lab, &INSTALL) else { return };
        let _ = run.succeeds();
        assert!(
            executed.len() == 2 && executed.iter().all(|line| line.contains("ip6tables")),
            "{executed:#?}"
        );
    });
}

#[test]
fn dockers_resolver_is_seen_in_legacy_tables_too() {
    Lab::enter(|lab| {
        firewall::restore(Variant::Legacy, Family::V4, docker::RULES);
        let flags = [&INSTALL[..], &["--redirect-all-dns-traffic"]].concat();
        let Some((run, executed)) = executed(lab, &flags) else { return };
        let run = run.succeeds();
        assert_eq!(executed, [""; 0], "{run}");
        let table = must("nft", &["list", "table", "inet", "kuma_mesh"]);
        assert!(table.contains("127.0.0.11"), "{table}");
        let Some((run, executed)) = self::executed(lab, &["status"]) else { return };
        let run = run.exits(0);
        assert_eq!(executed, [""; 0], "{run}");
    });
}

#[test]
fn an_ordinary_user_starts_none_either() {
    Lab::enter(|lab| {
        install_theirs();
        let before = Snapshot::take();
        for (args, code) in [(&["status"][..], 3), (&INSTALL, 3), (&["uninstall"], 3)] {
            let _ = lab.program().args(args).user(APP).run().exits(code).says("root");
        }
        let dry = lab.program().args(INSTALL).arg("--dry-run").user(APP).run().succeeds();
        assert!(dry.stdout.contains("table inet kuma_mesh"), "{dry}");
        Snapshot::take().assert_unchanged_since(&before);
    });
}

/// Root of a container that may administer its network and no more. The legacy programs could not even look.
#[test]
fn no_raw_socket_is_needed() {
    Lab::enter(|lab| {
        if find("setpriv").is_none() {
            return skip("this machine has no setpriv");
        }
        install_theirs();
        let without = |program: &std::path::Path, args: &[&str]| {
            let caps = ["--bounding-set=-net_raw", "--inh-caps=-net_raw", "--"];
            Program::new("setpriv").args(caps).arg(program).args(args).run()
        };
        let save = firewall::path(Variant::Legacy, Family::V4, "-save");
        assert_ne!(without(&save, &[]).code, Some(0), "it needs a raw socket");
        let _sidecar = listening_sidecar();
        for (args, says) in [
            (&INSTALL[..], "nftables rules"),
            (&["status"], "installed, as wanted"),
            (&["uninstall"], "removed"),
        ] {
            let _ = without(lab.program_path(), args).succeeds().prints(says);
        }
    });
}

/// Beside rules of others in both variants, ours go to nft; the legacy ones need not be read by a program for that.
#[test]
fn choosing_the_nft_variant_takes_no_legacy_program() {
    Lab::enter(|lab| {
        install_theirs();
        for family in Family::BOTH {
            firewall::restore(Variant::Nft, family, "*filter\n-A INPUT -p udp -j ACCEPT\nCOMMIT\n");
        }
        let before = Snapshot::take();
        let install = ["install", "--kuma-dp-user", "kuma-dp", "--redirect-dns"];
        for (args, says) in [
            (&install[..], "IPv4"),
            (&install, "nothing was written"),
            (&["status"], "installed, as wanted"),
            (&["uninstall"], "removed"),
            (&["uninstall"], "nothing was installed"),
        ] {
            let Some((run, executed)) = executed(lab, args) else { return };
            let run = run.succeeds().prints(says);
            assert!(executed.iter().all(|line| !line.contains("legacy")), "{run}{executed:#?}");
            assert!(executed.len() <= 4, "{run}{executed:#?}");
        }
        Snapshot::take().assert_foreign_unchanged_since(&before);
    });
}

/// Ours go to places among their rules, so those are read by the program that writes.
#[test]
fn choosing_the_legacy_variant_reads_it_by_its_program() {
    Lab::enter(|lab| {
        install_theirs();
        let before = Snapshot::take();
        let Some((run, executed)) = executed(lab, &["install", "--kuma-dp-user", "kuma-dp"]) else { return };
        let run = run.succeeds().says("using iptables (legacy): the host's rules are there");
        let legacy =
            |role: &str| executed.iter().filter(|line| line.contains(&format!("legacy-{role}"))).count();
        assert_eq!((legacy("save"), legacy("restore"), executed.len()), (2, 2, 4), "{run}{executed:#?}");
        Snapshot::take().assert_foreign_unchanged_since(&before);
    });
}
