//! The kernel's expressions as statements. Any bytes are read; what says nothing that tproxy writes becomes
//! [`Statement::Foreign`]. Pure.
//!
//! Versions of `nft` say the same thing in different ways, a range above all; here they are one.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::attribute::{attributes, find, find_text, find_u32};
use crate::config::values::{Port, PortRange, Protocol, UidRange};
use crate::plan::Family;

use super::decode::Count;
use super::expression::{address_offset, number, port_offset};
use super::model::{End, Interface, Statement, Test, Verdict};
use super::set::Key;
use super::wire::{
    IPV4, IPV6, bitwise, byteorder, compare, counter, ct, data, fib, immediate, log, lookup, meta, payload,
    range, redir, rule,
};

/// What the expressions of a rule say, and what its first counter counted.
pub(super) fn read(list: &[u8]) -> (Vec<Statement>, Option<Count>) {
    let counts = attributes(list).find_map(|(_, expression)| match Expression::of(expression) {
        (_, Expression::Counter(count)) => Some(count),
        _ => None,
    });
    (with_lengths(list).into_iter().map(|(statement, _)| statement).collect(), counts)
}

/// The statements, and of how many expressions each is.
pub(super) fn with_lengths(list: &[u8]) -> Vec<(Statement, usize)> {
    let expressions: Vec<_> = attributes(list).map(|(_, expression)| Expression::of(expression)).collect();
    let mut statements = Vec::new();
    let mut rest = expressions.as_slice();
    while let [(name, first), behind @ ..] = rest {
        let next: Vec<&Expression<'_>> = behind.iter().take(3).map(|(_, expression)| expression).collect();
        let (statement, more) =
            first.statement(&next).unwrap_or_else(|| (Statement::Foreign(name.clone()), 0));
        statements.push((statement, 1 + more));
        rest = behind.get(more..).unwrap_or_default();
    }
    statements
}

/// What is loaded into a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Family,
    Protocol,
    /// The first so many bytes of it.
    Address(Family, End, usize),
    Port(End),
    Interface(End),
    Owner,
    State,
    /// What kind of address the destination is to this host.
    AddressType,
}

/// Operations on a register's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Equal,
    Unequal,
    AtLeast,
    AtMost,
}

/// An expression, with the register that it reads or writes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression<'a> {
    Load(u32, Subject),
    Compare(u32, Operation, &'a [u8]),
    /// Within, or with `false` outside.
    Range(u32, bool, &'a [u8], &'a [u8]),
    Mask(u32, &'a [u8]),
    ToNetwork(u32),
    /// In the set, or with `false` not.
    LookUp(u32, String, bool),
    Value(u32, &'a [u8]),
    Verdict(Verdict),
    Zone(u32),
    Redirect(u32),
    Counter(Count),
    Log(String, u8),
    Other,
}

impl<'a> Expression<'a> {
    /// With its name.
    fn of(expression: &'a [u8]) -> (String, Self) {
        let name = find_text(expression, rule::NAME).unwrap_or_default();
        let read = Self::read(&name, find(expression, rule::DATA).unwrap_or_default());
        (name, read.unwrap_or(Self::Other))
    }

    fn read(name: &str, body: &'a [u8]) -> Option<Self> {
        match name {
            "meta" => {
                let subject = match find_u32(body, meta::KEY)? {
                    meta::FAMILY => Subject::Family,
                    meta::PROTOCOL => Subject::Protocol,
                    meta::INPUT_NAME => Subject::Interface(End::Source),
                    meta::OUTPUT_NAME => Subject::Interface(End::Destination),
                    meta::SOCKET_USER => Subject::Owner,
                    _ => return None,
                };
                Some(Self::Load(find_u32(body, meta::DESTINATION)?, subject))
            }
            "fib" => {
                let wanted = [(fib::RESULT, fib::ADDRESS_TYPE), (fib::FLAGS, fib::DESTINATION_ADDRESS)];
                let all = wanted.iter().all(|(kind, wanted)| find_u32(body, *kind) == Some(*wanted));
                let register = find_u32(body, fib::DESTINATION)?;
                all.then_some(Self::Load(register, Subject::AddressType))
            }
            "payload" => Some(Self::Load(find_u32(body, payload::DESTINATION)?, header(body)?)),
            "cmp" => {
                let operation = match find_u32(body, compare::OPERATION)? {
                    compare::EQUAL => Operation::Equal,
                    compare::UNEQUAL => Operation::Unequal,
                    compare::AT_LEAST => Operation::AtLeast,
                    compare::AT_MOST => Operation::AtMost,
                    _ => return None,
                };
                Some(Self::Compare(find_u32(body, compare::SOURCE)?, operation, value(body, compare::DATA)?))
            }
            "range" => {
                let within = match find_u32(body, range::OPERATION)? {
                    range::WITHIN => true,
                    range::OUTSIDE => false,
                    _ => return None,
                };
                let (from, to) = (value(body, range::FROM)?, value(body, range::TO)?);
                Some(Self::Range(find_u32(body, range::SOURCE)?, within, from, to))
            }
            "bitwise" => {
                let register = same(body, bitwise::SOURCE, bitwise::DESTINATION)?;
                let plain =
                    find_u32(body, bitwise::OPERATION).unwrap_or(bitwise::MASK_XOR) == bitwise::MASK_XOR;
                let zero = value(body, bitwise::XOR)?.iter().all(|byte| *byte == 0);
                (plain && zero).then_some(Self::Mask(register, value(body, bitwise::MASK)?))
            }
            "byteorder" => {
                let register = same(body, byteorder::SOURCE, byteorder::DESTINATION)?;
                let wanted = [
                    (byteorder::OPERATION, byteorder::TO_NETWORK),
                    (byteorder::LENGTH, 4),
                    (byteorder::SIZE, 4),
                ];
                let all = wanted.iter().all(|(kind, wanted)| find_u32(body, *kind) == Some(*wanted));
                all.then_some(Self::ToNetwork(register))
            }
            "lookup" => {
                let within = match find_u32(body, lookup::FLAGS).unwrap_or_default() {
                    0 => true,
                    lookup::INVERTED => false,
                    _ => return None,
                };
                let plain = find(body, lookup::DESTINATION).is_none();
                let set = find_text(body, lookup::SET).filter(|_| plain)?;
                Some(Self::LookUp(find_u32(body, lookup::SOURCE)?, set, within))
            }
            "immediate" => {
                let loaded = find(body, immediate::DATA)?;
                match find_u32(body, immediate::DESTINATION)? {
                    data::VERDICT_REGISTER => verdict(find(loaded, data::VERDICT)?).map(Self::Verdict),
                    register => Some(Self::Value(register, find(loaded, data::VALUE)?)),
                }
            }
            "ct" => conntrack(body),
            "redir" => {
                let register = find_u32(body, redir::PORT)?;
                let one = find_u32(body, redir::PORT_MAX).is_none_or(|last| last == register);
                let plain = find_u32(body, redir::FLAGS).is_none_or(|flags| flags == redir::PORT_GIVEN);
                (one && plain).then_some(Self::Redirect(register))
            }
            "counter" => {
                let number = |kind| Some(u64::from_be_bytes(*find(body, kind)?.first_chunk()?));
                let (packets, bytes) = (number(counter::PACKETS), number(counter::BYTES));
                Some(Self::Counter(Count { packets: packets.unwrap_or(0), bytes: bytes.unwrap_or(0) }))
            }
            "log" => {
                let level = find_u32(body, log::LEVEL).unwrap_or(log::WARNING);
                let plain = find(body, log::GROUP).is_none() && find_u32(body, log::FLAGS).unwrap_or(0) == 0;
                let level = u8::try_from(level).ok().filter(|level| plain && *level < 8)?;
                Some(Self::Log(find_text(body, log::PREFIX).unwrap_or_default(), level))
            }
            _ => None,
        }
    }

    /// What it says together with those behind it, and how many of them.
    fn statement(&self, next: &[&Self]) -> Option<(Statement, usize)> {
        match self {
            Self::Load(register, subject) => condition(*register, *subject, next),
            Self::Value(from, value) => match next {
                [Self::Redirect(register), ..] if register == from => {
                    Some((Statement::Redirect(port(value)?), 1))
                }
                [Self::Zone(register), ..] if register == from => {
                    Some((Statement::CtZone(u16::from_ne_bytes((*value).try_into().ok()?)), 1))
                }
                _ => None,
            },
            Self::Verdict(verdict) => Some((Statement::Verdict(verdict.clone()), 0)),
            Self::Counter(_) => Some((Statement::Counter, 0)),
            Self::Log(prefix, level) => Some((Statement::Log { prefix: prefix.clone(), level: *level }, 0)),
            _ => None,
        }
    }
}

/// The test of a loaded value, which may be changed before.
fn condition(register: u32, subject: Subject, next: &[&Expression<'_>]) -> Option<(Statement, usize)> {
    use Expression::{Compare, Mask, ToNetwork};
    let reads_it = |expression: &Expression<'_>| match expression {
        Compare(from, ..) | Expression::Range(from, ..) | Mask(from, _) | ToNetwork(from) => {
            *from == register
        }
        Expression::LookUp(from, ..) => *from == register,
        _ => false,
    };
    let mine = next.iter().take_while(|expression| reads_it(expression)).count();
    let next = next.get(..mine)?;
    match (subject, next) {
        (Subject::Family, [Compare(_, Operation::Equal, [IPV4]), ..]) => {
            Some((Statement::Family(Family::V4), 1))
        }
        (Subject::Family, [Compare(_, Operation::Equal, [IPV6]), ..]) => {
            Some((Statement::Family(Family::V6), 1))
        }
        (Subject::Protocol, [Compare(_, Operation::Equal, [of]), ..]) => {
            let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|known| number(*known) == *of)?;
            Some((Statement::Protocol(protocol), 1))
        }
        (Subject::Address(family, end, length), _) => {
            let (test, used) = address(family, length, next)?;
            Some((Statement::Address(end, test), used))
        }
        (Subject::Port(end), _) => {
            let (test, used) = interval(next, |first, last| {
                let ports = PortRange { first: port(first)?, last: port(last)? };
                (ports.first <= ports.last).then_some(ports)
            })?;
            Some((Statement::Port(end, test), used))
        }
        (Subject::Interface(end), [first, ..]) => Some((Statement::Interface(end, interface(first)?), 1)),
        (Subject::Owner, [ToNetwork(_), behind @ ..]) => {
            let (test, used) = interval(behind, |first, last| {
                let number = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.try_into().ok()?));
                let uids = UidRange { first: number(first)?, last: number(last)? };
                (uids.first <= uids.last).then_some(uids)
            })?;
            Some((Statement::Owner(test), used + 1))
        }
        (Subject::Owner, [one @ Compare(..), ..]) => {
            let (test, used) = interval(&[one], |only, _| {
                let uid = u32::from_ne_bytes(only.try_into().ok()?);
                Some(UidRange { first: uid, last: uid })
            })?;
            Some((Statement::Owner(test), used))
        }
        (Subject::AddressType, [Compare(_, Operation::Unequal, kind), ..]) => {
            (**kind == fib::LOCAL.to_ne_bytes()).then_some((Statement::ForOtherHosts, 1))
        }
        (Subject::State, [Mask(_, mask), Compare(_, Operation::Unequal, [0, 0, 0, 0]), ..]) => {
            let states = [(ct::INVALID, Statement::Invalid), (ct::UNTRACKED, Statement::Untracked)];
            let state = states.into_iter().find(|(bit, _)| **mask == bit.to_ne_bytes());
            state.map(|(_, statement)| (statement, 2))
        }
        _ => None,
    }
}

/// One value, from one to another, or a set of them.
fn interval<T>(
    next: &[&Expression<'_>],
    read: impl Fn(&[u8], &[u8]) -> Option<T>,
) -> Option<(Test<T>, usize)> {
    use Expression::{Compare, LookUp, Range};
    Some(match next {
        [Compare(_, Operation::Equal, value), ..] => (Test::Is(read(value, value)?), 1),
        [Compare(_, Operation::Unequal, value), ..] => (Test::IsNot(read(value, value)?), 1),
        [Compare(_, Operation::AtLeast, first), Compare(_, Operation::AtMost, last), ..] => {
            (Test::Is(read(first, last)?), 2)
        }
        [Range(_, true, first, last), ..] => (Test::Is(read(first, last)?), 1),
        [Range(_, false, first, last), ..] => (Test::IsNot(read(first, last)?), 1),
        [LookUp(_, set, true), ..] => (Test::In(set.clone()), 1),
        [LookUp(_, set, false), ..] => (Test::NotIn(set.clone()), 1),
        _ => return None,
    })
}

fn address(family: Family, length: usize, tests: &[&Expression<'_>]) -> Option<(Test<IpNet>, usize)> {
    use Expression::{Compare, LookUp, Mask};
    let width = if family == Family::V4 { 4 } else { 16 };
    let (compare, bits, used) = match tests {
        [Mask(_, mask), compare, ..] if length == width && mask.len() == width => {
            let ones: u32 = mask.iter().map(|byte| byte.leading_ones()).take_while(|ones| *ones > 0).sum();
            let all: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
            (compare, u8::try_from(ones).ok().filter(|_| ones == all)?, 2)
        }
        [LookUp(_, set, within), ..] if length == width => {
            let test = if *within { Test::In } else { Test::NotIn };
            return Some((test(set.clone()), 1));
        }
        [compare, ..] => (compare, u8::try_from(length * 8).ok()?, 1),
        [] => return None,
    };
    let Compare(_, operation, bytes) = compare else { return None };
    if bytes.len() != length {
        return None;
    }
    let mut octets = [0; 16];
    octets.get_mut(..length)?.copy_from_slice(bytes);
    let net: IpNet = match family {
        Family::V4 => Ipv4Net::new(Ipv4Addr::from(*octets.first_chunk::<4>()?), bits).ok()?.into(),
        Family::V6 => Ipv6Net::new(Ipv6Addr::from(octets), bits).ok()?.into(),
    };
    // Bits beyond the mask would make a test that never holds.
    let net = (net.trunc() == net).then_some(net)?;
    Some((is_or_not(*operation, net)?, used))
}

fn interface(test: &Expression<'_>) -> Option<Test<Interface>> {
    let (operation, bytes) = match test {
        Expression::Compare(_, operation, bytes) => (*operation, *bytes),
        Expression::LookUp(_, set, true) => return Some(Test::In(set.clone())),
        Expression::LookUp(_, set, false) => return Some(Test::NotIn(set.clone())),
        _ => return None,
    };
    let prefix = bytes.len() < Key::Interface.width();
    let name: &[u8] = if prefix { bytes } else { bytes.split(|byte| *byte == 0).next()? };
    let ended = bytes.iter().skip(name.len()).all(|byte| *byte == 0) && !name.contains(&0);
    let name = std::str::from_utf8(name).ok().filter(|_| ended)?.to_owned();
    is_or_not(operation, Interface { name, prefix })
}

fn is_or_not<T>(operation: Operation, value: T) -> Option<Test<T>> {
    match operation {
        Operation::Equal => Some(Test::Is(value)),
        Operation::Unequal => Some(Test::IsNot(value)),
        Operation::AtLeast | Operation::AtMost => None,
    }
}

/// What a load from a header loads.
fn header(body: &[u8]) -> Option<Subject> {
    let (offset, length) = (find_u32(body, payload::OFFSET)?, find_u32(body, payload::LENGTH)?);
    let ends = [End::Source, End::Destination];
    match find_u32(body, payload::BASE)? {
        payload::NETWORK => {
            let length = usize::try_from(length).ok()?;
            [(Family::V4, 4), (Family::V6, 16)].into_iter().find_map(|(family, width)| {
                let end = ends.into_iter().find(|end| address_offset(family, *end) == offset)?;
                (1..=width).contains(&length).then_some(Subject::Address(family, end, length))
            })
        }
        payload::TRANSPORT if length == 2 => {
            ends.into_iter().find(|end| port_offset(*end) == offset).map(Subject::Port)
        }
        _ => None,
    }
}

fn conntrack<'a>(body: &[u8]) -> Option<Expression<'a>> {
    if find(body, ct::DIRECTION).is_some() {
        return None;
    }
    match (find_u32(body, ct::KEY)?, find_u32(body, ct::DESTINATION), find_u32(body, ct::SOURCE)) {
        (ct::STATE, Some(register), None) => Some(Expression::Load(register, Subject::State)),
        (ct::ZONE, None, Some(register)) => Some(Expression::Zone(register)),
        _ => None,
    }
}

fn verdict(body: &[u8]) -> Option<Verdict> {
    match find_u32(body, data::CODE)?.cast_signed() {
        data::ACCEPT => Some(Verdict::Accept),
        data::DROP => Some(Verdict::Drop),
        data::RETURN => Some(Verdict::Return),
        data::JUMP => find_text(body, data::CHAIN).map(Verdict::Jump),
        _ => None,
    }
}

fn value(body: &[u8], kind: u16) -> Option<&[u8]> {
    find(find(body, kind)?, data::VALUE)
}

/// The register, if it is both.
fn same(body: &[u8], source: u16, destination: u16) -> Option<u32> {
    let register = find_u32(body, source)?;
    (find_u32(body, destination) == Some(register)).then_some(register)
}

fn port(bytes: &[u8]) -> Option<Port> {
    Port::try_from(u16::from_be_bytes(bytes.try_into().ok()?)).ok()
}
