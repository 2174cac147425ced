//! Reads what has to be known: the chains that a hook calls, and who listens at which addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use nix::net::if_::if_nametoindex;

use crate::config::Config;
use crate::host::{HostFacts, chains};
use crate::plan::Family;
use crate::rules::model::{Chain, Hook};
use crate::verify::routes;

use super::super::look::parts::sockets;
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

/// What rules of others at the hook `input` do to it. No more of them is read than that takes.
///
/// # Errors
/// The kernel's, which does not list its rules.
pub fn look(installed: &Installed<'_>) -> io::Result<Findings> {
    let chains = chains::at(&[Hook::Input])?;
    if !may_matter(&chains) || judge(&asked(installed), &chains).is_empty() {
        return Ok(Findings::default());
    }
    // Who decides before ours has a say only where there is something to say.
    Ok(evaluate(installed, &chains::at(&[Hook::Input, Hook::Prerouting])?))
}

/// The same of all foreign chains, which were read already.
pub fn evaluate(installed: &Installed<'_>, chains: &[Chain]) -> Findings {
    if !may_matter(chains) {
        return Findings::default();
    }
    findings(installed.config, chains, &judge(&asked(installed), chains), plain())
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
