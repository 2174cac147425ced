//! What the host is like that people run it on: each time it says exactly what is wrong, with what to do, and ends
//! with the documented code. By every backend.

use super::said::{Said, verify};
use crate::support::firewall::{self, Family};
use crate::support::lab::each_backend;
use crate::support::{Backend, Lab, command};

/// The flags that ask for a backend, for commands that find nothing installed by it.
fn asked(backend: Backend) -> Vec<String> {
    let named = match backend {
        // A machine with both gets nft unless something else is there.
        Backend::Iptables(variant) => {
            vec![
                "--backend".to_owned(),
                "iptables".into(),
                "--iptables-executables".into(),
                firewall::executables(variant),
            ]
        }
        Backend::Nftables => backend.flags(),
    };
    [vec!["--kuma-dp-user".to_owned(), "kuma-dp".to_owned()], named].concat()
}

#[track_caller]
fn verify_asking(lab: &Lab, backend: Backend) -> Said {
    verify_asking_more(lab, backend, &[])
}

#[track_caller]
fn verify_asking_more(lab: &Lab, backend: Backend, more: &[&str]) -> Said {
    let flags = asked(backend);
    verify(lab, &flags.iter().map(String::as_str).chain(more.iter().copied()).collect::<Vec<_>>())
}

/// Does the same to a chain of an installation, by whatever name it has there.
pub fn flush(backend: Backend, iptables: &str, native: &str) {
    match backend {
        Backend::Iptables(variant) => {
            for family in Family::BOTH {
                firewall::restore(variant, family, &format!("*nat\n-F {iptables}\nCOMMIT\n"));
            }
        }
        Backend::Nftables => firewall::nft(&format!("flush chain inet kuma_mesh {native}")),
    }
}

const REDIRECTED: [&str; 6] =
    ["ipv4 inbound", "ipv4 outbound", "ipv4 self", "ipv6 inbound", "ipv6 outbound", "ipv6 self"];

each_backend! {
    fn nothing_is_installed(lab, backend) {
        let said = verify_asking(lab, backend);
        let mut all = REDIRECTED.to_vec();
        all.insert(5, "ipv6 passthrough");
        said.fails(&all);
        said.because("cause", "no redirection is installed for IPv4 here");
        said.because("next", "tproxy install --kuma-dp-user kuma-dp");
        said.run.says("checks failed");
    }

    /// Somebody flushed the built-in chains of the table, and with them the jumps to ours.
    fn half_of_the_rules_are_gone(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        flush(backend, "PREROUTING", "prerouting");
        flush(backend, "OUTPUT", "output");
        let said = verify(lab, &[]);
        let gone = match backend {
            // The chain of the early priority has the rules about DNS.
            Backend::Nftables => REDIRECTED.to_vec(),
            Backend::Iptables(_) => [&["ipv4 dns"], &REDIRECTED[..3], &["ipv6 dns"], &REDIRECTED[3..]].concat(),
        };
        said.fails(&gone);
        said.because("happened", "went straight to where it was sent");
        said.because("cause", "rules are missing: '");
        said.because("next", "tproxy install --kuma-dp-user kuma-dp");
    }

    fn a_chain_is_flushed(lab, backend) {
        lab.install(backend, &[]).succeeds();
        flush(backend, "KUMA_MESH_INBOUND_REDIRECT", "inbound_redirect");
        let said = verify(lab, &[]);
        said.fails(&["ipv4 inbound", "ipv4 self", "ipv6 inbound", "ipv6 self"]);
        said.because("cause", "rules are missing: '");
        said.because("cause", match backend {
            Backend::Iptables(_) => "-t nat -A KUMA_MESH_INBOUND_REDIRECT -p tcp -j REDIRECT --to-ports 15006'",
            Backend::Nftables => "inbound_redirect: meta l4proto tcp counter redirect to :15006'",
        });
        said.because("next", "tproxy install --kuma-dp-user kuma-dp");
    }

    /// Packets go where they should, and that is what counts; but it is told that rules are not where they should be.
    fn rules_are_in_another_place(lab, backend) {
        let other = match backend {
            Backend::NFT => Backend::LEGACY,
            Backend::LEGACY => Backend::Nftables,
            Backend::Nftables => Backend::NFT,
        };
        lab.install(other, &[]).succeeds();
        let said = verify_asking(lab, backend);
        said.all_pass();
        let (complaint, fix) = match backend {
            Backend::NFT => ("IPv4 and IPv6 rules of the transparent proxy are in the legacy variant", "run 'tproxy install'"),
            Backend::LEGACY => ("asks for the backend iptables, but the rules are in an nftables table", "with that"),
            _ => ("asks for the backend nftables, but the rules are there through iptables", "with that configuration"),
        };
        said.run.says(complaint).says(fix);
    }

    /// The same where they do not even work there.
    fn and_do_not_work_there(lab, backend) {
        let other = if backend == Backend::Nftables { Backend::LEGACY } else { Backend::Nftables };
        lab.install(other, &[]).succeeds();
        flush(other, "KUMA_MESH_OUTBOUND_REDIRECT", "outbound_redirect");
        let said = verify_asking(lab, backend);
        said.fails(&["ipv4 outbound", "ipv6 outbound"]);
        said.because("next", "tproxy install --kuma-dp-user kuma-dp");
    }

    fn ipv6_is_off(lab, backend) {
        lab.install(backend, &[]).succeeds();
        command::must("sysctl", &["-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
        let said = verify(lab, &[]);
        assert_eq!(said.run.code, Some(0), "{}", said.run.stderr);
        assert!(said.with_status("fail").is_empty());
        assert_eq!(said.with_status("not-tested"), ["ipv6 outbound"]);
        let six = said.one("ipv6", "outbound");
        assert_eq!(six["happened"], "IPv6 is disabled (net.ipv6.conf.all.disable_ipv6 = 1)");
        assert!(six["next"].as_str().is_some_and(|next| next.contains("--ip-family-mode ipv4")), "{six:#}");
    }

    fn ipv6_is_off_on_the_loopback_interface(lab, backend) {
        const SETTING: &str = "net.ipv6.conf.lo.disable_ipv6 = 1";
        command::must("sysctl", &["-qw", "net.ipv6.conf.lo.disable_ipv6=1"]);
        lab.install(backend, &[]).succeeds().says(SETTING);
        let said = verify(lab, &[]);
        assert_eq!(said.with_status("not-tested"), ["ipv6 outbound"]);
        let six = said.one("ipv6", "outbound");
        assert!(six["happened"].as_str().is_some_and(|why| why.contains(SETTING)), "{six:#}");
    }

    fn resolv_conf_is_gone(lab, backend) {
        let servers = lab.dir().join("servers");
        std::fs::write(&servers, "nameserver 10.96.0.10\nnameserver fd00:96::10\n").expect("a file in the private /run");
        let file = lab.dir().join("own.yaml");
        let config = format!("redirect: {{dns: {{enabled: true, resolvConfigPath: {}}}}}\n", servers.display());
        std::fs::write(&file, config).expect("a file in the private /run");
        lab.install(backend, &["--config", &file.to_string_lossy()]).succeeds();
        verify(lab, &[]).all_pass();
        std::fs::remove_file(&servers).expect("it was there");
        let run = lab.program().arg("verify").run();
        run.exits(3).says(&format!("{}: No such file", servers.display())).says("hint:");
    }

    /// Guests do not notice that a host has rules for what it sends by itself.
    fn no_rule_is_about_guests(lab, backend) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let said = verify_asking_more(lab, backend, &["--redirect-dns", "--vnet", "br-+:172.17.0.0/16"]);
        said.fails(&["ipv4 dns", "ipv4 outbound"]);
        said.because("target", "guest on br-+ to ");
        said.because("happened", "was redirected to the inbound port 15006");
        said.because("cause", "rules are missing: '");
    }

    /// What an installation is, its rules tell where its record is lost.
    fn the_record_is_gone(lab, backend) {
        let flags = ["--redirect-dns", "--exclude-outbound-ports", "9000", "--exclude-inbound-ips", "10.9.0.0/16"];
        lab.install(backend, &flags).succeeds();
        command::must("rm", &["-r", "/run/tproxy"]);
        let said = verify(lab, &[]);
        said.all_pass();
        // TCP to port 53 and the port, of both families, the network, and link-local addresses.
        assert_eq!(said.count("exclusion"), 6);
        said.run.says("the one that the installed rules were made from");
    }
}
