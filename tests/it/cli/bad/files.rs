//! In files.

use super::{Bad, DURATION, EBPF, EXCLUSION, LEVEL, NETWORK, NO_UIDS, PORT, SWITCH, file, key};

/// Bad files.
pub const FILES: &[Bad] = &[
    file(
        "redirect:\n  inbound:\n    prot: 15006\n",
        "unknown key 'redirect.inbound.prot' (bad.yaml:3); did you mean 'redirect.inbound.port'?",
    ),
    file("redirectt: {}\n", "unknown key 'redirectt' (bad.yaml:1); did you mean 'redirect'?"),
    file(
        "captureAll: true\n",
        "unknown key 'captureAll' (bad.yaml:1); did you mean 'redirect.dns.captureAll'?",
    ),
    file("redirect: 15006\n", "redirect (bad.yaml:1) is a section; it may hold inbound, outbound, dns, vnet"),
    file(
        "redirect.dns.enabled: true\n",
        "unknown key 'redirect.dns.enabled' (bad.yaml:1); write what stands before each '.' as a section of its own",
    ),
    file("wait: 5\nwait: 6\n", "the key 'wait' (bad.yaml:2) is there twice; keep one of the two"),
    file("wait: [5]\n", "invalid value for wait (bad.yaml:1): this is a list; expected one value"),
    key(
        "wait: 5.5\n",
        "'5.5'",
        "wait (bad.yaml:1)",
        "this is a number with a fraction or an exponent; expected one value",
    ),
    file(
        "wait:\n",
        "invalid value for wait (bad.yaml:1): there is no value; leave the key out for its default",
    ),
    key("verbose: maybe\n", "'maybe'", "verbose (bad.yaml:1)", SWITCH),
    key("redirect:\n  inbound:\n    port: 0\n", "'0'", "redirect.inbound.port (bad.yaml:3)", PORT),
    file(
        "redirect:\n  inbound:\n    excludePorts: null\n",
        "invalid value for redirect.inbound.excludePorts (bad.yaml:3): there is no value; write [] for an empty list",
    ),
    key(
        "redirect:\n  inbound:\n    excludePorts:\n      - 22\n      - ssh\n",
        "'ssh'",
        "redirect.inbound.excludePorts (bad.yaml:5)",
        "a port is a whole number; ssh usually has port 22",
    ),
    file(
        "redirect:\n  outbound:\n    excludePorts: [[1]]\n",
        "invalid value for redirect.outbound.excludePorts (bad.yaml:3): this is a list; every entry of the list is one value",
    ),
    file(
        "redirect: {outbound: {excludePorts: {a: 1}}}\n",
        "invalid value for redirect.outbound.excludePorts (bad.yaml:1): this is a section; expected a list",
    ),
    key(
        "redirect: {outbound: {excludePortsForUIDs: [\"\"]}}\n",
        "''",
        "redirect.outbound.excludePortsForUIDs (bad.yaml:1)",
        EXCLUSION,
    ),
    key(
        "redirect: {outbound: {excludePortsForUIDs: [\"tcp:80:\"]}}\n",
        "'tcp:80:'",
        "redirect.outbound.excludePortsForUIDs (bad.yaml:1)",
        EXCLUSION,
    ),
    key(
        "redirect: {inbound: {excludePortsForUIDs: [1000]}}\n",
        "'1000'",
        "redirect.inbound.excludePortsForUIDs (bad.yaml:1)",
        NO_UIDS,
    ),
    key(
        "redirect: {outbound: {excludePortsForIPs: [10.0.0.0/8, true]}}\n",
        "'true'",
        "redirect.outbound.excludePortsForIPs (bad.yaml:1)",
        NETWORK,
    ),
    key("log: {level: 8}\n", "'8'", "log.level (bad.yaml:1)", LEVEL),
    key("retry: {sleepBetweenRetries: soon}\n", "'soon'", "retry.sleepBetweenRetries (bad.yaml:1)", DURATION),
    file(
        "iptablesExecutables: {iptable: /a}\n",
        "unknown key 'iptablesExecutables.iptable' (bad.yaml:1); did you mean 'iptablesExecutables.iptables'?",
    ),
    file(
        "iptablesExecutables: {iptables: /a, iptables-save: /b}\n",
        "iptablesExecutables has iptables (bad.yaml:1) and iptables-save (bad.yaml:1) but not iptables-restore; give all of iptables, iptables-save, iptables-restore or none of them",
    ),
    file(
        "iptablesExecutables: [a]\n",
        "invalid value for iptablesExecutables (bad.yaml:1): this is a list; expected a section with a path for each program",
    ),
    key("ebpf: {enabled: true}\n", "'true'", "ebpf.enabled (bad.yaml:1)", EBPF),
    file(
        "kumaDPUser: [a]\n",
        "invalid value for kumaDPUser (bad.yaml:1): this is a list; expected one value",
    ),
    key(
        "kumaDPUser: 1.5\n",
        "'1.5'",
        "kumaDPUser (bad.yaml:1)",
        "this is a number with a fraction or an exponent; expected one value",
    ),
    file(
        "{\"redirect\": {\"dns\": {\"port\": 15001, \"enabled\": true}}}\n",
        "redirect.outbound.port (default) and redirect.dns.port (bad.yaml:1) are the same port, 15001; each listener of the sidecar needs a port of its own",
    ),
    file(
        "just words\n",
        "bad.yaml: a configuration file holds keys with values, such as 'kumaDPUser: kuma-dp'",
    ),
    file("a: [1\n", "bad.yaml:2: this cannot be read as YAML or JSON: did not find expected ',' or ']'"),
    file(
        "wait: !int 5\n",
        "bad.yaml:1: this cannot be read as YAML or JSON: wait: a tag (a word that begins with '!') cannot be used here",
    ),
    file(
        "wait: 1\n---\nwait: 2\n",
        "bad.yaml: this cannot be read as YAML or JSON: it holds more than one document",
    ),
    file("a: *b\n", "bad.yaml:1: this cannot be read as YAML or JSON: unknown anchor"),
];
