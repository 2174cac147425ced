//! Users, and the ports that are left alone for some of them.

use std::fmt;
use std::str::FromStr;

use super::{InvalidValue, PortRange, Protocol, decimal, invalid};

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
        if let [protocol @ ("tcp" | "udp"), ports] = columns.as_slice() {
            return invalid(format!("the UID is missing, as in {protocol}:{ports}:1000"));
        }
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
                    return invalid(format!(
                        "{} is not a protocol; expected 'tcp', 'udp' or '*'",
                        crate::config::text::quoted(other)
                    ));
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn uids_go_up_to_the_last_one_that_the_kernel_takes() {
        assert_eq!("0".parse(), Ok(UidRange::from(0)));
        assert_eq!("4294967294".parse(), Ok(UidRange::from(MAX_UID)));
        assert_eq!(
            "1000680000-1000689999".parse(),
            Ok(UidRange { first: 1_000_680_000, last: 1_000_689_999 })
        );
        for text in ["", "4294967295", "-1", "1-", "1-2-3", "root", "+1", "1 ", "1,2", "*"] {
            assert!(text.parse::<UidRange>().is_err(), "{text}");
        }
        assert_eq!("9-8".parse::<UidRange>().unwrap_err().0, "the range is reversed; write 8-9");
    }

    #[test]
    fn users_are_names_or_uids() {
        assert_eq!("5678".parse::<UserSpec>().unwrap().as_uid(), Some(5678));
        assert_eq!("kuma-dp".parse::<UserSpec>().unwrap().as_uid(), None);
        assert_eq!("1user".parse::<UserSpec>().unwrap().as_uid(), None);
        for text in ["", "4294967295", "99999999999999999999", "-x", "a:b", "a b", "a\nb", "../etc"] {
            assert!(text.parse::<UserSpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn exclusions_have_one_to_three_parts() {
        let all = "1000".parse::<UidExclusion>().unwrap();
        assert_eq!(
            (all.protocols.as_slice(), all.ports.as_slice()),
            ([Protocol::Tcp, Protocol::Udp].as_slice(), [PortRange::ALL].as_slice())
        );
        let some = "udp,tcp,udp: 80, 8000-8099 :1000-1999".parse::<UidExclusion>().unwrap();
        assert_eq!(some.protocols, [Protocol::Tcp, Protocol::Udp]);
        assert_eq!(some.ports, ["80".parse().unwrap(), "8000-8099".parse().unwrap()]);
        assert_eq!(some.uids, UidRange { first: 1000, last: 1999 });
        assert_eq!("udp:*:7".parse::<UidExclusion>().unwrap().protocols, [Protocol::Udp]);
        assert_eq!("*:53:7".parse::<UidExclusion>().unwrap().protocols, [Protocol::Tcp, Protocol::Udp]);
    }

    #[test]
    fn nothing_in_an_exclusion_may_be_empty_or_mean_everybody() {
        for text in [
            "",
            " ",
            ":",
            "::",
            "tcp:80:",
            "tcp::1000",
            ":80:1000",
            "80:",
            ":1000",
            "*",
            "80:*",
            "tcp:80:*",
            "80:1,2",
            "80:1-2-3",
            "80:2-1",
            "tcp:90-80:1",
            "tcp:1-2-3:1",
            "tcp:0:1",
            "tcp:65536:1",
            "tcp:80,:1",
            "tcp,:80:1",
            "http:80:1",
            "TCP:80:1",
            "tcp:80:1:2",
            "80:kuma-dp",
            "80:4294967295",
        ] {
            assert!(text.parse::<UidExclusion>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(
            a in 0..=MAX_UID, b in 0..=MAX_UID, protocols in "(tcp|udp|tcp,udp|\\*)",
            ports in prop::collection::vec((1..=u16::MAX, 0u16..50), 1..20), name in "[a-z_][a-z0-9_.-]{0,30}",
        ) {
            let uids = UidRange { first: a.min(b), last: a.max(b) };
            prop_assert_eq!(uids.to_string().parse(), Ok(uids));
            let ports = ports.into_iter().map(|(first, more)| format!("{first}-{}", first.saturating_add(more)));
            let ports = ports.collect::<Vec<_>>().join(",");
            let exclusion = format!("{protocols}:{ports}:{uids}").parse::<UidExclusion>().unwrap();
            prop_assert_eq!(exclusion.uids, uids);
            prop_assert_eq!(exclusion.to_string().parse(), Ok(exclusion));
            for spec in [name, a.to_string()] {
                let user = spec.parse::<UserSpec>().unwrap();
                prop_assert_eq!(user.to_string().parse(), Ok(user));
            }
        }

        #[test]
        fn what_passes_never_means_everybody(text in "[a-z0-9:,* -]{0,16}", near in "((tcp|udp|\\*|)(:|,)?){0,2}[0-9*,-]{0,8}:?[0-9*-]{0,6}") {
            for text in [text, near] {
                if let Ok(exclusion) = text.parse::<UidExclusion>() {
                    prop_assert!(!exclusion.protocols.is_empty() && !exclusion.ports.is_empty());
                    prop_assert!(text.trim_end().ends_with(|c: char| c.is_ascii_digit()));
                }
                let _ = text.parse::<UserSpec>();
            }
        }
    }
}
