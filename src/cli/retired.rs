//! Flags of kumactl that are recognised only to say what to do instead.

/// Flags that kumactl lost before 2.9, with what to do today.
pub const REMOVED: [(&str, &str); 9] = [
    ("redirect-inbound-port-v6", "use --redirect-inbound-port, which counts for IPv4 and IPv6"),
    ("redirect-inbound-port-ipv6", "use --redirect-inbound-port, which counts for IPv4 and IPv6"),
    ("exclude-outbound-tcp-ports-for-uids", "use --exclude-outbound-ports-for-uids tcp:PORTS:UIDS"),
    ("exclude-outbound-udp-ports-for-uids", "use --exclude-outbound-ports-for-uids udp:PORTS:UIDS"),
    (
        "redirect-dns-upstream-target-chain",
        "leave it out, the sidecar's own DNS questions are left alone anyway",
    ),
    ("skip-resolv-conf", "leave it out, resolv.conf is never changed"),
    ("modify-resolv-conf", "leave it out, resolv.conf is never changed; use --redirect-dns to redirect DNS"),
    ("kuma-cp-ip", "leave it out; use --redirect-dns to redirect DNS to the sidecar"),
    ("experimental-transparent-proxy-engine", "leave it out, there is only one engine"),
];

/// Turns redirection by eBPF on and off.
pub const EBPF_SWITCH: &str = "ebpf-enabled";

/// Further flags of it.
pub const EBPF: [&str; 5] = [
    "ebpf-instance-ip",
    "ebpf-bpffs-path",
    "ebpf-cgroup-path",
    "ebpf-programs-source-path",
    "ebpf-tc-attach-iface",
];
