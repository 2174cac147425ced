//! Hosts on which something is wrong: each is told as what it is, with the way out and its exit code.

use crate::support::command::must;
use crate::support::lab::{Lab, each_backend, each_iptables_variant};
use crate::support::{APP, Backend, Family, Variant, firewall, network};

use super::{install, report, status};

#[test]
fn nothing_installed() {
    Lab::enter(|lab| {
        let run = status(lab, &[]).exits(10).prints("not installed").prints("run 'tproxy install'");
        assert!(!run.stdout.contains("Notes") && run.stderr.is_empty(), "{run}");
        assert_eq!(report(lab, 10, &[])["status"], "not-installed");
        // Rules of others are no installation.
        firewall::restore(Variant::Nft, Family::V4, "*nat\n-A OUTPUT -p tcp -j ACCEPT\nCOMMIT\n");
        report(lab, 10, &[]);
    });
}

#[test]
fn an_ordinary_user_is_told_that_it_cannot_be_told() {
    Lab::enter(|lab| {
        for flags in [&["status"][..], &["status", "--watch"]] {
            let run = lab.program().args(flags).user(APP).run().exits(3);
            let _ = run.says("only root can see").says("hint: run 'sudo tproxy status'");
        }
    });
}

/// Nobody here can run the programs of a variant any more.
fn hide_programs(lab: &Lab, variant: Variant) {
    let program = firewall::path(variant, Family::V4, "-save").canonicalize().expect("a file");
    let nothing = lab.dir().join("nothing");
    std::fs::write(&nothing, "").expect("a file of the lab");
    must("mount", &["--bind", &nothing.to_string_lossy(), &program.to_string_lossy()]);
}

// Our own table needs no program to be read and has no other variant.
each_iptables_variant! {
    fn rules_that_no_program_here_can_read(lab, variant) {
        install(lab, variant);
        let name = variant.name();
        hide_programs(lab, variant);
        let run = status(lab, &[]).exits(3).says(&format!("rules of the {name} variant, but no {name} iptables"));
        let _ = run.says("is not known").says(&format!("hint: install the {name} variant"));
        let _ = status(lab, &["-o", "json"]).exits(3);
        let _ = status(lab, &["--watch"]).exits(3).says("is not known");
    }

    fn rules_of_the_other_variant_that_no_program_here_can_read(lab, variant) {
        install(lab, variant);
        let other = variant.other();
        firewall::restore(other, Family::V4, "*nat\n-A OUTPUT -p tcp -j REDIRECT --to-ports 1\nCOMMIT\n");
        hide_programs(lab, other);
        // The kernel tells what they do.
        let found = report(lab, 11, &[]);
        assert_eq!(found["ahead"][0]["place"], format!("nat OUTPUT ({})", other.name()), "{found:#}");
    }

    fn rules_of_the_other_variant(lab, variant) {
        install(lab, variant);
        for family in Family::BOTH {
            let saved = firewall::save(variant, family);
            firewall::restore(variant.other(), family, &saved);
        }
        let other = variant.other().name();
        let _ = status(lab, &[]).exits(11).prints(&format!("are in the {other} variant")).prints("one variant");
        let found = report(lab, 11, &[]);
        assert!(found["differences"].as_array().expect("a list").iter().all(|d| d["variant"] == other), "{found:#}");
    }
}

each_backend! {
    fn everything_flushed(lab, backend) {
        install(lab, backend);
        match backend {
            Backend::Nftables => firewall::nft("flush ruleset\n"),
            Backend::Iptables(variant) => {
                for (family, table) in Family::BOTH.iter().flat_map(|f| ["nat", "raw"].map(|table| (*f, table))) {
                    let _ = firewall::iptables(variant, family, &format!("-t {table} -F")).succeeds();
                    let _ = firewall::iptables(variant, family, &format!("-t {table} -X")).succeeds();
                }
            }
        }
        let _ = status(lab, &[]).exits(10).prints("not installed").prints("something flushed them").prints("--watch");
    }

    fn resolv_conf_changed(lab, backend) {
        install(lab, backend);
        lab.resolv_conf("nameserver 10.96.0.99\nnameserver fd00:96::10\n");
        let found = report(lab, 11, &[]);
        assert_eq!(found["resolvers"]["asCaptured"], false);
        assert_eq!(found["resolvers"]["notCaptured"][0], "10.96.0.99");
        assert_eq!(found["resolvers"]["gone"][0], "10.96.0.10");
        assert_eq!(found["differences"].as_array().expect("a list").len(), 0, "{found:#}");
        let _ = status(lab, &[]).prints("10.96.0.99 is in /etc/resolv.conf").prints("run 'tproxy install' again");
        // The same servers in another order are the same servers.
        lab.resolv_conf("nameserver fd00:96::10\nnameserver 10.96.0.10\n");
        report(lab, 0, &[]);
    }

    fn no_resolv_conf(lab, backend) {
        let file = lab.dir().join("servers");
        std::fs::write(&file, "nameserver 10.96.0.10\n").expect("a file of the lab");
        let config = lab.dir().join("config.yaml");
        let text = format!("redirect: {{ dns: {{ enabled: true, resolvConfigPath: {} }} }}\n", file.display());
        std::fs::write(&config, text).expect("a file of the lab");
        let _ = lab.install(backend, &["--config", &config.to_string_lossy()]).succeeds();
        report(lab, 0, &[]);
        std::fs::remove_file(&file).expect("the file");
        let _ = status(lab, &[]).exits(11).prints("cannot read the DNS servers").prints("restore that file");
        assert!(report(lab, 11, &[])["resolvers"]["error"].is_string());
    }

    fn ipv6_off(lab, backend) {
        network::ip("addr del fd77::1/64 dev eth0\n");
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("a setting of the own namespace");
        let _ = lab.install(backend, &["--redirect-dns"]).succeeds();
        let _ = status(lab, &[]).exits(0).prints("IPv6 traffic is not redirected: IPv6 is disabled");
        // Switched on later, its traffic goes past the sidecar.
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "0").expect("a setting of the own namespace");
        network::ip("addr add fd77::1/64 dev eth0 nodad\n");
        let found = report(lab, 11, &[]);
        let all = found["differences"].as_array().expect("a list");
        let six = |d: &serde_json::Value| d["kind"] == "missing" && d["family"] == "ipv6";
        // In our own table, what both families have is one rule.
        assert!(all.iter().any(six) && (backend == Backend::Nftables || all.iter().all(six)), "{found:#}");
    }

    fn ipv6_switched_off_later(lab, backend) {
        install(lab, backend);
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("a setting of the own namespace");
        let _ = status(lab, &[]).exits(0).prints("the IPv6 rules have nothing to do: IPv6 is disabled");
    }

    fn ipv6_off_on_the_loopback_interface(lab, backend) {
        const SETTING: &str = "net.ipv6.conf.lo.disable_ipv6 = 1";
        let off = |value| std::fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", value).expect("a setting of the own namespace");
        install(lab, backend);
        // Rules lead to an address that is gone.
        off("1");
        let _ = status(lab, &[]).exits(11).prints("redirected IPv6 traffic is lost").prints(SETTING).prints("disable_ipv6=0");
        let _ = lab.install(backend, &["--redirect-dns"]).succeeds().says(SETTING);
        let _ = status(lab, &[]).exits(0).prints(SETTING);
        off("0");
        let _ = status(lab, &[]).exits(11);
    }

    fn on_trial(lab, backend) {
        let _ = lab.install(backend, &["--redirect-dns", "--confirm", "600s"]).succeeds();
        let _ = status(lab, &[]).exits(0).prints("on trial").prints("tproxy confirm");
        let _ = lab.program().arg("confirm").run().succeeds();
        assert!(!status(lab, &[]).exits(0).stdout.contains("on trial"));
    }

    fn a_trial_whose_time_is_over(lab, backend) {
        install(lab, backend);
        let record = std::fs::read_dir("/run/tproxy").expect("a directory").filter_map(Result::ok).map(|e| e.path());
        let record = record.into_iter().find(|path| path.extension().is_some_and(|e| e == "json")).expect("a record");
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot");
        let pending = format!(
            r#"{{"schema":2,"boot":"{}","until":1000000000,"begun":999999999,"installer":1,"proving":false}}"#, boot.trim()
        );
        std::fs::write(record.with_extension("pending"), pending).expect("written");
        let _ = status(lab, &[]).exits(0).prints("nobody confirmed the installation until 20").prints("Z, so");
    }

    fn the_sidecars_user_is_gone(lab, backend) {
        install(lab, backend);
        lab.replace("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
        let _ = status(lab, &[]).exits(11).prints("the sidecar's user is gone").prints("--kuma-dp-user");
    }
}

each_backend! {
    /// What is redirected on this host goes over it.
    fn the_loopback_interface_is_down(lab, backend) {
        install(lab, backend);
        must("ip", &["link", "set", "lo", "down"]);
        status(lab, &[]).exits(11).prints("the loopback interface lo is down").prints("ip link set lo up");
        must("ip", &["link", "set", "lo", "up"]);
        // An interface that goes down loses its IPv6 addresses, and gets back only ::1.
        status(lab, &[]).exits(11).prints("the address ::6 is gone from lo");
        install(lab, backend);
        status(lab, &[]).exits(0);
    }
}
