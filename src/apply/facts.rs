//! Asks the host what a plan needs to know.

use crate::backend::iptables::tools::{Toolset, Variant};
use crate::config::Config;
use crate::config::values::IpFamilyMode;
use crate::exit::{Exit, Failure};
use crate::host::{self, HostFacts, Interfaces, Ipv6Support};

use super::request::InstallRequest;

/// The facts that do not depend on rules.
///
/// # Errors
/// The sidecar's user is missing, or the host cannot be read.
pub fn collect(config: &Config, interfaces: &Interfaces) -> Result<HostFacts, Failure> {
    let user = host::sidecar_user(config.kuma_dp_user.as_ref(), config.cni_mode)?;
    if let Some(note) = &user.note {
        tracing::info!("{note}");
    }
    let dns = &config.redirect.dns;
    let resolvers = if dns.enabled && !dns.capture_all {
        let (resolvers, notes) = host::resolvers(&dns.resolv_config_path)?;
        for note in notes {
            tracing::info!("{note}");
        }
        resolvers
    } else {
        Vec::new()
    };
    Ok(HostFacts {
        sidecar_uid: user.uid,
        loopback: interfaces.loopback().to_owned(),
        ipv6: interfaces.ipv6_support(),
        resolvers,
        docker_dns: false,
    })
}

/// Whether an installation without IPv6 is not to be had.
pub fn demand_ipv6(request: &InstallRequest, facts: &HostFacts) -> bool {
    let dual = request.config.ip_family_mode == IpFamilyMode::DualStack;
    request.strict && dual && facts.ipv6 == Ipv6Support::Available
}

/// With `--strict`, an installation that cannot have IPv6 is none.
///
/// # Errors
/// It cannot, and it is wanted.
pub fn require_ipv6(request: &InstallRequest, facts: &HostFacts) -> Result<(), Failure> {
    let dual = request.config.ip_family_mode == IpFamilyMode::DualStack;
    match &facts.ipv6 {
        Ipv6Support::Unavailable(why) if dual && request.strict => Err(no_ipv6(why)),
        _ => Ok(()),
    }
}

/// The same as the end of a run.
pub fn no_ipv6(why: &str) -> Failure {
    Failure::new(Exit::Host, format!("IPv6 traffic cannot be redirected: {why}"))
        .hint("install with --ip-family-mode ipv4, or without --strict")
}

/// IPv6 needs programs of its own.
pub fn check_ipv6_tools(facts: &mut HostFacts, variant: Variant, tools: &Toolset) {
    if facts.ipv6 == Ipv6Support::Available && tools.v6.is_none() {
        facts.ipv6 = Ipv6Support::Unavailable(format!(
            "no ip6tables of the {variant} variant was found; --backend nftables needs none"
        ));
    }
}

/// A user at the other end of an SSH connection should know before, not after.
pub fn warn_of_ssh(config: &Config) {
    const SSH: u16 = 22;
    let inbound = &config.redirect.inbound;
    let listed = |ports: &[crate::config::values::Port]| ports.iter().any(|port| port.get() == SSH);
    let redirected = inbound.enabled
        && if inbound.include_ports.is_empty() {
            !listed(&inbound.exclude_ports)
        } else {
            listed(&inbound.include_ports)
        };
    let listening = host::listening_tcp_ports().unwrap_or_default().contains(&inbound.port.get());
    if redirected && !listening {
        tracing::warn!(
            "nothing listens on the inbound port {} yet: until the sidecar does, new SSH connections (port {SSH}) to \
             this host are refused; to leave them alone, add --exclude-inbound-ports {SSH}",
            inbound.port
        );
    }
}
