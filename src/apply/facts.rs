//! Asks the host what a plan needs to know.

use crate::backend::iptables::tools::{Toolset, Variant};
use crate::config::Config;
use crate::config::values::IpFamilyMode;
use crate::exit::{Exit, Failure};
use crate::host::{self, HostFacts, Interfaces, Ipv6Support, Resolver};
use crate::plan;

use super::request::InstallRequest;

/// What files and other programs say of the host.
#[derive(Debug)]
pub struct Read {
    sidecar_uid: u32,
    resolvers: Vec<Resolver>,
}

/// Reads files of the host, some of which the user names. On a file system whose server is gone that waits until a
/// signal ends it, so it is done before signals are held and before others could wait for a lock.
///
/// # Errors
/// The sidecar's user is missing, or a file cannot be read.
pub fn read(config: &Config) -> Result<Read, Failure> {
    let user = host::sidecar_user(config.kuma_dp_user.as_ref(), config.cni_mode)?;
    if let Some(note) = &user.note {
        tracing::info!("{note}");
    }
    if user.uid == 0 {
        tracing::warn!(
            "the sidecar's user is root (UID 0): everything that root sends bypasses the sidecar, whichever program sends it"
        );
    }
    let dns = &config.redirect.dns;
    let mut resolvers = Vec::new();
    if dns.enabled && !dns.capture_all {
        let (found, notes) = host::resolvers(&dns.resolv_config_path)?;
        for note in notes {
            tracing::info!("{note}");
        }
        resolvers = found;
    } else if dns.enabled {
        // A proof sends questions to them. Without one they are not needed, so it does not matter what is wrong.
        let _ = host::resolvers(&dns.resolv_config_path);
    }
    Ok(Read { sidecar_uid: user.uid, resolvers })
}

impl Read {
    /// The facts that do not depend on rules.
    pub fn and(self, interfaces: &Interfaces) -> HostFacts {
        HostFacts {
            sidecar_uid: self.sidecar_uid,
            loopback: interfaces.loopback().to_owned(),
            ipv6: interfaces.ipv6_support(),
            resolvers: self.resolvers,
            docker_dns: false,
            translated: crate::host::Translated::default(),
        }
    }
}

/// The facts that do not depend on rules.
///
/// # Errors
/// The sidecar's user is missing, or the host cannot be read.
pub fn collect(config: &Config, interfaces: &Interfaces) -> Result<HostFacts, Failure> {
    Ok(read(config)?.and(interfaces))
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

/// With `--strict`, DNS questions that are to be redirected are, of one family at least.
///
/// # Errors
/// The file that names the DNS servers names none whose questions can be redirected.
pub fn require_dns(request: &InstallRequest, facts: &HostFacts) -> Result<(), Failure> {
    if !request.strict || !plan::lacks_dns_servers(&request.config, facts) {
        return Ok(());
    }
    let path = request.config.redirect.dns.resolv_config_path.display();
    let message = format!(
        "DNS questions cannot be redirected: {path} names no DNS server whose questions this installation could redirect"
    );
    Err(Failure::new(Exit::Host, message)
        .hint("redirect every DNS question with --redirect-all-dns-traffic, or install without --strict"))
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
