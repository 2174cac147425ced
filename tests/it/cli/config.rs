//! `tproxy config …`.

use super::run::tproxy;

#[test]
fn what_is_shown_is_a_file_that_means_the_same() {
    let args = [
        "--kuma-dp-user=5678",
        "--redirect-all-dns-traffic",
        "--exclude-inbound-ports=22,80",
        "--exclude-outbound-ips=fd00::/8",
        "--exclude-outbound-ports-for-uids=tcp:80:1000-2000",
        "--vnet=br+:10.0.0.0/8",
        "--sleep-between-retries=250ms",
        "--iptables-executables=iptables:/opt/a b,iptables-save:/b,iptables-restore:/c",
    ];
    for sources in ["--sources=false", "--sources"] {
        let said = tproxy(["config", "show", sources].iter().chain(&args)).said();
        assert_eq!(said.code, Some(0), "{said:?}");
        let plain = tproxy(["config", "show"].iter().chain(&args)).said().out;
        let again = tproxy(["config", "show", "--config", "a"]).file("a", &said.out).said();
        assert_eq!(again.out, plain);
        assert_eq!(again.err, "");
    }
}

#[test]
fn the_default_file_means_what_nothing_means() {
    let file = tproxy(["config", "default"]).said();
    assert_eq!((file.code, file.err.as_str()), (Some(0), ""));
    let with = tproxy(["config", "show", "--config", "a"]).file("a", &file.out).said().out;
    assert_eq!(with, tproxy(["config", "show"]).said().out);
    assert!(with.contains("port: 15006") && with.contains("resolvConfigPath: /etc/resolv.conf"), "{with}");
}

#[test]
fn validation_names_each_file_and_ignores_the_environment() {
    let said = tproxy(["config", "validate", "a", "-"])
        .file("a", "wait: 1\n")
        .stdin("verbose: true\n")
        .env("KUMA_TRANSPARENT_PROXY_WAIT", "x")
        .said();
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    assert_eq!(said.out, "'a' is a valid configuration\n'<stdin>' is a valid configuration\n");

    let said = tproxy(["config", "validate", "a", "b", "c"])
        .file("a", "wait: 1\n")
        .file("b", "wait: x\nfoo: 1\n")
        .file("c", "redirect: {inbound: {port: 15001}}\n")
        .said();
    assert_eq!(said.code, Some(2));
    assert_eq!(said.out, "'a' is a valid configuration\n");
    let lines = said.err.lines().collect::<Vec<_>>();
    assert_eq!(lines[0], "error: 3 problems in the configuration:");
    assert!(lines[1].starts_with("  invalid value 'x' for wait (b:1): "), "{said:?}");
    assert!(lines[2].starts_with("  unknown key 'foo' (b:2); a file may hold kumaDPUser, "), "{said:?}");
    assert!(
        lines[3].contains("redirect.inbound.port (c:1) and redirect.outbound.port (default)"),
        "{said:?}"
    );
}

#[test]
fn programs_get_json() {
    let args = ["config", "show", "-o", "json", "--exclude-inbound-ports", "22"];
    let said = tproxy(args).said();
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let shown: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(shown["redirect"]["inbound"]["excludePorts"], serde_json::json!([22]));
    let again = tproxy(["config", "show", "-o", "json", "--config", "a"]).file("a", &said.out).said();
    assert_eq!((again.err.as_str(), again.out), ("", said.out));

    let said =
        tproxy(["config", "validate", "-o", "json", "a", "b"]).file("a", "wait: 1\n").file("b", "wait: x\n");
    let said = said.said();
    assert_eq!(said.code, Some(2));
    let found: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!((&found["valid"], &found["files"][0]["valid"]), (&false.into(), &true.into()));
    assert_eq!(found["files"][1]["problems"].as_array().map(Vec::len), Some(1), "{found}");
}

#[test]
fn the_reference_lists_every_flag_of_help() {
    let table = tproxy(["config", "reference"]).said();
    assert_eq!(table.code, Some(0));
    let help = tproxy(["install", "--help"]).said().out;
    let help = help.split("\nUsage:").nth(1).unwrap();
    // Flags that are no settings have no key and no variable.
    let ours =
        ["--help", "--config", "--output", "--adopt", "--strict", "--confirm", "--foreground", "--verify"];
    let flags = help.lines().map(str::trim_start).filter(|line| line.starts_with("--")).count();
    let mut seen = 0;
    for line in help.lines().map(str::trim_start) {
        let Some(flag) = line.split_whitespace().find(|word| word.starts_with("--")) else { continue };
        if !(line.starts_with("--") || line.starts_with("-o") || line.starts_with("-h")) {
            continue;
        }
        let flag = flag.split(['[', '=']).next().unwrap();
        if line.starts_with("--dry-run=diff ") || ours.contains(&flag) {
            continue;
        }
        seen += 1;
        assert!(table.out.contains(&format!("| `{flag}` | `")), "{flag} is missing");
    }
    assert!(seen > 25 && flags > seen, "{seen} of {flags}");
    assert_eq!(table.out.matches("| `--").count(), seen);
}
