//! Reads what has to be known: the chains that a hook calls, and who listens at which addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use nix::net::if_::if_nametoindex;

use crate::config::Config;
use crate::host::HostFacts;
use crate::plan::Family;
use crate::rules::model::Chain;
use crate::verify::routes;

use super::super::look::parts::sockets;
use super::super::meets::Met;
use super::words::{Findings, Plain, findings};
use super::{Asked, judge, may_matter};

/// Of the documentation ranges, which are nobody's.
const ANY_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);
const ANY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53);

/// What an installation is, as far as it matters here.
#[derive(Debug, Clone)]
pub struct Installed<'a> {
    /// What is redirected.
    pub config: &'a Config,
    /// The sidecar's user.
    pub sidecar: u32,
    /// The redirected families.
    pub families: Vec<Family>,
    /// At which priority our own rules about what arrives stand.
    pub stand: i32,
    /// The loopback interface.
    pub loopback: &'a str,
    /// Servers whose questions are redirected.
    pub servers: Vec<IpAddr>,
}

impl<'a> Installed<'a> {
    /// With a configuration on a host; `stand` is where our own rules about what arrives stand.
    pub fn of(config: &'a Config, facts: &'a HostFacts, families: &[Family], stand: i32) -> Self {
        let mut servers: Vec<IpAddr> = facts.resolvers.iter().map(|resolver| resolver.addr).collect();
        if config.redirect.dns.capture_all {
            // Where every question is redirected, these are as good as others.
            servers.extend([IpAddr::from(ANY_V4), IpAddr::from(ANY_V6)]);
        }
        let families = families.to_vec();
        Self { config, sidecar: facts.sidecar_uid, families, stand, loopback: &facts.loopback, servers }
    }
}

/// What foreign chains at the hook `input` do to it. What rules about clients do (`meets`) is told with those, and leaves
/// `meets` where a line that is told here cures it.
pub fn evaluate(installed: &Installed<'_>, chains: &[Chain], meets: &mut Vec<Met>) -> Findings {
    if !may_matter(chains) {
        return Findings::default();
    }
    let mut found = judge(&asked(installed), chains);
    found.leave_to(meets);
    let findings = findings(installed.config, chains, &found, plain());
    meets.retain(|met| !findings.tell_of(met));
    findings
}

fn asked(installed: &Installed<'_>) -> Asked {
    let Installed { config, sidecar, families, stand, loopback, servers } = installed.clone();
    Asked {
        config: config.clone(),
        sidecar,
        families,
        stand,
        loopback: (loopback.to_owned(), if_nametoindex(loopback).unwrap_or(1)),
        arrivals: routes::arrivals().into_iter().filter(|road| !routes::is_scoped(road.address)).collect(),
        listening: sockets().unwrap_or_default(),
        servers,
    }
}

/// Of which variant the program is that is called `iptables`, as its links tell.
fn plain() -> Plain {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|dir| dir.join("iptables"));
    let real: Option<PathBuf> = found.find_map(|program| program.canonicalize().ok());
    let is_legacy = real
        .is_some_and(|real| real.file_name().is_some_and(|name| name.to_string_lossy().contains("legacy")));
    if is_legacy { Plain::Legacy } else { Plain::Nft }
}
