//! Ports and the protocols that have them.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use super::{InvalidValue, decimal, invalid};

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

/// Names that people type for ports. The real port of a service is what it listens on, so a name is no port.
const SERVICES: [(&str, u16); 9] = [
    ("dns", 53),
    ("domain", 53),
    ("http", 80),
    ("https", 443),
    ("mysql", 3306),
    ("ntp", 123),
    ("postgres", 5432),
    ("postgresql", 5432),
    ("ssh", 22),
];

impl FromStr for Port {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match decimal(text).and_then(NonZeroU16::new) {
            Some(number) => Ok(Self(number)),
            None if text.contains('-') && text.parse::<PortRange>().is_ok() => {
                invalid("a port is one whole number from 1 to 65535; ranges cannot be used here")
            }
            None => match SERVICES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)) {
                Some((name, port)) => {
                    Err(InvalidValue(format!("a port is a whole number; {name} usually has port {port}")))
                }
                None => invalid("a port is a whole number from 1 to 65535"),
            },
        }
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
        let port = |text: &str| decimal(text).and_then(NonZeroU16::new).map(Port);
        let (Some(first), Some(last)) = (port(first), port(last)) else {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_plain_whole_numbers_in_range_are_ports() {
        for text in
            ["", "0", "65536", "-1", "+80", " 80", "80 ", "0x50", "8_0", "80.0", "http", "８０", "1e3"]
        {
            assert!(text.parse::<Port>().is_err(), "{text}");
        }
        assert_eq!("080".parse::<Port>().map(Port::get), Ok(80));
        assert_eq!("65535".parse::<Port>().map(Port::get), Ok(65535));
        assert!(Port::try_from(0).is_err());
    }

    #[test]
    fn ranges_have_two_ends_in_order() {
        for text in ["", "-", "1-", "-2", "1-2-3", "0-5", "5-65536", "1:2", "1 - 2", "2-1"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
        assert_eq!("9-8".parse::<PortRange>().unwrap_err().0, "the range is reversed; write 8-9");
        let range = "8-9".parse::<PortRange>().unwrap();
        assert_eq!((range.first.get(), range.last.get(), range.multiport_slots()), (8, 9, 2));
        assert_eq!("8-8".parse::<PortRange>().unwrap().multiport_slots(), 1);
        assert_eq!("1-65535".parse(), Ok(PortRange::ALL));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(a in 1..=u16::MAX, b in 1..=u16::MAX) {
            let port = Port::try_from(a).unwrap();
            prop_assert_eq!(port.to_string().parse(), Ok(port));
            let range = PortRange { first: Port::of(a.min(b)), last: Port::of(a.max(b)) };
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9-]{0,14}") {
            if let Ok(range) = text.parse::<PortRange>() {
                prop_assert!(range.first <= range.last);
            }
        }
    }
}
