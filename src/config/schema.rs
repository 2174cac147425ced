//! The effective configuration: every value present, typed and valid on its own.
//!
//! Keys, defaults and meaning are Kuma's transparent proxy configuration (2.9 to master); the serialised form of
//! this type is what `tproxy config show` prints and what a configuration file contains.

use std::path::PathBuf;
use std::time::Duration;

use super::values::{BackendChoice, Cidr, IpFamilyMode, Port, UidExclusion, UserSpec, VirtualNetwork};

/// Everything that can be wanted of one network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "the switches are Kuma's and independent of each other")]
pub struct Config {
    /// The user the sidecar runs as, by name or UID; `None` looks up UID 5678, then the name `kuma-dp`.
    pub kuma_dp_user: Option<UserSpec>,
    /// By what rules get into the kernel. Not Kuma's, which knows iptables alone.
    pub backend: BackendChoice,
    /// Which address families are redirected.
    pub ip_family_mode: IpFamilyMode,
    /// What is redirected where.
    pub redirect: Redirect,
    /// Drop packets that conntrack calls INVALID (mangle PREROUTING).
    pub drop_invalid_packets: bool,
    /// Print rules with long option names and section headers.
    pub verbose: bool,
    /// Show what would be done and change nothing.
    pub dry_run: bool,
    /// LOG rules: first in nat OUTPUT, appended to nat PREROUTING.
    pub log: LogRules,
    /// Seconds to wait for the xtables lock; 0 leaves it to iptables.
    pub wait: u32,
    /// Microseconds between two tries for the xtables lock; 0 leaves it to iptables.
    pub wait_interval: u32,
    /// Further tries of a transaction that failed for a passing reason.
    pub retry: Retry,
    /// Keep the rules in firewalld's configuration too.
    pub store_firewalld: bool,
    /// Programs to use instead of the ones found on the host.
    pub iptables_executables: Executables,
    /// Whether rules carry the owner tag and their reason as a comment.
    pub comments: Comments,
    /// Set by a CNI plugin: users are taken as given, not looked up.
    pub cni_mode: bool,
}

/// What is redirected where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Traffic that arrives.
    pub inbound: Inbound,
    /// Traffic that local processes send.
    pub outbound: Outbound,
    /// DNS questions of local processes.
    pub dns: Dns,
    /// Bridges of containers and virtual machines on this host.
    pub vnet: VirtualNetworks,
}

/// Traffic that arrives from other hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "the switches are independent of each other")]
pub struct Inbound {
    /// False for gateways, which receive their traffic directly.
    pub enabled: bool,
    /// TCP port of the sidecar's inbound listener.
    pub port: Port,
    /// If not empty, only these destination ports are redirected and `exclude_ports` is ignored.
    pub include_ports: Vec<Port>,
    /// Destination ports left alone.
    pub exclude_ports: Vec<Port>,
    /// Source addresses left alone.
    pub exclude_ports_for_ips: Vec<Cidr>,
    /// Leave alone the ports of this host's SSH server, whatever they are. Not Kuma's.
    pub keep_ssh: bool,
    /// Leave alone what is addressed to other hosts, which this one forwards. Not Kuma's.
    pub exclude_forwarded: bool,
    /// Put the jump to our chain before everybody else's rules instead of after them.
    pub insert_redirect_instead_of_append: bool,
}

/// Traffic that local processes send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// False leaves outbound traffic alone.
    pub enabled: bool,
    /// TCP port of the sidecar's outbound listener.
    pub port: Port,
    /// If not empty, only these destination ports are redirected and `exclude_ports` is ignored.
    pub include_ports: Vec<Port>,
    /// Destination ports left alone.
    pub exclude_ports: Vec<Port>,
    /// Ports left alone for some users only.
    pub exclude_ports_for_uids: Vec<UidExclusion>,
    /// Destination addresses left alone.
    pub exclude_ports_for_ips: Vec<Cidr>,
    /// Put the jump to our chain before everybody else's rules instead of after them.
    pub insert_redirect_instead_of_append: bool,
}

/// DNS questions of local processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Redirect questions to the servers of resolv.conf (`capture_all` implies it).
    pub enabled: bool,
    /// UDP port of the sidecar's DNS server.
    pub port: Port,
    /// Redirect every UDP datagram to port 53, whatever its server.
    pub capture_all: bool,
    /// Do without the conntrack zones that keep the sidecar's own questions apart.
    pub skip_conntrack_zone_split: bool,
    /// Where the host's DNS servers are listed.
    pub resolv_config_path: PathBuf,
}

/// Bridges of containers and virtual machines on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VirtualNetworks {
    /// Traffic that enters by these interfaces is redirected to the outbound port.
    pub networks: Vec<VirtualNetwork>,
}

/// LOG rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRules {
    /// Whether there are any.
    pub enabled: bool,
    /// Kernel log level, 0 (emergency) to 7 (debug).
    pub level: u8,
}

/// Further tries of a transaction that failed for a passing reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first one.
    pub max_retries: u32,
    /// Pause before each.
    pub sleep_between_retries: Duration,
}

/// Programs to use instead of the ones found on the host; per family all three or none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Executables {
    /// `iptables`
    pub iptables: Option<PathBuf>,
    /// `iptables-save`
    pub iptables_save: Option<PathBuf>,
    /// `iptables-restore`
    pub iptables_restore: Option<PathBuf>,
    /// `ip6tables`
    pub ip6tables: Option<PathBuf>,
    /// `ip6tables-save`
    pub ip6tables_save: Option<PathBuf>,
    /// `ip6tables-restore`
    pub ip6tables_restore: Option<PathBuf>,
}

impl Executables {
    /// What the programs are called in files, flags and variables; IPv4's three come first.
    pub const NAMES: [&str; 6] =
        ["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"];

    /// Every program with its name, in the order of `NAMES`.
    pub(crate) fn each(&mut self) -> [(&'static str, &mut Option<PathBuf>); 6] {
        let places = [
            &mut self.iptables,
            &mut self.iptables_save,
            &mut self.iptables_restore,
            &mut self.ip6tables,
            &mut self.ip6tables_save,
            &mut self.ip6tables_restore,
        ];
        let mut names = Self::NAMES.into_iter();
        places.map(|place| (names.next().unwrap_or_default(), place))
    }
}

/// Owner tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Comments {
    /// True writes rules without comments; they are then known by the state file alone.
    pub disabled: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kuma_dp_user: None,
            backend: BackendChoice::Auto,
            ip_family_mode: IpFamilyMode::DualStack,
            redirect: Redirect {
                inbound: Inbound {
                    enabled: true,
                    port: Port::of(15006),
                    include_ports: Vec::new(),
                    exclude_ports: Vec::new(),
                    exclude_ports_for_ips: Vec::new(),
                    keep_ssh: false,
                    exclude_forwarded: false,
                    insert_redirect_instead_of_append: false,
                },
                outbound: Outbound {
                    enabled: true,
                    port: Port::of(15001),
                    include_ports: Vec::new(),
                    exclude_ports: Vec::new(),
                    exclude_ports_for_uids: Vec::new(),
                    exclude_ports_for_ips: Vec::new(),
                    insert_redirect_instead_of_append: false,
                },
                dns: Dns {
                    enabled: false,
                    port: Port::of(15053),
                    capture_all: false,
                    skip_conntrack_zone_split: false,
                    resolv_config_path: PathBuf::from("/etc/resolv.conf"),
                },
                vnet: VirtualNetworks::default(),
            },
            drop_invalid_packets: false,
            verbose: false,
            dry_run: false,
            log: LogRules { enabled: false, level: 7 },
            wait: 5,
            wait_interval: 0,
            retry: Retry { max_retries: 4, sleep_between_retries: Duration::from_secs(2) },
            store_firewalld: false,
            iptables_executables: Executables::default(),
            comments: Comments::default(),
            cni_mode: false,
        }
    }
}
