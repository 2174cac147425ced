//! Routing rules, as far as it matters which table is asked first.
//!
//! Layouts are those of the kernel's `include/uapi/linux/{rtnetlink,fib_rules}.h`.

use std::io;

use nix::sys::socket::SockProtocol;

use super::link::RT_TABLE_LOCAL;
use super::message::{Message, NLM_F_DUMP, Request, attributes, number};
use super::{absent, ask};
use crate::plan::Family;

const RTM_NEWRULE: u16 = 32;
const RTM_GETRULE: u16 = 34;
const HEADER: usize = 12;

const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_UID_RANGE: u16 = 20;
const FRA_PROTOCOL: u16 = 21;
/// Which of the actions are no route at all: blackhole, unreachable, prohibit.
const REFUSING: std::ops::RangeInclusive<u8> = 6..=8;
const FR_ACT_TO_TBL: u8 = 1;

/// Whether the table of local addresses is asked before all others, as it is unless somebody moved its rule.
///
/// # Errors
/// The kernel's.
pub fn is_local_table_first(family: Family) -> io::Result<bool> {
    let mut header = [0; HEADER];
    header[0] = number(family);
    let request = Request::new(RTM_GETRULE, NLM_F_DUMP, &header, &[]);
    let mut first: Option<(u32, bool)> = None;
    let asked = ask(SockProtocol::NetlinkRoute, &request, |message| {
        let Some(rule) = rule(message) else { return };
        if first.is_none_or(|first| rule.0 < first.0) {
            first = Some(rule);
        }
    });
    match asked {
        Ok(()) => Ok(first.is_none_or(|(_, is_local)| is_local)),
        // Without rules there are two tables, and this one comes first.
        Err(errno) if absent(errno) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// A routing rule about some users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserRule {
    /// Lower ones come first.
    pub priority: u32,
    /// The first user.
    pub first: u32,
    /// The last one.
    pub last: u32,
    /// The table that it leads to.
    pub table: u32,
    /// Whether it says that there is no route.
    pub refuses: bool,
}

/// The rules of a family that are about some users.
///
/// # Errors
/// The kernel's.
pub fn by_user(family: Family) -> io::Result<Vec<UserRule>> {
    collect(family, user_rule)
}

/// Whether any rule of a family is about packets with a mark.
///
/// # Errors
/// The kernel's.
pub fn go_by_marks(family: Family) -> io::Result<bool> {
    let marked = |message: &Message<'_>| {
        let rest = message.payload.get(HEADER..)?;
        (message.kind == RTM_NEWRULE && attributes(rest).any(|(kind, _)| kind == FRA_FWMARK)).then_some(())
    };
    Ok(!collect(family, marked)?.is_empty())
}

fn collect<T>(family: Family, read: impl Fn(&Message<'_>) -> Option<T>) -> io::Result<Vec<T>> {
    let mut header = [0; HEADER];
    header[0] = number(family);
    let request = Request::new(RTM_GETRULE, NLM_F_DUMP, &header, &[]);
    let mut found = Vec::new();
    let asked = ask(SockProtocol::NetlinkRoute, &request, |message| found.extend(read(message)));
    match asked {
        Ok(()) => Ok(found),
        Err(errno) if absent(errno) => Ok(Vec::new()),
        Err(errno) => Err(errno.into()),
    }
}

fn user_rule(message: &Message<'_>) -> Option<UserRule> {
    let (header, rest) = message.payload.split_at_checked(HEADER).filter(|_| message.kind == RTM_NEWRULE)?;
    let find = |wanted: u16| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let word = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    let range = find(FRA_UID_RANGE)?;
    Some(UserRule {
        priority: find(FRA_PRIORITY).and_then(word).unwrap_or_default(),
        first: word(range)?,
        last: word(range.get(4..)?)?,
        table: find(FRA_TABLE).and_then(word).unwrap_or(header[4].into()),
        refuses: REFUSING.contains(&header[7]),
    })
}

/// A rule's priority, and whether it leads everything to the table of local addresses. `struct fib_rule_hdr`: family, two lengths of prefixes, type of service, table, two idle bytes, action,
/// flags (4).
fn rule(message: &Message<'_>) -> Option<(u32, bool)> {
    let (header, rest) = message.payload.split_at_checked(HEADER).filter(|_| message.kind == RTM_NEWRULE)?;
    let plain = [FRA_PRIORITY, FRA_TABLE, FRA_SUPPRESS_PREFIXLEN, FRA_PROTOCOL];
    let all = header[1..4] == [0, 0, 0] && header[8..] == [0; 4];
    let is_local = header[4] == RT_TABLE_LOCAL && header[7] == FR_ACT_TO_TBL;
    let mut priority = 0;
    let mut simple = true;
    for (kind, value) in attributes(rest) {
        if kind == FRA_PRIORITY {
            priority = u32::from_ne_bytes(value.try_into().ok()?);
        }
        simple &= plain.contains(&kind);
    }
    Some((priority, all && is_local && simple))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::os::fd::AsFd as _;

    use super::super::link;
    use super::*;
    use crate::sys::netns::{Namespace, testing::apart};

    fn ip(args: &str) {
        let done = std::process::Command::new("ip").args(args.split(' ')).status().unwrap();
        assert!(done.success(), "ip {args}");
    }

    #[test]
    fn a_route_for_all_comes_before_rules_while_the_local_table_does() {
        apart(|| {
            let other = Namespace::make().unwrap();
            link::add_pair("tpvtest2", "tpvtest3", other.as_fd(), [2, 0, 0, 0, 0, 1]).unwrap();
            link::bring_up("tpvtest2").unwrap();
            for (family, addr, six) in
                [(Family::V4, "198.51.100.9", "-4 "), (Family::V6, "2001:db8:1::9", "-6 ")]
            {
                let addr: IpAddr = addr.parse().unwrap();
                ip(&format!("{six}rule add from all lookup 100 pref 5"));
                ip(&format!("{six}route add unreachable default table 100"));
                assert_eq!(link::route_to(addr).unwrap(), None, "{addr}");
                link::add_route_for_all("tpvtest2", addr).unwrap();
                assert!(link::route_to(addr).unwrap().is_some(), "{addr}");
                assert!(is_local_table_first(family).unwrap());
                ip(&format!("{six}rule add from all lookup local pref 9"));
                ip(&format!("{six}rule del pref 0"));
                assert!(!is_local_table_first(family).unwrap());
                assert_eq!(link::route_to(addr).unwrap(), None, "{addr}");
                ip(&format!("{six}rule del pref 5"));
                assert!(is_local_table_first(family).unwrap());
            }
        });
    }

    #[test]
    fn rules_about_users_and_marks_are_those_of_the_kernel() {
        apart(|| {
            for (family, six) in [(Family::V4, "-4 "), (Family::V6, "-6 ")] {
                assert_eq!(by_user(family).unwrap(), []);
                assert!(!go_by_marks(family).unwrap());
                ip(&format!("{six}rule add uidrange 5702-5703 lookup 300 pref 9"));
                ip(&format!("{six}rule add uidrange 7-7 prohibit pref 10"));
                ip(&format!("{six}rule add fwmark 1 lookup 300 pref 11"));
                let one = UserRule { priority: 9, first: 5702, last: 5703, table: 300, refuses: false };
                let found = by_user(family).unwrap();
                assert_eq!(found[0], one);
                assert!(found.len() == 2 && found[1].first == 7 && found[1].refuses, "{found:?}");
                assert!(go_by_marks(family).unwrap());
            }
        });
    }

    #[test]
    fn only_a_rule_for_everybody_counts() {
        let local = [2, 0, 0, 0, RT_TABLE_LOCAL, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
        let with = |header: [u8; HEADER], kind: u16| {
            let payload =
                [&header[..], &super::super::message::nest(&[(kind, &7u32.to_ne_bytes())])].concat();
            let message = Message { kind: RTM_NEWRULE, payload: &payload, ..Message::default() };
            for cut in 0..payload.len() {
                rule(&Message { payload: &payload[..cut], ..message });
            }
            rule(&message)
        };
        assert_eq!(with(local, FRA_PRIORITY), Some((7, true)));
        assert_eq!(with(local, FRA_TABLE), Some((0, true)));
        let a_mark = 10;
        assert_eq!(with(local, a_mark), Some((0, false)));
        for (at, value) in [(1, 32), (2, 32), (3, 4), (4, 254), (7, 6), (8, 2)] {
            let mut other = local;
            other[at] = value;
            assert_eq!(with(other, FRA_PRIORITY), Some((7, false)), "{at}");
        }
    }
}
