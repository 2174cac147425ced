//! How a plan is said and applied: one folder for each way.

pub mod firewalld;
pub mod iptables;
pub mod nftables;

use std::fmt;

use self::iptables::tools::Variant;

/// A way for rules into the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// By the iptables programs of a variant, into the tables that everybody shares.
    Iptables(Variant),
    /// By netlink, into a table of our own.
    Nftables,
}

impl Backend {
    /// As the configuration calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Iptables(_) => "iptables",
            Self::Nftables => "nftables",
        }
    }

    /// The variant of iptables.
    pub const fn variant(self) -> Option<Variant> {
        match self {
            Self::Iptables(variant) => Some(variant),
            Self::Nftables => None,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iptables(variant) => variant.fmt(f),
            Self::Nftables => f.write_str("nftables"),
        }
    }
}
