//! The configurations that are installed, and the flags that say the same. Pure.

use crate::config::Config;
use crate::config::values::{InvalidValue, IpFamilyMode, Port};
use crate::plan::Family;
use crate::present::demo::Cast;

use super::addresses::guests;

/// Where host A's DNS servers are listed.
pub const RESOLV_CONF: &str = "/run/resolv.conf";

const SSH: u16 = 22;

/// What is installed, and how one would type it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// It.
    pub config: Config,
    /// What stands behind `tproxy install`, each flag with its value; of the configuration all but what no flag can say.
    pub flags: Vec<String>,
}

impl Wanted {
    /// For these hosts; with SSH left alone, or not.
    ///
    /// # Errors
    /// Never: what is parsed here is written here.
    pub fn new(cast: &Cast, ssh_excluded: bool) -> Result<Self, InvalidValue> {
        let mut config =
            Config { kuma_dp_user: Some(cast.sidecar.to_string().parse()?), ..Config::default() };
        let mut flags = vec![format!("--kuma-dp-user {}", cast.sidecar)];
        config.redirect.dns.enabled = true;
        flags.push("--redirect-dns".to_owned());
        if !cast.families.contains(&Family::V6) {
            config.ip_family_mode = IpFamilyMode::Ipv4;
            flags.push("--ip-family-mode ipv4".to_owned());
        }
        if cast.guest.is_some() {
            for &family in &cast.families {
                let network = guests(family);
                config.redirect.vnet.networks.push(network.parse()?);
                flags.push(format!("--vnet {network}"));
            }
        }
        if ssh_excluded {
            config.redirect.inbound.exclude_ports.push(Port::of(SSH));
            flags.push(format!("--exclude-inbound-ports {SSH}"));
        }
        // Users are numbers here, and there is no user database to look them up in.
        config.cni_mode = true;
        config.redirect.dns.resolv_config_path = RESOLV_CONF.into();
        Ok(Self { config, flags })
    }
}
