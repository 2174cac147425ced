//! Addresses, networks, address families and interfaces.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::{InvalidValue, invalid};

/// An address or a network. The text is kept as typed, because kumactl's dry run prints it so; the network keeps
/// its host bits, which the kernel masks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// An interface name, or a prefix of names when it ends in `+`: 1 to 15 bytes, no space, no slash
/// (`dev_valid_name` in the kernel's `net/core/dev.c`). The kernel takes a name with `*` in it too, but to nft that is
/// the beginning of a name, so what `--dry-run` prints would not be what is installed.
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
        if text.contains('*') {
            return invalid(
                "an interface has no '*' in its name; the beginning of a name is written with '+': docker+",
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
        if network.contains(',') {
            return invalid(
                "one entry is one interface and one network; write further ones as entries of their own",
            );
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn networks_are_addresses_with_or_without_a_prefix() {
        for text in [
            "",
            "10.0.0",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0/255.0.0.0",
            "fd00::/129",
            "::1%lo",
            "fe80::1%eth0/64",
            "localhost",
            "010.0.0.1",
            " 10.0.0.1",
            "10.0.0.1 ",
            "10.0.0.1-10.0.0.9",
            "[::1]",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
        let bare = "10.0.0.1".parse::<Cidr>().unwrap();
        assert_eq!((bare.net().prefix_len(), bare.has_host_bits()), (32, false));
        let bits = "10.0.0.1/8".parse::<Cidr>().unwrap();
        assert!(bits.has_host_bits());
        assert_eq!(bits.to_string(), "10.0.0.1/8");
        assert!(!"::/0".parse::<Cidr>().unwrap().has_host_bits());
        assert!("fd00::1/8".parse::<Cidr>().unwrap().has_host_bits());
    }

    #[test]
    fn families_mean_what_they_say_in_any_case() {
        for text in ["ipv4", "IPv4", "IPV4"] {
            assert_eq!(text.parse(), Ok(IpFamilyMode::Ipv4), "{text}");
        }
        for text in ["", "dualstack", "DualStack", "DUALSTACK"] {
            assert_eq!(text.parse(), Ok(IpFamilyMode::DualStack), "{text}");
        }
        for text in ["ipv6", "ip", "ipv4 ", "dual"] {
            assert!(text.parse::<IpFamilyMode>().is_err(), "{text}");
        }
    }

    #[test]
    fn bridges_are_an_interface_and_a_network_with_prefix() {
        for text in [
            "",
            "docker0",
            ":172.17.0.0/16",
            "docker0:",
            "docker0:172.17.0.1",
            "docker0:172.17.0.0/33",
            "a b:172.17.0.0/16",
            "averyveryverylongname:10.0.0.0/8",
            "eth0/1:10.0.0.0/8",
            "docker0:10.0.0.0/8,br0:10.1.0.0/16",
            "\"x:10.0.0.0/8",
            "*:10.0.0.0/8",
            "docker*:10.0.0.0/8",
            "a*b+:10.0.0.0/8",
        ] {
            assert!(text.parse::<VirtualNetwork>().is_err(), "{text}");
        }
        let star = "docker*".parse::<InterfacePattern>().unwrap_err().to_string();
        assert!(star.contains("docker+"), "{star}");
        assert_eq!("+".parse::<InterfacePattern>().map(|every| every.to_string()), Ok("+".to_owned()));
        let six = "br+:fd00::/64".parse::<VirtualNetwork>().unwrap();
        assert_eq!((six.interface.as_str(), six.network.to_string().as_str()), ("br+", "fd00::/64"));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(
            v4 in any::<[u8; 4]>(), v6 in any::<[u8; 16]>(), p4 in 0u8..=32, p6 in 0u8..=128, six: bool, bare: bool,
            interface in "[a-z][a-z0-9._@-]{0,13}\\+?",
        ) {
            let (addr, prefix) = if six { (IpAddr::from(v6), p6) } else { (IpAddr::from(v4), p4) };
            let cidr = if bare { addr.to_string() } else { format!("{addr}/{prefix}") }.parse::<Cidr>().unwrap();
            prop_assert_eq!(cidr.to_string().parse(), Ok(cidr.clone()));
            prop_assert_eq!(cidr.net().addr(), addr);
            let made = Cidr::from(cidr.net());
            prop_assert_eq!(made.to_string().parse(), Ok(made));
            let bridge = format!("{interface}:{addr}/{prefix}").parse::<VirtualNetwork>().unwrap();
            prop_assert_eq!(bridge.to_string().parse(), Ok(bridge));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,24}", near in "[0-9a-f:./%+]{0,24}") {
            for text in [&text, &near] {
                let _ = (text.parse::<Cidr>(), text.parse::<VirtualNetwork>(), text.parse::<IpFamilyMode>());
            }
        }
    }
}
