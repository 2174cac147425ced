//! What matches and targets of iptables ask for and do, from the bytes in which the kernel keeps them.
//!
//! Layouts are those of the kernel's `include/uapi/linux/netfilter/xt_*.h`. Any bytes are read.

use super::model::{Action, Field, Span, Test};

const LOCAL_TYPE_BITS: u32 = 12;

/// What a match asks for; nothing where it lets everything pass.
pub fn matched(name: &str, revision: u32, info: &[u8]) -> Vec<Test> {
    let known = match name {
        "comment" => Some(Vec::new()),
        "tcp" => ports(info, 8..11, 11),
        "udp" => ports(info, 0..0, 8),
        "multiport" => multiport(info),
        "owner" => super::owner::owner(info),
        "cgroup" => super::owner::cgroup(revision, info),
        "addrtype" if revision == 1 => address_types(info),
        "conntrack" if revision >= 2 => conntrack(info),
        "state" => native32(info, 0).map(|mask| vec![bits(Field::State, mask.into(), false)]),
        "mark" => mark(info),
        _ => None,
    };
    known.unwrap_or_else(|| vec![Test::Opaque { specific: is_specific(name) }])
}

/// Whether a match is about addresses, interfaces, users or marks.
pub fn is_specific(name: &str) -> bool {
    let about = [
        "set",
        "iprange",
        "mac",
        "physdev",
        "owner",
        "mark",
        "connmark",
        "cgroup",
        "addrtype",
        "realm",
        "devgroup",
        "conntrack",
        "multiport",
        "tcp",
        "udp",
    ];
    about.contains(&name)
}

/// What a target does.
pub fn target(name: &str, info: &[u8]) -> Action {
    match name {
        "DNAT" | "REDIRECT" | "NETMAP" | "TPROXY" => Action::Translate,
        "REJECT" | "DROP" => Action::Drop,
        "ACCEPT" | "SNAT" | "MASQUERADE" => Action::Accept,
        "RETURN" => Action::Return,
        "NOTRACK" => Action::Untrack,
        // Flags, of which the first is XT_CT_NOTRACK, and the zone.
        "CT" => match (native16(info, 0), native16(info, 2)) {
            (Some(flags), _) if flags & 1 != 0 => Action::Untrack,
            (_, Some(zone)) if zone != 0 => Action::Zone(zone),
            _ => Action::Continue,
        },
        "MARK" => Action::Mark,
        _ => Action::Continue,
    }
}

/// Whether a target does nothing that matters here, and the next rule follows.
pub fn goes_on(name: &str) -> bool {
    let all = [
        "ACCOUNT",
        "AUDIT",
        "CHECKSUM",
        "CLASSIFY",
        "CONNMARK",
        "CONNSECMARK",
        "CT",
        "DSCP",
        "HL",
        "HMARK",
        "IDLETIMER",
        "LED",
        "LOG",
        "NFLOG",
        "RATEEST",
        "SECMARK",
        "SET",
        "TCPMSS",
        "TCPOPTSTRIP",
        "TEE",
        "TOS",
        "TRACE",
        "TTL",
        "ULOG",
    ];
    name.is_empty() || all.contains(&name)
}

/// A test for one of several bits.
pub fn bits(field: Field, mask: u128, negated: bool) -> Test {
    Test::Bits { field, mask, negated }
}

/// A test for some numbers.
pub fn within(field: Field, spans: Vec<Span>, negated: bool) -> Test {
    Test::In { field, spans, negated }
}

/// First and last source port, first and last destination port; further conditions; and what is inverted.
fn ports(info: &[u8], more: std::ops::Range<usize>, inverted: usize) -> Option<Vec<Test>> {
    let inverted = *info.get(inverted)?;
    let mut tests = Vec::new();
    for (field, at, flag) in [(Field::SourcePort, 0, 1), (Field::DestinationPort, 4, 2)] {
        let (first, last) = (native16(info, at)?, native16(info, at + 2)?);
        if (first, last) != (0, u16::MAX) {
            tests.push(within(field, vec![first.into()..=last.into()], inverted & flag != 0));
        }
    }
    if info.get(more)?.iter().any(|byte| *byte != 0) {
        tests.push(Test::Opaque { specific: false });
    }
    Some(tests)
}

/// Which ports, how many numbers, 15 numbers, 15 flags of which one means that a range begins, and what is inverted.
fn multiport(info: &[u8]) -> Option<Vec<Test>> {
    const MOST: usize = 15;
    let (kind, count) = (*info.first()?, usize::from(*info.get(1)?).min(MOST));
    let field = match kind {
        0 => Field::SourcePort,
        1 => Field::DestinationPort,
        _ => return None,
    };
    let mut spans = Vec::new();
    let mut at = 0;
    while at < count {
        let first = u128::from(native16(info, 2 + 2 * at)?);
        let mut last = first;
        if *info.get(2 + 2 * MOST + at)? != 0 && at + 1 < count {
            at += 1;
            last = native16(info, 2 + 2 * at)?.into();
        }
        spans.push(first..=last);
        at += 1;
    }
    Some(vec![within(field, spans, *info.get(2 + 3 * MOST)? != 0)])
}

/// Masks of source and destination, one bit for each type; then flags.
fn address_types(info: &[u8]) -> Option<Vec<Test>> {
    let flags = native32(info, 4)?;
    // Of one interface's addresses alone.
    if flags & !3 != 0 {
        return None;
    }
    let mut tests = Vec::new();
    for (field, at, inverted) in [(Field::SourceType, 0, 1), (Field::DestinationType, 2, 2)] {
        let mask = native16(info, at)?;
        if mask != 0 {
            let types = (0..LOCAL_TYPE_BITS).filter(|kind| mask & (1 << kind) != 0);
            let spans = types.map(|kind| u128::from(kind)..=u128::from(kind)).collect();
            tests.push(within(field, spans, flags & inverted != 0));
        }
    }
    Some(tests)
}

/// What counts, what of that is inverted (`XT_CONNTRACK_*`), and the values (`struct xt_conntrack_mtinfo3`).
fn conntrack(info: &[u8]) -> Option<Vec<Test>> {
    const STATE: u16 = 1;
    const PROTOCOL: u16 = 1 << 1;
    const STATUS: u16 = 1 << 6;
    const PORT: u16 = 1 << 9;
    const DIRECTION: u16 = 1 << 12;
    /// Says only by which name the match was asked for.
    const ALIAS: u16 = 1 << 13;
    let (counts, inverted) = (native16(info, 146)?, native16(info, 148)?);
    let (is, not) = (|flag: u16| counts & flag != 0, |flag: u16| inverted & flag != 0);
    let mut tests = Vec::new();
    if is(STATE) {
        tests.push(states(native16(info, 150)?, not(STATE)));
    }
    if is(PROTOCOL) {
        let number = native16(info, 136)?.into();
        tests.push(within(Field::Protocol, vec![number..=number], not(PROTOCOL)));
    }
    if is(PORT) {
        let first: u128 = native16(info, 140)?.into();
        let last = native16(info, 156).map_or(first, u128::from).max(first);
        tests.push(within(Field::OriginalPort, vec![first..=last], not(PORT)));
    }
    if is(STATUS) {
        tests.push(bits(Field::Status, native16(info, 152)?.into(), not(STATUS)));
    }
    if is(DIRECTION) {
        tests.push(within(Field::Direction, vec![0..=0], not(DIRECTION)));
    }
    if counts & !(STATE | PROTOCOL | STATUS | PORT | DIRECTION | ALIAS) != 0 {
        tests.push(Test::Opaque { specific: true });
    }
    Some(tests)
}

/// One of several states of a connection; that it is translated counts as one (`XT_CONNTRACK_STATE_*`).
pub fn states(mask: u16, negated: bool) -> Test {
    /// `NF_CT_STATE_UNTRACKED_BIT`
    const UNTRACKED: u128 = 1 << 6;
    /// `IPS_SRC_NAT`, `IPS_DST_NAT`
    const SOURCE: u128 = 0x10;
    const DESTINATION: u128 = 0x20;
    let mut tests = Vec::new();
    let untracked = if mask & 0x100 != 0 { UNTRACKED } else { 0 };
    let plain = u128::from(mask & 0x0f) | untracked;
    if plain != 0 {
        tests.push((Field::State, plain));
    }
    for (bit, status) in [(0x40, SOURCE), (0x80, DESTINATION)] {
        if mask & bit != 0 {
            tests.push((Field::Status, status));
        }
    }
    if let [(field, mask)] = *tests.as_slice() {
        return bits(field, mask, negated);
    }
    let tests = tests.into_iter().map(|(field, mask)| bits(field, mask, false)).collect();
    Test::AnyOf { tests, negated }
}

fn mark(info: &[u8]) -> Option<Vec<Test>> {
    let (wanted, whole) = (native32(info, 0)?, native32(info, 4)? == u32::MAX);
    let inverted = *info.get(8)? != 0;
    whole.then(|| vec![within(Field::Mark, vec![wanted.into()..=wanted.into()], inverted)])
}

fn native16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn native32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
