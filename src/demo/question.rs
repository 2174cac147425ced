//! DNS (RFC 1035) as a client needs it: one question, and the address in the answer. Pure.

use std::net::IpAddr;

use crate::plan::Family;

/// A header with the number 1, recursion wanted, one question.
const HEADER: [u8; 12] = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
const CLASS_IN: u16 = 1;

const fn kind(family: Family) -> u16 {
    match family {
        Family::V4 => 1,
        Family::V6 => 28,
    }
}

/// Asks for the addresses of a name.
pub fn ask(name: &str, family: Family) -> Vec<u8> {
    let mut bytes = HEADER.to_vec();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind(family).to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    bytes
}

/// The first address in an answer.
pub fn read(answer: &[u8], family: Family) -> Option<IpAddr> {
    let mut rest = after_name(answer.get(HEADER.len()..)?)?.get(4..)?;
    loop {
        rest = after_name(rest)?;
        let size = usize::from(u16::from_be_bytes([*rest.get(8)?, *rest.get(9)?]));
        let data = rest.get(10..10 + size)?;
        if rest[..2] == kind(family).to_be_bytes() {
            return match family {
                Family::V4 => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
                Family::V6 => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
            };
        }
        rest = &rest[10 + size..];
    }
}

/// What follows a name, which ends with an empty label or with a reference to another place.
fn after_name(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        match *bytes.first()? {
            0 => return bytes.get(1..),
            length if length >= 0xc0 => return bytes.get(2..),
            length => bytes = bytes.get(1 + usize::from(length)..)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sidecar::dns;

    fn answered(family: Family, names: &[IpAddr]) -> Option<IpAddr> {
        let (name, answer) = dns::answer(&ask("shop.mesh", family), |_| names.to_vec()).unwrap();
        assert_eq!(name, "shop.mesh");
        read(&answer, family)
    }

    #[test]
    fn an_address_of_the_right_family_is_found() {
        let (four, six): (IpAddr, IpAddr) = ("10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap());
        assert_eq!(answered(Family::V4, &[six, four]), Some(four));
        assert_eq!(answered(Family::V6, &[four, six]), Some(six));
        assert_eq!(answered(Family::V6, &[four]), None);
        assert_eq!(answered(Family::V4, &[]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            read(&bytes, Family::V4);
            read(&bytes, Family::V6);
        }
    }
}
