//! What a value in a register is compared with, as a test.

use super::super::model::{Action, Field, Name, Span, Test};
use super::super::xt::{bits, within};
use super::{IPV4, IPV6};
use crate::attribute::{find_text, find_u32};
use crate::plan::Family;

/// What a register holds.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Of what it is.
    pub what: What,
    /// The same as nft calls it; of a port, without its protocol.
    pub term: &'static str,
    /// How many bytes of it.
    pub width: usize,
    /// Bytes of it that were not loaded, because they do not count.
    pub missing: usize,
    /// A mask over it.
    pub mask: Option<Vec<u8>>,
    /// Whether its first byte counts most.
    pub big: bool,
}

/// Of what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// One that rules ask for.
    Number(Field),
    /// An interface's name.
    Name {
        /// By which it leaves.
        leaving: bool,
    },
    /// The packet's family.
    Family,
    /// What is not understood.
    Something {
        /// As [`Test::Opaque`] has it.
        specific: bool,
    },
}

/// Of what is not understood.
pub fn opaque(loaded: Option<&Loaded>) -> Test {
    let specific = match loaded.map(|loaded| loaded.what) {
        Some(What::Something { specific }) => specific,
        Some(_) => true,
        None => false,
    };
    Test::Opaque { specific }
}

/// What a comparison asks for.
pub fn compared(loaded: &Loaded, operation: u32, value: &[u8]) -> Test {
    const EQUAL: u32 = 0;
    const UNEQUAL: u32 = 1;
    let negated = operation == UNEQUAL;
    match loaded.what {
        What::Family if operation <= UNEQUAL => match value.first() {
            Some(&IPV4) => Test::Family { family: Family::V4, negated },
            Some(&IPV6) => Test::Family { family: Family::V6, negated },
            _ => Test::Opaque { specific: false },
        },
        What::Name { leaving } if operation <= UNEQUAL => {
            Test::Interface { leaving, names: vec![name(value)], negated }
        }
        What::Number(field) => match (&loaded.mask, operation) {
            (Some(mask), UNEQUAL) if value.iter().all(|byte| *byte == 0) && !is_prefix(mask, loaded.big) => {
                bits(field, number(mask, loaded.big), false)
            }
            (Some(mask), EQUAL) if value.iter().all(|byte| *byte == 0) && !is_prefix(mask, loaded.big) => {
                bits(field, number(mask, loaded.big), true)
            }
            (Some(mask), EQUAL | UNEQUAL) if is_prefix(mask, loaded.big) && loaded.missing == 0 => {
                let first = number(value, true);
                let last = first | number(&mask.iter().map(|byte| !byte).collect::<Vec<_>>(), true);
                within(field, vec![first..=last], negated)
            }
            (None, EQUAL | UNEQUAL) => {
                let shift = 8 * u32::try_from(loaded.missing).unwrap_or_default();
                let first = number(value, loaded.big) << shift;
                let rest = 1u128.checked_shl(shift).map_or(u128::MAX, |limit| limit - 1);
                within(field, vec![first..=(first | rest)], negated)
            }
            (None, 2..=5) if loaded.missing == 0 => {
                let value = number(value, loaded.big);
                let span = match operation {
                    2 if value == 0 => return within(field, Vec::new(), false),
                    2 => 0..=value - 1,
                    3 => 0..=value,
                    4 => value.saturating_add(1)..=u128::MAX,
                    _ => value..=u128::MAX,
                };
                within(field, vec![span], false)
            }
            _ => Test::Opaque { specific: true },
        },
        _ => opaque(Some(loaded)),
    }
}

/// What an element of a set asks for.
pub fn element(loaded: &Loaded, key: &[u8], end: Option<&[u8]>) -> Test {
    match loaded.what {
        What::Number(field) if loaded.missing == 0 => {
            let first = number(key, loaded.big);
            let last = end.map_or(first, |end| number(end, loaded.big).saturating_sub(1).max(first));
            within(field, vec![first..=last], false)
        }
        What::Name { leaving } if end.is_none() => {
            Test::Interface { leaving, names: vec![name(key)], negated: false }
        }
        What::Family => compared(loaded, 0, key),
        _ => opaque(Some(loaded)),
    }
}

/// One test for several of the same kind.
pub fn any_of(tests: Vec<Test>, negated: bool) -> Test {
    let mut numbers: Vec<Span> = Vec::new();
    let mut of_number = None;
    let mut interfaces: Vec<Name> = Vec::new();
    let mut of_name = None;
    for test in tests {
        match test {
            Test::In { field, spans, negated: false } => {
                of_number = Some(field);
                numbers.extend(spans);
            }
            Test::Interface { leaving, names, negated: false } => {
                of_name = Some(leaving);
                interfaces.extend(names);
            }
            _ => return Test::Opaque { specific: true },
        }
    }
    match (of_number, of_name) {
        (Some(field), None) => within(field, numbers, negated),
        (None, Some(leaving)) => Test::Interface { leaving, names: interfaces, negated },
        // Nothing is in it.
        (None, None) => within(Field::Protocol, Vec::new(), negated),
        _ => Test::Opaque { specific: true },
    }
}

/// A name that a zero ends, or else the beginning of one.
fn name(bytes: &[u8]) -> Name {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    Name {
        text: String::from_utf8_lossy(text).into_owned(),
        prefix: text.len() == bytes.len() && bytes.len() < 16,
    }
}

/// Bytes as a number.
pub fn number(bytes: &[u8], big: bool) -> u128 {
    let add = |sum: u128, byte: &u8| sum << 8 | u128::from(*byte);
    let native_is_big = cfg!(target_endian = "big");
    if big || native_is_big {
        bytes.iter().take(16).fold(0, add)
    } else {
        bytes.iter().take(16).rev().fold(0, add)
    }
}

/// Whether a mask leaves the beginning of a number.
fn is_prefix(mask: &[u8], big: bool) -> bool {
    let inverse = number(&mask.iter().map(|byte| !byte).collect::<Vec<_>>(), true);
    big && inverse & inverse.wrapping_add(1) == 0
}

/// The verdict in a rule or in a map.
pub fn verdict(data: &[u8]) -> Action {
    let chain = || find_text(data, 2).unwrap_or_default();
    match find_u32(data, 1).map(u32::cast_signed) {
        Some(0) => Action::Drop,
        Some(1) => Action::Accept,
        Some(-3) => Action::Jump(chain()),
        Some(-4) => Action::Goto(chain()),
        Some(-5) => Action::Return,
        _ => Action::Continue,
    }
}
