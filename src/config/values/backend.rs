//! The ways to the kernel.

use std::fmt;
use std::str::FromStr;

use super::{InvalidValue, invalid};

/// By what rules get into the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackendChoice {
    /// What is installed stays; else iptables where there is one; else nftables.
    #[default]
    Auto,
    /// By the iptables programs, in the tables that everybody shares.
    Iptables,
    /// By netlink, in an nftables table of our own.
    Nftables,
}

impl FromStr for BackendChoice {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text.to_ascii_lowercase().as_str() {
            "" | "auto" => Ok(Self::Auto),
            "iptables" => Ok(Self::Iptables),
            "nftables" => Ok(Self::Nftables),
            _ => invalid("expected 'auto', 'iptables' or 'nftables'"),
        }
    }
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        })
    }
}
