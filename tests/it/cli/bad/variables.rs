//! In the environment.

use super::{
    BRIDGE, Bad, DURATION, EBPF, EXCLUSION, FAMILIES, LEVEL, NETWORK, NO_RANGE, NO_UIDS, PORT, Place,
    SECONDS, SWITCH, Says, USER, bad,
};

/// Bad variables.
pub const VARIABLES: &[Bad] = &[
    bad(
        Place::Variable("KUMA_TRANSPARENT_PROXY_REDIRECT_INBOUND_PORT", "0"),
        "'0'",
        "the variable KUMA_TRANSPARENT_PROXY_REDIRECT_INBOUND_PORT",
        PORT,
    ),
    bad(
        Place::Variable("KUMA_TRANSPARENT_PROXY_REDIRECT_INBOUND_PORT", ""),
        "''",
        "the variable KUMA_TRANSPARENT_PROXY_REDIRECT_INBOUND_PORT",
        PORT,
    ),
    bad(
        Place::Variable("KUMA_TRANSPARENT_PROXY_REDIRECT_DNS_ENABLED", ""),
        "''",
        "the variable KUMA_TRANSPARENT_PROXY_REDIRECT_DNS_ENABLED",
        SWITCH,
    ),
    bad(
        Place::Variable("KUMA_TRANSPARENT_PROXY_REDIRECT_DNS_ENABLED", "on"),
        "'on'",
        "the variable KUMA_TRANSPARENT_PROXY_REDIRECT_DNS_ENABLED",
        SWITCH,
    ),
    bad(
        Place::Variable("KUMA_TRANSPARENT_PROXY_WAIT", "soon"),
        "'soon'",
        "the variable KUMA_TRANSPARENT_PROXY_WAIT",
        SECONDS,
    ),
    bad(
        Place::Variable("KUMA_TRANSPARENT_PROXY_LOG_LEVEL", "8"),
        "'8'",
        "the variable KUMA_TRANSPARENT_PROXY_LOG_LEVEL",
        LEVEL,
    ),
    bad(
        Place::Variable("KUMA_TRANSPARENT_PROXY_LOG_LEVEL", "debug"),
        "'debug'",
        "the variable KUMA_TRANSPARENT_PROXY_LOG_LEVEL",
        LEVEL,
    ),
    bad(
        Place::Variable("KUMA_TRANSPARENT_PROXY_RETRY_SLEEP_BETWEEN_RETRIES", "2x"),
        "'2x'",
        "the variable KUMA_TRANSPARENT_PROXY_RETRY_SLEEP_BETWEEN_RETRIES",
        DURATION,
    ),
    bad(
        Place::Variable("KUMA_TRANSPARENT_PROXY_REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_UIDS", "1000,"),
        "'' in '1000,'",
        "the variable KUMA_TRANSPARENT_PROXY_REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_UIDS",
        EXCLUSION,
    ),
    bad(
        Place::Variable("KUMA_TRANSPARENT_PROXY_REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_UIDS", "tcp:80,443:1000"),
        "'tcp:80' in 'tcp:80,443:1000'",
        "the variable KUMA_TRANSPARENT_PROXY_REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_UIDS",
        "the UID is missing, as in tcp:80:1000",
    ),
    bad(
        Place::Variable("KUMA_TRANSPARENT_PROXY_REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_IPS", "10.0.0.0/8,,"),
        "'' in '10.0.0.0/8,,'",
        "the variable KUMA_TRANSPARENT_PROXY_REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_IPS",
        NETWORK,
    ),
    bad(
        Place::Variable("KUMA_TRANSPARENT_PROXY_REDIRECT_INBOUND_EXCLUDE_PORTS_FOR_UIDS", "1000"),
        "'1000'",
        "the variable KUMA_TRANSPARENT_PROXY_REDIRECT_INBOUND_EXCLUDE_PORTS_FOR_UIDS",
        NO_UIDS,
    ),
    Bad {
        place: Place::Variable("KUMA_TRANSPARENT_PROXY_IPTABLES_EXECUTABLES", "iptables:/a"),
        says: Says::Sentence(
            "iptablesExecutables has iptables (KUMA_TRANSPARENT_PROXY_IPTABLES_EXECUTABLES) but not iptables-save and iptables-restore; give all of iptables, iptables-save, iptables-restore or none of them",
        ),
    },
    bad(
        Place::Variable("KUMA_TRANSPARENT_PROXY_EBPF_ENABLED", "true"),
        "'true'",
        "the variable KUMA_TRANSPARENT_PROXY_EBPF_ENABLED",
        EBPF,
    ),
    bad(
        Place::Variable("KUMA_TRANSPARENT_PROXY_IP_FAMILY_MODE", "v4"),
        "'v4'",
        "the variable KUMA_TRANSPARENT_PROXY_IP_FAMILY_MODE",
        FAMILIES,
    ),
    bad(
        Place::Variable("KUMA_TRANSPARENT_PROXY_REDIRECT_INBOUND_INCLUDE_PORTS", "80-81"),
        "'80-81'",
        "the variable KUMA_TRANSPARENT_PROXY_REDIRECT_INBOUND_INCLUDE_PORTS",
        NO_RANGE,
    ),
    bad(
        Place::Variable("KUMA_TRANSPARENT_PROXY_REDIRECT_VNET_NETWORKS", "docker0"),
        "'docker0'",
        "the variable KUMA_TRANSPARENT_PROXY_REDIRECT_VNET_NETWORKS",
        BRIDGE,
    ),
    bad(
        Place::Variable("KUMA_TRANSPARENT_PROXY_KUMA_DP_USER", "a b"),
        "'a b'",
        "the variable KUMA_TRANSPARENT_PROXY_KUMA_DP_USER",
        USER,
    ),
    bad(
        Place::Variable("KUMA_TRANSPARENT_PROXY_REDIRECT_DNS_RESOLV_CONFIG_PATH", ""),
        "''",
        "the variable KUMA_TRANSPARENT_PROXY_REDIRECT_DNS_RESOLV_CONFIG_PATH",
        "expected the path of a file",
    ),
];
