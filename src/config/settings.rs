//! The one table of settings. Flags, variables, file keys, `config show`, `config default` and the documentation's
//! table are all made from it; a new option is a field in the schema and an entry here.

use super::field::Field;
use super::values::InvalidValue;

/// What the variables of every setting begin with.
pub const PREFIX: &str = "KUMA_TRANSPARENT_PROXY_";

/// Under which heading help and documentation list a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Traffic that arrives.
    In,
    /// Traffic that local processes send.
    Out,
    /// DNS questions.
    Dns,
    /// What this host is like.
    Host,
    /// How careful a change is.
    Safety,
    /// What is printed.
    Output,
}

impl Group {
    /// Every group, in the order of help and documentation.
    pub const ALL: [Self; 6] = [Self::In, Self::Out, Self::Dns, Self::Host, Self::Safety, Self::Output];

    /// The heading.
    pub const fn title(self) -> &'static str {
        match self {
            Self::In => "Traffic in",
            Self::Out => "Traffic out",
            Self::Dns => "DNS",
            Self::Host => "Host",
            Self::Safety => "Safety",
            Self::Output => "Output",
        }
    }
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its key in a file, sections joined with dots.
    pub key: &'static str,
    /// Its flag, without the dashes.
    pub flag: Option<&'static str>,
    /// Its variable, without the prefix.
    pub variable: &'static str,
    /// A variable without the prefix that counts when the one with the prefix is not set, as in kumactl.
    pub alternate: Option<&'static str>,
    /// Its heading.
    pub group: Group,
    /// Where it lives, and its grammar.
    pub field: Field,
    /// What it does: one line, or one line and further ones. No full stop at the end of the first.
    pub doc: &'static str,
}

impl Setting {
    /// The full name of its variable.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.variable)
    }

    /// Whether it can be used at all; others are in the table only to be refused well.
    pub fn usable(&self) -> bool {
        !matches!(self.field, Field::Never(_))
    }
}

/// The setting with a key, whatever the case of its letters.
pub fn by_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key.eq_ignore_ascii_case(key))
}

/// The setting with a flag.
pub fn by_flag(flag: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.flag == Some(flag))
}

const NO_UIDS_INBOUND: &str = "traffic that arrives has no local user, so inbound ports cannot be left alone by UID; \
    use redirect.inbound.excludePorts or redirect.inbound.excludePortsForIPs";

/// Every setting, in the order of `config show`; settings of one section stand together.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "kumaDPUser",
        flag: Some("kuma-dp-user"),
        variable: "KUMA_DP_USER",
        alternate: Some("KUMA_DP_USER"),
        group: Group::Host,
        field: Field::User(|c| &mut c.kuma_dp_user),
        doc: "User the sidecar runs as, by name or UID; its own traffic is left alone\n\
            Without it, UID 5678 is looked up, then the name kuma-dp.",
    },
    Setting {
        key: "backend",
        flag: Some("backend"),
        variable: "BACKEND",
        alternate: None,
        group: Group::Host,
        field: Field::Backend(|c| &mut c.backend),
        doc: "How rules get into the kernel: by the iptables programs, or as an nftables table of tproxy's own\n\
            auto keeps to what is installed, and else takes iptables where there is one.",
    },
    Setting {
        key: "ipFamilyMode",
        flag: Some("ip-family-mode"),
        variable: "IP_FAMILY_MODE",
        alternate: Some("IP_FAMILY_MODE"),
        group: Group::Host,
        field: Field::Families(|c| &mut c.ip_family_mode),
        doc: "Address families to redirect\n\
            ipv4 also removes IPv6 rules of an earlier installation.",
    },
    Setting {
        key: "redirect.inbound.enabled",
        flag: Some("redirect-inbound"),
        variable: "REDIRECT_INBOUND_ENABLED",
        alternate: None,
        group: Group::In,
        field: Field::Switch(|c| &mut c.redirect.inbound.enabled),
        doc: "Redirect TCP that arrives; false for gateways, which receive it directly",
    },
    Setting {
        key: "redirect.inbound.port",
        flag: Some("redirect-inbound-port"),
        variable: "REDIRECT_INBOUND_PORT",
        alternate: None,
        group: Group::In,
        field: Field::Port(|c| &mut c.redirect.inbound.port),
        doc: "TCP port of the sidecar's inbound listener, IPv4 and IPv6",
    },
    Setting {
        key: "redirect.inbound.includePorts",
        flag: None,
        variable: "REDIRECT_INBOUND_INCLUDE_PORTS",
        alternate: None,
        group: Group::In,
        field: Field::Ports(|c| &mut c.redirect.inbound.include_ports),
        doc: "Redirect only these TCP ports of what arrives; empty means all, and excludePorts is ignored otherwise",
    },
    Setting {
        key: "redirect.inbound.excludePorts",
        flag: Some("exclude-inbound-ports"),
        variable: "REDIRECT_INBOUND_EXCLUDE_PORTS",
        alternate: None,
        group: Group::In,
        field: Field::Ports(|c| &mut c.redirect.inbound.exclude_ports),
        doc: "TCP ports to leave alone when traffic arrives at them\n\
            Nothing is excluded by default: SSH on port 22 is redirected too unless it is listed here. \
            Given again, the last one counts.",
    },
    Setting {
        key: "redirect.inbound.excludePortsForUIDs",
        flag: None,
        variable: "REDIRECT_INBOUND_EXCLUDE_PORTS_FOR_UIDS",
        alternate: None,
        group: Group::In,
        field: Field::Never(NO_UIDS_INBOUND),
        doc: "Refused unless empty: traffic that arrives has no local user",
    },
    Setting {
        key: "redirect.inbound.excludePortsForIPs",
        flag: Some("exclude-inbound-ips"),
        variable: "REDIRECT_INBOUND_EXCLUDE_PORTS_FOR_IPS",
        alternate: None,
        group: Group::In,
        field: Field::Networks(|c| &mut c.redirect.inbound.exclude_ports_for_ips),
        doc: "Source addresses and networks whose traffic is left alone when it arrives\n\
            Can be given again; every one counts.",
    },
    Setting {
        key: "redirect.inbound.keepSSH",
        flag: Some("keep-ssh"),
        variable: "REDIRECT_INBOUND_KEEP_SSH",
        alternate: None,
        group: Group::In,
        field: Field::Switch(|c| &mut c.redirect.inbound.keep_ssh),
        doc: "Leave alone the ports on which this host's SSH server listens, and that of the SSH connection in use\n\
            What they are is found out at installation, and recorded as excluded ports.",
    },
    Setting {
        key: "redirect.inbound.excludeForwarded",
        flag: Some("exclude-forwarded"),
        variable: "REDIRECT_INBOUND_EXCLUDE_FORWARDED",
        alternate: None,
        group: Group::In,
        field: Field::Switch(|c| &mut c.redirect.inbound.exclude_forwarded),
        doc: "Leave alone what arrives for other hosts: what this one forwards for containers and virtual machines\n\
            Without it, their TCP ends at the inbound port, wherever it was going. --vnet sends it through the \
            sidecar's outbound port instead.",
    },
    Setting {
        key: "redirect.inbound.insertRedirectInsteadOfAppend",
        flag: Some("redirect-inbound-insert-instead-of-append"),
        variable: "REDIRECT_INBOUND_INSERT_REDIRECT_INSTEAD_OF_APPEND",
        alternate: None,
        group: Group::In,
        field: Field::Switch(|c| &mut c.redirect.inbound.insert_redirect_instead_of_append),
        doc: "Put the inbound redirect before everybody else's rules in nat PREROUTING, not after them",
    },
    Setting {
        key: "redirect.outbound.enabled",
        flag: None,
        variable: "REDIRECT_OUTBOUND_ENABLED",
        alternate: None,
        group: Group::Out,
        field: Field::Switch(|c| &mut c.redirect.outbound.enabled),
        doc: "Redirect TCP that local processes send",
    },
    Setting {
        key: "redirect.outbound.port",
        flag: Some("redirect-outbound-port"),
        variable: "REDIRECT_OUTBOUND_PORT",
        alternate: None,
        group: Group::Out,
        field: Field::Port(|c| &mut c.redirect.outbound.port),
        doc: "TCP port of the sidecar's outbound listener",
    },
    Setting {
        key: "redirect.outbound.includePorts",
        flag: None,
        variable: "REDIRECT_OUTBOUND_INCLUDE_PORTS",
        alternate: None,
        group: Group::Out,
        field: Field::Ports(|c| &mut c.redirect.outbound.include_ports),
        doc: "Redirect only these TCP ports of what is sent; empty means all, and excludePorts is ignored otherwise",
    },
    Setting {
        key: "redirect.outbound.excludePorts",
        flag: Some("exclude-outbound-ports"),
        variable: "REDIRECT_OUTBOUND_EXCLUDE_PORTS",
        alternate: None,
        group: Group::Out,
        field: Field::Ports(|c| &mut c.redirect.outbound.exclude_ports),
        doc: "TCP ports to leave alone when local processes connect to them\n\
            Given again, the last one counts.",
    },
    Setting {
        key: "redirect.outbound.excludePortsForUIDs",
        flag: Some("exclude-outbound-ports-for-uids"),
        variable: "REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_UIDS",
        alternate: None,
        group: Group::Out,
        field: Field::Exclusions(|c| &mut c.redirect.outbound.exclude_ports_for_uids),
        doc: "Ports to leave alone for some users only, as [[protocols:]ports:]uids\n\
            Protocols are tcp, udp, tcp,udp or *; ports are ports and ranges with commas, or *; uids is one UID or \
            one range. Examples: 1000, 443:1000-1999, tcp:80,8000-8099:1000. Can be given again; every one counts.",
    },
    Setting {
        key: "redirect.outbound.excludePortsForIPs",
        flag: Some("exclude-outbound-ips"),
        variable: "REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_IPS",
        alternate: None,
        group: Group::Out,
        field: Field::Networks(|c| &mut c.redirect.outbound.exclude_ports_for_ips),
        doc: "Destination addresses and networks to leave alone\n\
            Can be given again; every one counts.",
    },
    Setting {
        key: "redirect.outbound.insertRedirectInsteadOfAppend",
        flag: Some("redirect-outbound-insert-instead-of-append"),
        variable: "REDIRECT_OUTBOUND_INSERT_REDIRECT_INSTEAD_OF_APPEND",
        alternate: None,
        group: Group::Out,
        field: Field::Switch(|c| &mut c.redirect.outbound.insert_redirect_instead_of_append),
        doc: "Put the outbound redirect before everybody else's rules in nat OUTPUT, not after them",
    },
    Setting {
        key: "redirect.dns.enabled",
        flag: Some("redirect-dns"),
        variable: "REDIRECT_DNS_ENABLED",
        alternate: None,
        group: Group::Dns,
        field: Field::Switch(|c| &mut c.redirect.dns.enabled),
        doc: "Redirect UDP questions to the DNS servers that resolv.conf lists",
    },
    Setting {
        key: "redirect.dns.port",
        flag: Some("redirect-dns-port"),
        variable: "REDIRECT_DNS_PORT",
        alternate: None,
        group: Group::Dns,
        field: Field::Port(|c| &mut c.redirect.dns.port),
        doc: "UDP port of the sidecar's DNS server",
    },
    Setting {
        key: "redirect.dns.captureAll",
        flag: Some("redirect-all-dns-traffic"),
        variable: "REDIRECT_DNS_CAPTURE_ALL",
        alternate: None,
        group: Group::Dns,
        field: Field::Switch(|c| &mut c.redirect.dns.capture_all),
        doc: "Redirect everything sent to UDP port 53, whatever the server; turns DNS redirection on",
    },
    Setting {
        key: "redirect.dns.skipConntrackZoneSplit",
        flag: Some("skip-dns-conntrack-zone-split"),
        variable: "REDIRECT_DNS_SKIP_CONNTRACK_ZONE_SPLIT",
        alternate: None,
        group: Group::Dns,
        field: Field::Switch(|c| &mut c.redirect.dns.skip_conntrack_zone_split),
        doc: "Do without the conntrack zones that keep the sidecar's own DNS questions apart from everybody else's",
    },
    Setting {
        key: "redirect.dns.resolvConfigPath",
        flag: None,
        variable: "REDIRECT_DNS_RESOLV_CONFIG_PATH",
        alternate: None,
        group: Group::Dns,
        field: Field::File(|c| &mut c.redirect.dns.resolv_config_path),
        doc: "File that lists the host's DNS servers",
    },
    Setting {
        key: "redirect.vnet.networks",
        flag: Some("vnet"),
        variable: "REDIRECT_VNET_NETWORKS",
        alternate: None,
        group: Group::Out,
        field: Field::Bridges(|c| &mut c.redirect.vnet.networks),
        doc: "Bridge of containers or virtual machines whose outgoing traffic is redirected too, as interface:network\n\
            A name ending in + stands for every interface that begins so. Traffic to the network itself is left \
            alone. Example: docker0:172.17.0.0/16. Can be given again; every one counts.",
    },
    Setting {
        key: "dropInvalidPackets",
        flag: Some("drop-invalid-packets"),
        variable: "DROP_INVALID_PACKETS",
        alternate: None,
        group: Group::Safety,
        field: Field::Switch(|c| &mut c.drop_invalid_packets),
        doc: "Drop packets that arrive and that connection tracking calls INVALID",
    },
    Setting {
        key: "verbose",
        flag: Some("verbose"),
        variable: "VERBOSE",
        alternate: None,
        group: Group::Output,
        field: Field::Switch(|c| &mut c.verbose),
        doc: "Print rules with long option names and section headers",
    },
    Setting {
        key: "dryRun",
        flag: Some("dry-run"),
        variable: "DRY_RUN",
        alternate: None,
        group: Group::Output,
        field: Field::Switch(|c| &mut c.dry_run),
        doc: "Print the rules and change nothing",
    },
    Setting {
        key: "log.enabled",
        flag: Some("iptables-logs"),
        variable: "LOG_ENABLED",
        alternate: None,
        group: Group::Output,
        field: Field::Switch(|c| &mut c.log.enabled),
        doc: "Add LOG rules, one first in nat OUTPUT, one appended to nat PREROUTING: packets go to the kernel log",
    },
    Setting {
        key: "log.level",
        flag: None,
        variable: "LOG_LEVEL",
        alternate: None,
        group: Group::Output,
        field: Field::Level(|c| &mut c.log.level),
        doc: "Kernel log level of the LOG rules, 0 (emergency) to 7 (debug)",
    },
    Setting {
        key: "wait",
        flag: Some("wait"),
        variable: "WAIT",
        alternate: None,
        group: Group::Safety,
        field: Field::Number(|c| &mut c.wait, "a number of seconds"),
        doc: "Seconds to wait for the xtables lock; 0 leaves it to iptables",
    },
    Setting {
        key: "waitInterval",
        flag: Some("wait-interval"),
        variable: "WAIT_INTERVAL",
        alternate: None,
        group: Group::Safety,
        field: Field::Number(|c| &mut c.wait_interval, "a number of microseconds"),
        doc: "Microseconds between two tries for the xtables lock; 0 leaves it to iptables",
    },
    Setting {
        key: "retry.maxRetries",
        flag: Some("max-retries"),
        variable: "RETRY_MAX_RETRIES",
        alternate: None,
        group: Group::Safety,
        field: Field::Number(|c| &mut c.retry.max_retries, "a number of retries"),
        doc: "Further tries when a change fails for a reason that can pass",
    },
    Setting {
        key: "retry.sleepBetweenRetries",
        flag: Some("sleep-between-retries"),
        variable: "RETRY_SLEEP_BETWEEN_RETRIES",
        alternate: None,
        group: Group::Safety,
        field: Field::Pause(|c| &mut c.retry.sleep_between_retries),
        doc: "Pause before each further try, such as 2s, 500ms or 1m30s",
    },
    Setting {
        key: "storeFirewalld",
        flag: Some("store-firewalld"),
        variable: "STORE_FIREWALLD",
        alternate: None,
        group: Group::Host,
        field: Field::Switch(|c| &mut c.store_firewalld),
        doc: "Keep the rules in firewalld's direct.xml too, so that they survive its start and reload",
    },
    Setting {
        key: "iptablesExecutables",
        flag: Some("iptables-executables"),
        variable: "IPTABLES_EXECUTABLES",
        alternate: Some("IPTABLES_EXECUTABLES"),
        group: Group::Host,
        field: Field::Programs(|c| &mut c.iptables_executables),
        doc: "Programs to use instead of the ones found, as name:path with commas\n\
            The names are iptables, iptables-save, iptables-restore, ip6tables, ip6tables-save and \
            ip6tables-restore; for each family all three or none.",
    },
    Setting {
        key: "comments.disabled",
        flag: Some("disable-comments"),
        variable: "COMMENTS_DISABLED",
        alternate: None,
        group: Group::Output,
        field: Field::Switch(|c| &mut c.comments.disabled),
        doc: "Write rules without comments",
    },
    Setting {
        key: "cniMode",
        flag: None,
        variable: "CNI_MODE",
        alternate: None,
        group: Group::Host,
        field: Field::Switch(|c| &mut c.cni_mode),
        doc: "Set by a CNI plugin: the sidecar's UID is taken as given, not looked up",
    },
];

/// Variables without the prefix that kumactl reads and `tproxy` does not, with what to set instead: as a side
/// effect of its library each sets two directions at once, or changes how users are looked up.
pub const IGNORED_ALTERNATES: [(&str, &str); 3] = [
    ("EXCLUDE_PORTS_FOR_UIDS", "KUMA_TRANSPARENT_PROXY_REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_UIDS"),
    ("EXCLUDE_PORTS_FOR_IPS", "KUMA_TRANSPARENT_PROXY_REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_IPS"),
    ("CNI_MODE", "KUMA_TRANSPARENT_PROXY_CNI_MODE"),
];

/// The variables, without the prefix, that rename Kuma's chains.
pub const CHAIN_NAMES: [&str; 4] = [
    "REDIRECT_INBOUND_CHAIN_NAME",
    "REDIRECT_INBOUND_REDIRECT_CHAIN_NAME",
    "REDIRECT_OUTBOUND_CHAIN_NAME",
    "REDIRECT_OUTBOUND_REDIRECT_CHAIN_NAME",
];

/// Why eBPF is refused.
pub fn ebpf_refusal() -> InvalidValue {
    InvalidValue(
        "redirection by eBPF comes with a later version; leave it out and iptables rules are used".into(),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let distinct = |names: Vec<String>| {
            let count = names.len();
            assert_eq!(
                names.into_iter().map(|name| name.to_lowercase()).collect::<BTreeSet<_>>().len(),
                count
            );
        };
        distinct(SETTINGS.iter().map(|s| s.key.to_owned()).collect());
        distinct(SETTINGS.iter().map(Setting::variable).collect());
        distinct(SETTINGS.iter().filter_map(|s| s.flag.map(str::to_owned)).collect());
    }

    #[test]
    fn sections_stand_together() {
        let mut closed = BTreeSet::new();
        let mut open = Vec::new();
        for setting in SETTINGS {
            let mut path = setting.key.split('.').collect::<Vec<_>>();
            path.pop();
            while !path.starts_with(&open) {
                closed.insert(open.clone());
                open.pop();
            }
            for depth in open.len()..path.len() {
                assert!(!closed.contains(&path[..=depth]), "{} is split", path[..=depth].join("."));
            }
            open = path;
        }
    }

    #[test]
    fn docs_are_one_line_without_full_stop_and_then_sentences() {
        for setting in SETTINGS {
            let (first, rest) = setting.doc.split_once('\n').unwrap_or((setting.doc, ""));
            assert!(!first.is_empty() && !first.ends_with('.') && first.len() <= 130, "{}", setting.key);
            assert!(!rest.contains('\n') && (rest.is_empty() || rest.ends_with('.')), "{}", setting.key);
        }
    }
}
