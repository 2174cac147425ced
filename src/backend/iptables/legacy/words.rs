//! A legacy rule in the words of a save program, as far as anybody here asks for them. Pure.
//!
//! Layouts are those of the kernel's
//! `include/uapi/linux/netfilter/xt_{addrtype,cgroup,conntrack,multiport,owner,state,tcpudp,CT}.h`.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::save::UNREAD;
use super::table::{Entry, Extension, native16, native32, text};
use super::target::words as said;
use crate::plan::Family;

/// Everything behind the chain's name. `chain` tells which one begins at a place.
pub(super) fn of<'c>(entry: &Entry<'_>, chain: impl Fn(usize) -> Option<&'c str>) -> String {
    let mut words = String::new();
    let ip = Ip::read(entry);
    ip.write(&mut words);
    for one in entry.matches() {
        let _ = write!(words, " -m {}", one.name);
        match matched(&one) {
            Some(condition) => words.push_str(&condition),
            None => say_unread(&mut words),
        }
    }
    target(&mut words, &entry.target(), entry.family, ip.goes, chain);
    words.trim_start().to_owned()
}

fn say_unread(words: &mut String) {
    words.push(' ');
    words.push_str(UNREAD);
}

/// What every rule can ask for.
struct Ip<'a> {
    family: Family,
    bytes: &'a [u8],
    inverted: u8,
    /// A goto instead of a jump.
    goes: bool,
}

impl<'a> Ip<'a> {
    fn read(entry: &Entry<'a>) -> Self {
        let bytes = entry.ip();
        // Protocol, for IPv6 a traffic class, flags, and what is inverted.
        let (flags, inverted, goto) = match entry.family {
            Family::V4 => (82, 83, 0x02),
            Family::V6 => (131, 132, 0x04),
        };
        let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
        Self { family: entry.family, bytes, inverted: byte(inverted), goes: byte(flags) & goto != 0 }
    }

    fn write(&self, words: &mut String) {
        let (address, rest) = match self.family {
            Family::V4 => (4, 16),
            Family::V6 => (16, 64),
        };
        let part = |at: usize, size: usize| self.bytes.get(at..at + size).unwrap_or_default();
        // Both addresses, then both masks.
        for (option, at, inverse) in [("-s", 0, 0x08), ("-d", address, 0x10)] {
            let mask = part(at + 2 * address, address);
            if mask.iter().any(|byte| *byte != 0) || self.is_inverted(inverse) {
                self.option(words, option, inverse, &network(part(at, address), mask));
            }
        }
        for (option, at, inverse) in [("-i", rest, 0x01), ("-o", rest + 16, 0x02)] {
            let mask = part(at + 32, 16);
            if mask.iter().any(|byte| *byte != 0) {
                let counts = mask.iter().take_while(|byte| **byte != 0).count();
                let bytes = part(at, counts);
                // Where the zero at the end does not count, any end will do.
                let name = text(bytes) + if bytes.contains(&0) { "" } else { "+" };
                self.option(words, option, inverse, &name);
            }
        }
        let protocol = native16(self.bytes, rest + 64).unwrap_or_default();
        if protocol != 0 {
            let name = match protocol {
                1 => "icmp".to_owned(),
                6 => "tcp".to_owned(),
                17 => "udp".to_owned(),
                58 => "ipv6-icmp".to_owned(),
                132 => "sctp".to_owned(),
                other => other.to_string(),
            };
            self.option(words, "-p", 0x40, &name);
        }
        // Fragments of IPv4; traffic classes of IPv6 no program can ask for.
        if self.family == Family::V4 && self.bytes.get(82).is_some_and(|flags| flags & 0x01 != 0) {
            words.push_str(if self.is_inverted(0x20) { " ! -f" } else { " -f" });
        }
    }

    const fn is_inverted(&self, flag: u8) -> bool {
        self.inverted & flag != 0
    }

    fn option(&self, words: &mut String, option: &str, inverse: u8, value: &str) {
        let not = if self.is_inverted(inverse) { " !" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(words, "{not} {option} {value}");
    }
}

fn network(address: &[u8], mask: &[u8]) -> String {
    let bits: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let leading = mask.iter().take_while(|byte| **byte == 0xff).count();
    let leading = 8 * leading + mask.get(leading).map_or(0, |byte| byte.leading_ones() as usize);
    let mask = if leading == bits as usize { bits.to_string() } else { spelled(mask) };
    format!("{}/{mask}", spelled(address))
}

pub(super) fn spelled(address: &[u8]) -> String {
    if let Ok(four) = <[u8; 4]>::try_from(address) {
        return Ipv4Addr::from(four).to_string();
    }
    <[u8; 16]>::try_from(address).map(|six| Ipv6Addr::from(six).to_string()).unwrap_or_default()
}

/// A match behind `-m`, from the bytes in which the kernel keeps it.
pub fn match_words(name: &str, revision: u32, data: &[u8]) -> String {
    let one = Extension { name: name.to_owned(), revision: u8::try_from(revision).unwrap_or(u8::MAX), data };
    format!("{name}{}", matched(&one).unwrap_or_else(|| format!(" {UNREAD}")))
}

/// What a match asks for; `None` where that is not known here.
fn matched(one: &Extension<'_>) -> Option<String> {
    let data = one.data;
    match (one.name.as_str(), one.revision) {
        ("comment", _) => Some(format!(" --comment {}", quoted(&text(data)))),
        // First and last source port, first and last destination port; further conditions, and what is inverted.
        ("tcp", 0) if data.get(8..11)?.iter().all(|byte| *byte == 0) => ports(data, *data.get(11)?),
        ("udp", 0) => ports(data, *data.get(8)?),
        ("owner", 1) => owner(data),
        ("cgroup", revision) => cgroup(revision, data),
        ("addrtype", 1) => address_types(data),
        ("multiport", 1) => multiport(data),
        ("conntrack", 2 | 3) => conntrack(data),
        ("state", 0) => Some(format!(" --state {}", states(native32(data, 0)?.try_into().ok()?)?)),
        _ => None,
    }
}

fn ports(data: &[u8], inverted: u8) -> Option<String> {
    let mut words = String::new();
    for (option, at, inverse) in [("--sport", 0, 1), ("--dport", 4, 2)] {
        let (first, last) = (native16(data, at)?, native16(data, at + 2)?);
        let not = inverted & inverse != 0;
        if (first, last) != (0, u16::MAX) || not {
            let not = if not { " !" } else { "" };
            let _ = write!(words, "{not} {option} {}", range(first.into(), last.into(), ':'));
        }
    }
    (inverted & !3 == 0).then_some(words)
}

/// First and last user, first and last group, what of it counts, what of that is inverted (`XT_OWNER_*`).
fn owner(data: &[u8]) -> Option<String> {
    const USER: u8 = 1;
    const GROUP: u8 = 2;
    const SOCKET: u8 = 4;
    const ALL_GROUPS: u8 = 8;
    let [counts, inverted] = *data.get(16..18)?.first_chunk()?;
    let mut words = String::new();
    for (flag, option, at) in [
        (SOCKET, "--socket-exists", None),
        (USER, "--uid-owner", Some(0)),
        (GROUP, "--gid-owner", Some(8)),
        (ALL_GROUPS, "--suppl-groups", None),
    ] {
        if counts & flag == 0 {
            continue;
        }
        let not = if inverted & flag != 0 { " !" } else { "" };
        let _ = write!(words, "{not} {option}");
        if let Some(at) = at {
            let _ = write!(words, " {}", range(native32(data, at)?, native32(data, at + 4)?, '-'));
        }
    }
    (counts & !(USER | GROUP | SOCKET | ALL_GROUPS) == 0).then_some(words)
}

/// A number of `net_cls`, or a path.
fn cgroup(revision: u8, data: &[u8]) -> Option<String> {
    const PATH: usize = 4;
    let said = |inverted: bool, option: &str, value: &str| {
        let not = if inverted { " !" } else { "" };
        Some(format!("{not} {option} {value}"))
    };
    if revision == 0 {
        return said(native32(data, 4)? != 0, "--cgroup", &native32(data, 0)?.to_string());
    }
    let [has_path, has_number, not_path, not_number] = *data.first_chunk()?;
    match (has_path != 0, has_number != 0, revision) {
        (true, false, 1 | 2) => said(not_path != 0, "--path", &quoted(&text(data.get(PATH..)?))),
        (false, true, 1) => said(not_number != 0, "--cgroup", &native32(data, PATH + 4096)?.to_string()),
        (false, true, 2) => said(not_number != 0, "--cgroup", &native32(data, PATH)?.to_string()),
        _ => None,
    }
}

pub(super) fn range(first: u32, last: u32, dash: char) -> String {
    if first == last { first.to_string() } else { format!("{first}{dash}{last}") }
}

/// Types of source and destination, each a set of bits, and flags.
fn address_types(data: &[u8]) -> Option<String> {
    const TYPES: [&str; 12] = [
        "UNSPEC",
        "UNICAST",
        "LOCAL",
        "BROADCAST",
        "ANYCAST",
        "MULTICAST",
        "BLACKHOLE",
        "UNREACHABLE",
        "PROHIBIT",
        "THROW",
        "NAT",
        "XRESOLVE",
    ];
    let flags = native32(data, 4)?;
    let mut words = String::new();
    for (option, at, inverse) in [("--src-type", 0, 1), ("--dst-type", 2, 2)] {
        let types = native16(data, at)?;
        if types == 0 {
            continue;
        }
        let names: Vec<&str> = TYPES
            .iter()
            .enumerate()
            .filter(|(bit, _)| types & 1 << bit != 0)
            .map(|(_, name)| *name)
            .collect();
        let not = if flags & inverse != 0 { " !" } else { "" };
        let _ = write!(words, "{not} {option} {}", names.join(","));
    }
    for (flag, option) in [(4, " --limit-iface-in"), (8, " --limit-iface-out")] {
        if flags & flag != 0 {
            words.push_str(option);
        }
    }
    Some(words)
}

/// Which ports count, how many there are, the ports, which of them begin a range, and whether it is inverted.
fn multiport(data: &[u8]) -> Option<String> {
    const MOST: usize = 15;
    let option = match data.first()? {
        0 => "--sports",
        1 => "--dports",
        2 => "--ports",
        _ => return None,
    };
    let count = usize::from(*data.get(1)?).min(MOST);
    let mut list = String::new();
    let mut dash = false;
    for index in 0..count {
        let port = native16(data, 2 + 2 * index)?;
        let between = if list.is_empty() {
            ""
        } else if dash {
            ":"
        } else {
            ","
        };
        let _ = write!(list, "{between}{port}");
        dash = *data.get(2 + 2 * MOST + index)? != 0;
    }
    let not = if *data.get(2 + 3 * MOST)? != 0 { " !" } else { "" };
    Some(format!("{not} {option} {list}"))
}

/// What counts, what of that is inverted (`XT_CONNTRACK_*`), and the values (`struct xt_conntrack_mtinfo3`).
fn conntrack(data: &[u8]) -> Option<String> {
    const STATE: u16 = 1;
    const PROTOCOL: u16 = 1 << 1;
    const PORT: u16 = 1 << 9;
    const DIRECTION: u16 = 1 << 12;
    let (counts, inverted) = (native16(data, 146)?, native16(data, 148)?);
    if counts & !(STATE | PROTOCOL | PORT | DIRECTION) != 0 {
        return None;
    }
    let mut words = String::new();
    let mut option = |flag: u16, option: &str, value: &str| {
        let not = if inverted & flag != 0 { " !" } else { "" };
        let _ = write!(words, "{not} {option} {value}");
    };
    if counts & PROTOCOL != 0 {
        option(PROTOCOL, "--ctproto", &native16(data, 136)?.to_string());
    }
    if counts & STATE != 0 {
        option(STATE, "--ctstate", &states(native16(data, 150)?)?);
    }
    if counts & PORT != 0 {
        let first = native16(data, 140)?;
        let last = native16(data, 156).unwrap_or(first).max(first);
        option(PORT, "--ctorigdstport", &range(first.into(), last.into(), ':'));
    }
    if counts & DIRECTION != 0 {
        // Inverted is said by the other word.
        let word = if inverted & DIRECTION != 0 { "REPLY" } else { "ORIGINAL" };
        let _ = write!(words, " --ctdir {word}");
    }
    Some(words)
}

/// States as the programs name them, each a bit (`XT_CONNTRACK_STATE_*`), in their order.
fn states(mask: u16) -> Option<String> {
    const ALL: [(u16, &str); 7] = [
        (1, "INVALID"),
        (8, "NEW"),
        (4, "RELATED"),
        (2, "ESTABLISHED"),
        (0x100, "UNTRACKED"),
        (0x40, "SNAT"),
        (0x80, "DNAT"),
    ];
    let known = ALL.iter().fold(0, |known, (bit, _)| known | bit);
    let names: Vec<&str> = ALL.iter().filter(|(bit, _)| mask & bit != 0).map(|(_, name)| *name).collect();
    (mask & !known == 0).then(|| names.join(","))
}

/// As `xtables_save_string` of libxtables quotes.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '\'') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted + "\""
}

fn target<'c>(
    words: &mut String,
    target: &Extension<'_>,
    family: Family,
    goes: bool,
    chain: impl Fn(usize) -> Option<&'c str>,
) {
    if !target.name.is_empty() {
        let _ = write!(words, " -j {}", said(&target.name, target.revision.into(), target.data, family));
        return;
    }
    // A verdict of netfilter, less one and negative, or where a chain begins.
    let verdict = native32(target.data, 0).unwrap_or_default().cast_signed();
    let name = match verdict {
        -1 => "DROP",
        -2 => "ACCEPT",
        -4 => "QUEUE",
        -5 => "RETURN",
        _ => match usize::try_from(verdict).ok().and_then(chain) {
            Some(name) => name,
            // It has no target, and counts only.
            None => return,
        },
    };
    let option = if goes { "-g" } else { "-j" };
    let _ = write!(words, " {option} {name}");
}
