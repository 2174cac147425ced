//! The value grammars: one type per kind of value, valid by construction.
//!
//! `FromStr` is the only way in from text. An error names what is allowed; the caller adds which value it was and
//! where it came from.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use ipnet::IpNet;

/// Why a text is not a value of the wanted kind; reads on after "invalid value 'X': ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(pub String);

pub(super) fn invalid<T>(why: impl Into<String>) -> Result<T, InvalidValue> {
    Err(InvalidValue(why.into()))
}

/// A whole number that fits 32 bits; `what` says of what, for the error.
pub(super) fn whole_number(text: &str, what: &str) -> Result<u32, InvalidValue> {
    decimal(text).ok_or_else(|| InvalidValue(format!("{what} is a whole number from 0 to {}", u32::MAX)))
}

/// A decimal number without sign, and without the leading `+` that Rust's parser lets pass.
fn decimal<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A TCP or UDP port, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(NonZeroU16);

impl Port {
    /// For constants; 0 becomes 1.
    pub(crate) const fn of(number: u16) -> Self {
        match NonZeroU16::new(number) {
            Some(number) => Self(number),
            None => Self(NonZeroU16::MIN),
        }
    }

    /// The port number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl TryFrom<u16> for Port {
    type Error = InvalidValue;

    fn try_from(number: u16) -> Result<Self, InvalidValue> {
        NonZeroU16::new(number).map(Self).ok_or_else(|| InvalidValue("port 0 does not exist".into()))
    }
}

impl FromStr for Port {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        decimal(text)
            .and_then(NonZeroU16::new)
            .map(Self)
            .ok_or_else(|| InvalidValue("a port is a whole number from 1 to 65535".into()))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One port, or all ports from a first to a last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The lowest port.
    pub first: Port,
    /// The highest port, at least `first`.
    pub last: Port,
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self { first: Port(NonZeroU16::MIN), last: Port(NonZeroU16::MAX) };

    /// How many of the 15 places of a multiport match it takes.
    pub fn multiport_slots(self) -> usize {
        if self.first == self.last { 1 } else { 2 }
    }
}

impl From<Port> for PortRange {
    fn from(port: Port) -> Self {
        Self { first: port, last: port }
    }
}

impl FromStr for PortRange {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let Some((first, last)) = text.split_once('-') else { return text.parse::<Port>().map(Self::from) };
        let (Ok(first), Ok(last)) = (first.parse::<Port>(), last.parse::<Port>()) else {
            return invalid("a port range is two ports from 1 to 65535 with a '-' between them");
        };
        if first > last {
            return invalid(format!("the range is reversed; write {last}-{first}"));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// One numeric user ID, or all from a first to a last one. The highest UID is 2^32-2: the kernel keeps 2^32-1 to
/// say "no user" (`uid_valid` in `include/linux/uidgid.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UidRange {
    /// The lowest UID.
    pub first: u32,
    /// The highest UID, at least `first`.
    pub last: u32,
}

/// The highest UID there is.
pub const MAX_UID: u32 = u32::MAX - 1;

impl From<u32> for UidRange {
    fn from(uid: u32) -> Self {
        Self { first: uid, last: uid }
    }
}

impl FromStr for UidRange {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let uid = |text: &str| decimal::<u32>(text).filter(|uid| *uid <= MAX_UID);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (Some(first), Some(last)) = (uid(first), uid(last)) else {
            return invalid(format!(
                "a UID is a whole number from 0 to {MAX_UID}, a UID range two of them with a '-' between"
            ));
        };
        if first > last {
            return invalid(format!("the range is reversed; write {last}-{first}"));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for UidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// An address or a network. The text is kept as typed, because kumactl's dry run prints it so; the network keeps
/// its host bits, which the kernel masks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cidr {
    typed: String,
    net: IpNet,
}

impl Cidr {
    /// The network as typed, host bits included.
    pub fn net(&self) -> IpNet {
        self.net
    }

    /// Whether the kernel will see another address than the one typed ("10.0.0.1/8" is 10.0.0.0/8 to it).
    pub fn has_host_bits(&self) -> bool {
        self.net.addr() != self.net.network()
    }
}

impl Cidr {
    /// One address, written without a prefix length.
    pub fn bare(addr: IpAddr) -> Self {
        Self { typed: addr.to_string(), net: addr.into() }
    }
}

impl From<IpNet> for Cidr {
    fn from(net: IpNet) -> Self {
        Self { typed: net.to_string(), net }
    }
}

impl FromStr for Cidr {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let net = match text.parse::<IpAddr>() {
            Ok(addr) => IpNet::from(addr),
            Err(_) => match text.parse::<IpNet>() {
                Ok(net) => net,
                Err(_) => {
                    return invalid(
                        "expected an IPv4 or IPv6 address, or a network such as 10.0.0.0/8 or fd00::/8",
                    );
                }
            },
        };
        Ok(Self { typed: text.to_owned(), net })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed)
    }
}

/// Which address families are redirected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpFamilyMode {
    /// IPv4 and IPv6.
    #[default]
    DualStack,
    /// IPv4 alone.
    Ipv4,
}

impl FromStr for IpFamilyMode {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text.is_empty() || text.eq_ignore_ascii_case("dualstack") {
            Ok(Self::DualStack)
        } else if text.eq_ignore_ascii_case("ipv4") {
            Ok(Self::Ipv4)
        } else {
            invalid("expected 'dualstack' or 'ipv4'")
        }
    }
}

impl fmt::Display for IpFamilyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DualStack => "dualstack",
            Self::Ipv4 => "ipv4",
        })
    }
}

/// A transport protocol that exclusions can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Ports that are left alone for some users: `[[protocols:]ports:]uids`.
///
/// Protocols are `tcp`, `udp`, both with a comma, or `*` for both; ports are single ones and ranges with commas, or
/// `*` for all; UIDs are one UID or one range. Nothing may be empty: an entry that says nothing must not come to
/// mean "everybody, everything".
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UidExclusion {
    typed: String,
    /// In the order in which rules are made: tcp, then udp.
    pub protocols: Vec<Protocol>,
    /// In the order typed.
    pub ports: Vec<PortRange>,
    /// Whose packets.
    pub uids: UidRange,
}

impl FromStr for UidExclusion {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let mut columns = text.split(':').map(str::trim).collect::<Vec<_>>();
        let uids = columns.pop().unwrap_or_default();
        let ports = columns.pop().unwrap_or("*");
        let protocols = columns.pop().unwrap_or("*");
        if !columns.is_empty() {
            return invalid("expected [[protocols:]ports:]uids, that is three parts at the most");
        }
        if protocols.is_empty() || ports.is_empty() || uids.is_empty() {
            return invalid(
                "expected [[protocols:]ports:]uids with no part empty; '*' means all ports or both protocols",
            );
        }
        if uids == "*" {
            return invalid(
                "the UID part cannot be '*'; use --exclude-outbound-ports to leave a port alone for everybody",
            );
        }
        if uids.contains(',') {
            return invalid("the UID part is one UID or one range; repeat the whole entry for further UIDs");
        }
        let mut wanted = Vec::new();
        for protocol in protocols.split(',').map(str::trim) {
            match protocol {
                "tcp" => wanted.push(Protocol::Tcp),
                "udp" => wanted.push(Protocol::Udp),
                "*" => wanted.extend([Protocol::Tcp, Protocol::Udp]),
                other => {
                    return invalid(format!("'{other}' is not a protocol; expected 'tcp', 'udp' or '*'"));
                }
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        let ports = match ports {
            "*" => vec![PortRange::ALL],
            list => list.split(',').map(|range| range.trim().parse()).collect::<Result<_, _>>()?,
        };
        Ok(Self { typed: text.to_owned(), protocols: wanted, ports, uids: uids.parse()? })
    }
}

impl fmt::Display for UidExclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed)
    }
}

/// An interface name, or a prefix of names when it ends in `+`: 1 to 15 bytes, no space, no slash
/// (`dev_valid_name` in the kernel's `net/core/dev.c`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfacePattern(String);

impl InterfacePattern {
    /// As typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfacePattern {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let bad =
            |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '"' | '\'' | '\\' | ':' | '!');
        if text.is_empty() || text.len() > 15 || text == "." || text == ".." || text.contains(bad) {
            return invalid(
                "an interface is a name of 1 to 15 characters, or the beginning of one and a '+'",
            );
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for InterfacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A bridge of containers or virtual machines: `interface:network`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VirtualNetwork {
    /// Traffic entering here is redirected outbound…
    pub interface: InterfacePattern,
    /// …unless it stays within this network.
    pub network: Cidr,
}

impl FromStr for VirtualNetwork {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let Some((interface, network)) = text.split_once(':') else {
            return invalid("expected interface:network, such as docker0:172.17.0.0/16");
        };
        if !network.contains('/') {
            return invalid("the network needs its prefix length, such as docker0:172.17.0.0/16");
        }
        Ok(Self { interface: interface.parse()?, network: network.parse()? })
    }
}

impl fmt::Display for VirtualNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.interface, self.network)
    }
}

/// A user by name or UID, not yet looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserSpec(String);

impl UserSpec {
    /// As typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The UID, where one was typed.
    pub fn as_uid(&self) -> Option<u32> {
        decimal(&self.0).filter(|uid| *uid <= MAX_UID)
    }
}

impl FromStr for UserSpec {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let all_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if all_digits && decimal::<u32>(text).is_none_or(|uid| uid > MAX_UID) {
            return invalid(format!("a UID is a whole number from 0 to {MAX_UID}"));
        }
        let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/' | '"' | '\'' | '\\');
        if text.is_empty() || text.len() > 256 || text.starts_with('-') || text.contains(bad) {
            return invalid("expected a user name or a UID");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for UserSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
