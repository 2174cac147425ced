//! Hosts on which not everything can be tested, and users who may not.

use super::verify;
use crate::support::{APP, Lab, Variant, command};

#[test]
fn an_ordinary_user_is_told_to_be_root() {
    Lab::enter(|lab| {
        command::must("chmod", &["755", &lab.program_path().to_string_lossy()]);
        lab.program()
            .arg("verify")
            .user(APP)
            .run()
            .exits(3)
            .says("only root can send packets as other users");
    });
}

#[test]
fn without_ipv6_it_is_not_tested() {
    Lab::enter(|lab| {
        command::must("sysctl", &["-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
        lab.install(Variant::Nft, &[]).succeeds();
        let said = verify(lab, &[]);
        said.run.clone().exits(0);
        assert_eq!(said.with_status("not-tested"), ["ipv6 outbound"]);
        assert!(said.with_status("fail").is_empty());
    });
}

#[test]
fn a_missing_resolv_conf_is_named() {
    Lab::enter(|lab| {
        let file = lab.dir().join("no.yaml");
        std::fs::write(&file, "redirect: {dns: {enabled: true, resolvConfigPath: /nowhere/resolv.conf}}\n")
            .unwrap();
        let run = lab.program().args(["verify", "--kuma-dp-user", "kuma-dp", "--config"]).arg(&file).run();
        run.exits(3).says("/nowhere/resolv.conf: No such file");
    });
}

/// Its lines fit a terminal of 100 columns, whatever the addresses.
#[test]
fn lines_are_short() {
    Lab::enter(|lab| {
        let flags =
            ["--redirect-dns", "--exclude-outbound-ips", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ff00/120"];
        let run = lab.program().args(["verify", "--kuma-dp-user", "kuma-dp"]).args(flags).run().exits(12);
        let long: Vec<_> = run.stdout.lines().filter(|line| line.chars().count() > 100).collect();
        assert!(long.is_empty(), "{long:#?}");
        assert!(run.stdout.contains("IPv4  outbound     fail        app to "), "{}", run.stdout);
        assert!(run.stderr.contains("checks failed"), "{}", run.stderr);
    });
}

/// Kuma's own installer leaves no record; the rules say what was wanted.
#[test]
fn without_a_record_the_rules_tell() {
    Lab::enter(|lab| {
        lab.install(Variant::Nft, &["--redirect-dns", "--exclude-outbound-ports", "9000"]).succeeds();
        command::must("rm", &["-r", "/run/tproxy"]);
        let said = verify(lab, &[]);
        said.all_pass();
        assert_eq!(said.count("exclusion"), 4);
        assert!(
            said.run.stderr.contains("the one that the installed rules were made from"),
            "{}",
            said.run.stderr
        );
    });
}
