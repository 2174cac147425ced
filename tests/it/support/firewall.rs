//! The iptables tools by variant and family.

use std::net::IpAddr;
use std::path::PathBuf;

use super::command::{self, Program, Run};
use super::ruleset::Ruleset;

/// Which kernel interface the rules go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// `iptables-nft`
    Nft,
    /// `iptables-legacy`
    Legacy,
}

impl Variant {
    pub const BOTH: [Self; 2] = [Self::Nft, Self::Legacy];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Nft => Self::Legacy,
            Self::Legacy => Self::Nft,
        }
    }
}

/// An address family, and the addresses that tests use of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn pick<T>(self, v4: T, v6: T) -> T {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }

    fn addr(self, v4: &str, v6: &str) -> IpAddr {
        self.pick(v4, v6).parse().expect("an address")
    }

    pub fn tool(self) -> &'static str {
        self.pick("iptables", "ip6tables")
    }

    /// As `nft` and `ip` call it.
    pub fn nft(self) -> &'static str {
        self.pick("ip", "ip6")
    }

    /// The machine under test.
    pub fn host(self) -> IpAddr {
        self.addr("10.77.0.1", "fd77::1")
    }

    /// Its neighbour.
    pub fn peer(self) -> IpAddr {
        self.addr("10.77.0.2", "fd77::2")
    }

    /// A server somewhere behind the neighbour.
    pub fn outside(self) -> IpAddr {
        self.addr("203.0.113.9", "2001:db8::9")
    }

    /// Another server there.
    pub fn elsewhere(self) -> IpAddr {
        self.addr("203.0.113.77", "2001:db8::77")
    }

    /// The DNS server of resolv.conf, behind the neighbour.
    pub fn resolver(self) -> IpAddr {
        self.addr("10.96.0.10", "fd00:96::10")
    }

    /// A DNS server that resolv.conf does not list.
    pub fn other_resolver(self) -> IpAddr {
        self.addr("10.96.0.99", "fd00:96::99")
    }

    pub fn localhost(self) -> IpAddr {
        self.addr("127.0.0.1", "::1")
    }

    /// The source by which a sidecar hands inbound connections to the application.
    pub fn passthrough(self) -> IpAddr {
        self.addr("127.0.0.6", "::6")
    }

    pub fn any(self) -> IpAddr {
        self.addr("0.0.0.0", "::")
    }
}

/// One of the tools: `role` is empty, `-save` or `-restore`.
pub fn tool(variant: Variant, family: Family, role: &str) -> String {
    format!("{}-{}{role}", family.tool(), variant.name())
}

/// Where that tool is.
pub fn path(variant: Variant, family: Family, role: &str) -> PathBuf {
    let name = tool(variant, family, role);
    command::find(&name).unwrap_or_else(|| panic!("this machine has no {name}"))
}

/// What `--iptables-executables` takes to name all six tools of a variant.
pub fn executables(variant: Variant) -> String {
    let mut pairs = Vec::new();
    for family in Family::BOTH {
        for role in ["", "-save", "-restore"] {
            pairs.push(format!("{}{role}:{}", family.tool(), path(variant, family, role).display()));
        }
    }
    pairs.join(",")
}

/// The text of a save, counters included.
#[track_caller]
pub fn save(variant: Variant, family: Family) -> String {
    super::lab::in_a_namespace_of_our_own();
    command::must(&tool(variant, family, "-save"), &["-c"])
}

/// What is there now.
#[track_caller]
pub fn rules(variant: Variant, family: Family) -> Ruleset {
    Ruleset::parse(&save(variant, family))
}

/// Adds to what is there (`--noflush`); counters in the text are taken.
#[track_caller]
pub fn restore(variant: Variant, family: Family, text: &str) {
    super::lab::in_a_namespace_of_our_own();
    command::must_with(&tool(variant, family, "-restore"), &["--noflush", "--counters"], text);
}

/// One call of `iptables`.
#[track_caller]
pub fn iptables(variant: Variant, family: Family, line: &str) -> Run {
    super::lab::in_a_namespace_of_our_own();
    Program::new(tool(variant, family, "")).args(line.split_whitespace()).run()
}

/// `nft` with a script.
#[track_caller]
pub fn nft(script: &str) {
    super::lab::in_a_namespace_of_our_own();
    command::must_with("nft", &["-f", "-"], script);
}
