//! Command lines that worked with kumactl, and what they mean.

use super::run::tproxy;

/// What `config show` prints for flags, without the lines that are at their default.
fn changed(args: &[&str]) -> Vec<String> {
    let said = tproxy(["config", "show", "--sources"].iter().chain(args)).said();
    assert_eq!(said.code, Some(0), "{args:?}: {said:?}");
    let lines = said.out.lines().filter(|line| line.contains("  # ") && !line.ends_with("# default"));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn flags_mean_what_they_mean_to_kumactl() {
    let table: &[(&[&str], &[&str])] = &[
        (&["--redirect-dns"], &["enabled: true # --redirect-dns"]),
        (&["--redirect-dns=1"], &["enabled: true # --redirect-dns"]),
        (&["--redirect-inbound=F"], &["enabled: false # --redirect-inbound"]),
        (&["--verbose", "--verbose=false"], &["verbose: false # --verbose"]),
        (&["--wait=0", "--wait", "7"], &["wait: 7 # --wait"]),
        (&["--exclude-inbound-ports", " 22, 80,,"], &["excludePorts: [22, 80] # --exclude-inbound-ports"]),
        (&["--exclude-inbound-ports", "22,,80"], &["excludePorts: [22, 80] # --exclude-inbound-ports"]),
        (&["--ebpf-enabled=false", "--ebpf-bpffs-path", "/run/kuma/bpf"], &[]),
        (
            &["--config", "{ kumaDPUser: kuma-dp, verbose: true }"],
            &["kumaDPUser: kuma-dp # --config:1:3", "verbose: true # --config:1:24"],
        ),
        (
            &["--config", "redirect:\n  outbound:\n    excludePorts: [\"7,,8\", 9]\n", "--wait", "1"],
            &["excludePorts: [7, 8, 9] # --config:3:5", "wait: 1 # --wait"],
        ),
        (&["--exclude-inbound-ports="], &["excludePorts: [] # --exclude-inbound-ports"]),
        (
            &["--exclude-outbound-ips", "10.0.0.1,::1", "--exclude-outbound-ips", "fd00::/8"],
            &["excludePortsForIPs: [\"10.0.0.1\", \"::1\", \"fd00::/8\"] # --exclude-outbound-ips"],
        ),
        (
            &[
                "--exclude-outbound-ports-for-uids",
                "tcp,udp:80,443:1",
                "--exclude-outbound-ports-for-uids",
                "2-3",
            ],
            &["excludePortsForUIDs: [\"tcp,udp:80,443:1\", \"2-3\"] # --exclude-outbound-ports-for-uids"],
        ),
        (
            &["--vnet", "docker0:172.17.0.0/16", "--vnet", "br+:fd00::/64"],
            &["networks: [\"docker0:172.17.0.0/16\", \"br+:fd00::/64\"] # --vnet"],
        ),
        (&["--kuma-dp-user", ""], &["kumaDPUser: \"\" # --kuma-dp-user"]),
        (&["--kuma-dp-uid", "7", "--kuma-dp-user", "a"], &["kumaDPUser: a # --kuma-dp-user"]),
        (&["--kuma-dp-user", "a", "--kuma-dp-uid=7"], &["kumaDPUser: \"7\" # --kuma-dp-uid"]),
        (&["--sleep-between-retries", "2s"], &["sleepBetweenRetries: 2s # --sleep-between-retries"]),
        (
            &["--sleep-between-retries", "\"1m30s\""],
            &["sleepBetweenRetries: 1m30s # --sleep-between-retries"],
        ),
        (
            &["--sleep-between-retries", "1500000000"],
            &["sleepBetweenRetries: 1.5s # --sleep-between-retries"],
        ),
        (&["--ip-family-mode", "IPv4"], &["ipFamilyMode: ipv4 # --ip-family-mode"]),
        (&["--ip-family-mode", ""], &["ipFamilyMode: dualstack # --ip-family-mode"]),
        (&["--dry-run=diff"], &["dryRun: true # --dry-run"]),
        (
            &["--redirect-all-dns-traffic"],
            &[
                "enabled: true # implied by redirect.dns.captureAll",
                "captureAll: true # --redirect-all-dns-traffic",
            ],
        ),
        (
            &["--iptables-executables", "iptables:/a/./b,iptables-save:c,iptables-restore:/d"],
            &[
                "iptables: /a/b # --iptables-executables",
                "iptables-save: c # --iptables-executables",
                "iptables-restore: /d # --iptables-executables",
            ],
        ),
        (&["--log-level", "debug", "--no-config", "--context", "x", "--api-timeout", "1m"], &[]),
    ];
    for (args, lines) in table {
        assert_eq!(changed(args), *lines, "{args:?}");
    }
}

#[test]
fn every_place_counts_in_its_order() {
    let said = tproxy([
        "config",
        "show",
        "--sources",
        "--config",
        "a",
        "--config=-",
        "--config",
        "b",
        "--wait",
        "9",
    ])
    .file("a", "wait: 1\nretry: {maxRetries: 1}\nredirect: {outbound: {excludePorts: [1, 2]}}\n")
    .stdin("waitInterval: 2\nretry: {maxRetries: 2}\n")
    .file("b", "redirect:\n  outbound:\n    excludePorts: [3]\nretry: {maxRetries: 3}\nverbose: on\n")
    .env("KUMA_TRANSPARENT_PROXY_RETRY_MAX_RETRIES", "4")
    .env("KUMA_TRANSPARENT_PROXY_WAIT", "8")
    .said();
    assert_eq!(said.code, Some(0), "{said:?}");
    for line in [
        "wait: 9 # --wait",
        "waitInterval: 2 # <stdin>:1",
        "maxRetries: 4 # KUMA_TRANSPARENT_PROXY_RETRY_MAX_RETRIES",
        "excludePorts: [3] # b:3",
        "verbose: true # b:5",
    ] {
        let found = said.out.lines().any(|l| l.split_whitespace().collect::<Vec<_>>().join(" ") == line);
        assert!(found, "{line} is missing in\n{}", said.out);
    }
}

#[test]
fn the_environment_counts_without_a_file() {
    let said = tproxy(["config", "show"]).env("KUMA_TRANSPARENT_PROXY_REDIRECT_INBOUND_PORT", "17000").said();
    assert!(said.out.contains("port: 17000"), "{said:?}");
}

#[test]
fn standard_input_is_read_once() {
    let said = tproxy(["config", "show", "--config", "-", "--config", "-"]).stdin("wait: 3\n").said();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("\nwait: 3\n"), "{said:?}");
}

#[test]
fn older_flags_work_with_a_word_about_them() {
    let said =
        tproxy(["config", "show", "--config-file", "a", "--kuma-dp-uid", "7"]).file("a", "wait: 3\n").said();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("kumaDPUser: \"7\"") && said.out.contains("wait: 3"), "{said:?}");
    let mut lines = said.err.lines().collect::<Vec<_>>();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "warning: --config-file is deprecated; use --config",
            "warning: --kuma-dp-uid is deprecated; use --kuma-dp-user, which takes UIDs and names",
        ]
    );
}

#[test]
fn the_middle_word_and_kumactls_own_flags_are_accepted() {
    let common = ["--dry-run", "--kuma-dp-user", "0", "--ip-family-mode", "ipv4", "--redirect-dns=false"];
    let lines: [&[&str]; 3] = [
        &["install"],
        &["install", "transparent-proxy"],
        &["--log-level", "off", "--no-config", "install", "transparent-proxy"],
    ];
    let mut outputs = Vec::new();
    for line in lines {
        let said = tproxy(line.iter().chain(&common)).said();
        assert_eq!(said.code, Some(0), "{line:?}: {said:?}");
        outputs.push(said.out);
    }
    assert!(outputs[0].contains("-A KUMA_MESH_OUTBOUND"), "{}", outputs[0]);
    assert!(outputs.iter().all(|out| *out == outputs[0]));
}

#[test]
fn warnings_go_to_standard_error_and_can_be_turned_off() {
    let args = ["config", "show", "--exclude-inbound-ports", "1", "--exclude-inbound-ports", "2"];
    let said = tproxy(args).said();
    assert_eq!(said.code, Some(0));
    assert_eq!(
        said.err,
        "warning: --exclude-inbound-ports is given 2 times and only the last one, '2', counts; \
         write all ports into one, with commas\n"
    );
    assert_eq!(tproxy(args).env("TPROXY_LOG", "error").said().err, "");
    let said = tproxy(["config", "default"]).env("TPROXY_LOG", "loud").said();
    assert_eq!(said.code, Some(0));
    assert!(
        said.err.starts_with("warning: invalid value 'loud' for the variable TPROXY_LOG: expected "),
        "{said:?}"
    );
}
