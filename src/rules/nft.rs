//! Rules of `nf_tables`, native ones and those of iptables' nft variant, from the kernel's messages. Any bytes are
//! read; what is not understood is said to be so.
//!
//! Numbers are those of the kernel's `include/uapi/linux/netfilter/nf_tables.h`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::model::{Action, Called, Chain, Field, Hook, Name, Rule, Span, Test};
use super::xt::{self, bits, within};
use crate::attribute::{attributes, find, find_text, find_u32};
use crate::backend::nftables::model::TABLE;
use crate::plan::{Family, OWNER_TAG, OwnChain};

const INET: u8 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// A message of the kernel's: the family of its table, and its attributes.
pub type Told<'a> = (u8, &'a [u8]);

/// The elements of a set: keys, an interval's last key where it has one, and what is to be done.
#[derive(Debug, Clone, Default)]
struct Elements {
    /// The length of a key in bytes.
    width: usize,
    keys: Vec<Element>,
}

/// A key, the end of its interval, and what is to be done.
type Element = (Vec<u8>, Option<Vec<u8>>, Option<Action>);

/// All chains, from what the kernel lists: chains, rules, and each set's elements by the family, table and name of the
/// set.
pub fn chains(listed: &[Told<'_>], rules: &[Told<'_>], elements: &[Told<'_>]) -> Vec<Chain> {
    let sets = sets(elements);
    let mut by_chain: HashMap<(u8, String, String), Vec<&[u8]>> = HashMap::new();
    for (family, body) in rules {
        let (Some(table), Some(chain)) = (find_text(body, 1), find_text(body, 2)) else { continue };
        by_chain.entry((*family, table, chain)).or_default().push(body);
    }
    let chain = |(family, body): &Told<'_>| {
        let families = match *family {
            INET => Family::BOTH.to_vec(),
            IPV4 => vec![Family::V4],
            IPV6 => vec![Family::V6],
            _ => return None,
        };
        let (table, name) = (find_text(body, 1)?, find_text(body, 3)?);
        // What is ours is known, and promises what is asked here.
        if *family == INET && table == TABLE {
            return None;
        }
        let called = find(body, 4).and_then(|hook| called(hook, body));
        let rules = by_chain.get(&(*family, table.clone(), name.clone())).into_iter().flatten().enumerate();
        let mut read = Vec::new();
        for (number, body) in rules {
            read.extend(rule(*family, &table, &sets, body, number + 1));
        }
        let shown = match *family {
            INET => format!("inet {table}"),
            IPV4 => format!("ip {table}"),
            _ => format!("ip6 {table}"),
        };
        Some(Chain { families, table: shown, name, called, rules: read })
    };
    listed.iter().filter_map(chain).collect()
}

fn called(hook: &[u8], body: &[u8]) -> Option<Called> {
    let hook_of = match find_u32(hook, 1)? {
        0 => Hook::Prerouting,
        1 => Hook::Input,
        3 => Hook::Output,
        4 => Hook::Postrouting,
        _ => return None,
    };
    let priority = find_u32(hook, 2)?.cast_signed();
    let translates = find_text(body, 7).is_some_and(|kind| kind == "nat");
    Some(Called { hook: hook_of, priority, translates, drops: find_u32(body, 5) == Some(0) })
}

type Sets = BTreeMap<(u8, String, String), Elements>;

fn sets(told: &[Told<'_>]) -> Sets {
    /// A key, whether it is the first that is not in an interval any more, the last one of it, and what is to be done.
    type Told = (Vec<u8>, bool, Option<Vec<u8>>, Option<Action>);
    let mut all: BTreeMap<(u8, String, String), Vec<Told>> = BTreeMap::new();
    for (family, body) in told {
        let (Some(table), Some(name)) = (find_text(body, 1), find_text(body, 2)) else { continue };
        let set = all.entry((*family, table, name)).or_default();
        for (_, element) in attributes(find(body, 3).unwrap_or_default()) {
            let value = |kind| find(element, kind).and_then(|key| find(key, 1)).map(<[u8]>::to_vec);
            let Some(key) = value(1) else { continue };
            let ends = find_u32(element, 3).is_some_and(|flags| flags & 1 != 0);
            let action = find(element, 2).and_then(|data| find(data, 2)).map(verdict);
            set.push((key, ends, value(10), action));
        }
    }
    let paired = |mut all: Vec<Told>| {
        // An interval may begin where another one ends.
        all.sort_by(|one, other| (&one.0, !one.1).cmp(&(&other.0, !other.1)));
        let mut set = Elements::default();
        for (key, ends, last, action) in all {
            set.width = set.width.max(key.len());
            if !ends {
                set.keys.push((key, last, action));
            } else if let Some(open) = set.keys.last_mut() {
                open.1.get_or_insert(key);
            }
        }
        set
    };
    all.into_iter().map(|(name, all)| (name, paired(all))).collect()
}

/// What a register holds.
#[derive(Debug, Clone)]
struct Loaded {
    what: What,
    /// How many bytes of it.
    width: usize,
    /// Bytes of it that were not loaded, because they do not count.
    missing: usize,
    /// A mask over it.
    mask: Option<Vec<u8>>,
    /// Whether its first byte counts most.
    big: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Number(Field),
    Name { leaving: bool },
    Family,
    Something { specific: bool },
}

struct Reader<'a> {
    family: u8,
    table: &'a str,
    sets: &'a Sets,
    registers: HashMap<u32, Loaded>,
    tests: Vec<Test>,
    action: Action,
    ours: bool,
    /// A verdict map, where one is asked: rules for each of its elements.
    map: Vec<(Vec<Test>, Action)>,
}

/// A rule; several, where it looks its verdict up in a map.
fn rule(family: u8, table: &str, sets: &Sets, body: &[u8], number: usize) -> Vec<Rule> {
    let mut reader = Reader {
        family,
        table,
        sets,
        registers: HashMap::new(),
        tests: Vec::new(),
        action: Action::Continue,
        ours: false,
        map: Vec::new(),
    };
    for (_, expression) in attributes(find(body, 4).unwrap_or_default()) {
        let name = find_text(expression, 1).unwrap_or_default();
        reader.read(&name, find(expression, 2).unwrap_or_default());
    }
    let Reader { tests, mut action, ours, map, .. } = reader;
    let name = format!("rule {number}");
    let leads_to_ours = matches!(&action, Action::Jump(to) | Action::Goto(to) if is_own_chain(to));
    if ours || leads_to_ours {
        let takes = leads_to_ours || action == Action::Translate;
        action = if takes { Action::Ours } else { Action::OursPasses };
    }
    let mut rules: Vec<Rule> = map
        .into_iter()
        .map(|(more, action)| Rule {
            tests: tests.iter().cloned().chain(more).collect(),
            action,
            name: name.clone(),
        })
        .collect();
    if rules.is_empty() {
        rules.push(Rule { tests, action, name });
    }
    rules
}

impl Reader<'_> {
    fn read(&mut self, name: &str, data: &[u8]) {
        match name {
            "meta" => self.meta(data),
            "payload" => self.payload(data),
            "ct" => self.ct(data),
            "fib" => self.fib(data),
            "bitwise" => self.bitwise(data),
            "byteorder" => {
                if let Some(loaded) = self.moved(data) {
                    loaded.big = true;
                }
            }
            "cmp" => self.compare(data),
            "range" => self.range(data),
            "lookup" => self.lookup(data),
            "immediate" => {
                if let Some(verdict) = find(data, 2).and_then(|data| find(data, 2)) {
                    self.action = self::verdict(verdict);
                }
            }
            "reject" => self.action = Action::Drop,
            "redir" | "tproxy" => self.action = Action::Translate,
            "nat" => {
                self.action = if find_u32(data, 1) == Some(1) { Action::Translate } else { Action::Accept }
            }
            "masq" => self.action = Action::Accept,
            "notrack" => self.action = Action::Untrack,
            "counter" | "log" | "queue" | "dup" => {}
            "match" => self.matched(data),
            "target" => {
                let info = find(data, 3).unwrap_or_default();
                self.action = xt::target(&find_text(data, 1).unwrap_or_default(), info);
            }
            // How often, how much, and whatever newer kernels have.
            _ => self.tests.push(Test::Opaque { specific: false }),
        }
    }

    fn matched(&mut self, data: &[u8]) {
        let info = find(data, 3).unwrap_or_default();
        let name = find_text(data, 1).unwrap_or_default();
        if name == "comment" {
            let text = info.split(|byte| *byte == 0).next().unwrap_or_default();
            self.ours |= String::from_utf8_lossy(text).starts_with(OWNER_TAG);
        }
        self.tests.extend(xt::matched(&name, find_u32(data, 2).unwrap_or_default(), info));
    }

    fn load(&mut self, register: Option<u32>, what: What, width: usize, missing: usize, big: bool) {
        if let Some(register) = register {
            self.registers.insert(register, Loaded { what, width, missing, mask: None, big });
        }
    }

    fn meta(&mut self, data: &[u8]) {
        const MARK: u32 = 3;
        if find_u32(data, 3).is_some() {
            // It is set and not asked for.
            if find_u32(data, 2) == Some(MARK) {
                self.action = Action::Mark;
            }
            return;
        }
        let number = |field, width| (What::Number(field), width);
        let (what, width) = match find_u32(data, 2) {
            Some(MARK) => number(Field::Mark, 4),
            Some(4) => number(Field::InIndex, 4),
            Some(5) => number(Field::OutIndex, 4),
            Some(6) => (What::Name { leaving: false }, 16),
            Some(7) => (What::Name { leaving: true }, 16),
            Some(10) => number(Field::User, 4),
            Some(11) => number(Field::Group, 4),
            Some(15) => (What::Family, 1),
            Some(16) => number(Field::Protocol, 1),
            Some(1) => (What::Something { specific: false }, 2),
            Some(_) | None => (What::Something { specific: false }, 4),
        };
        self.load(find_u32(data, 1), what, width, 0, false);
    }

    fn payload(&mut self, data: &[u8]) {
        let (base, offset, length) = (find_u32(data, 2), find_u32(data, 3), find_u32(data, 4));
        let width = usize::try_from(length.unwrap_or(0)).unwrap_or(0);
        let address = |begin: u32, whole: usize, field| {
            (offset == Some(begin) && (1..=whole).contains(&width))
                .then_some((What::Number(field), whole.saturating_sub(width)))
        };
        let four = self.family != IPV6 && width <= 4;
        let six = self.family != IPV4;
        let found = match base {
            Some(1) if four && offset == Some(9) && width == 1 => Some((What::Number(Field::Protocol), 0)),
            Some(1) => None
                .or_else(|| address(12, 4, Field::Source).filter(|_| four))
                .or_else(|| address(16, 4, Field::Destination).filter(|_| four))
                .or_else(|| address(8, 16, Field::Source).filter(|_| six && width > 1))
                .or_else(|| address(24, 16, Field::Destination).filter(|_| six && width > 1)),
            Some(2) if width == 2 && offset == Some(0) => Some((What::Number(Field::SourcePort), 0)),
            Some(2) if width == 2 && offset == Some(2) => Some((What::Number(Field::DestinationPort), 0)),
            _ => None,
        };
        let (what, missing) =
            found.unwrap_or((What::Something { specific: base == Some(1) && width >= 4 }, 0));
        self.load(find_u32(data, 1), what, width, missing, true);
    }

    fn ct(&mut self, data: &[u8]) {
        const ZONE: u32 = 17;
        let key = find_u32(data, 2);
        if find_u32(data, 4).is_some() {
            if key == Some(ZONE) {
                self.action = Action::Zone(0);
            }
            return;
        }
        let (what, width) = match key {
            Some(0) => (What::Number(Field::State), 4),
            Some(1) => (What::Number(Field::Direction), 1),
            Some(2) => (What::Number(Field::Status), 4),
            _ => (What::Something { specific: false }, 4),
        };
        self.load(find_u32(data, 1), what, width, 0, false);
    }

    fn fib(&mut self, data: &[u8]) {
        const TYPE: u32 = 3;
        let what = match (find_u32(data, 2), find_u32(data, 3)) {
            (Some(TYPE), Some(1)) => What::Number(Field::SourceType),
            (Some(TYPE), Some(2)) => What::Number(Field::DestinationType),
            _ => What::Something { specific: false },
        };
        self.load(find_u32(data, 1), what, 4, 0, false);
    }

    /// What an expression that changes a register left in another one.
    fn moved(&mut self, data: &[u8]) -> Option<&mut Loaded> {
        let (from, to) = (find_u32(data, 1)?, find_u32(data, 2)?);
        let loaded = self.registers.get(&from)?.clone();
        self.registers.insert(to, loaded);
        self.registers.get_mut(&to)
    }

    fn bitwise(&mut self, data: &[u8]) {
        let inner = |kind| find(data, kind).and_then(|value| find(value, 1)).map(<[u8]>::to_vec);
        let (mask, xor) = (inner(4), inner(5));
        let plain = xor.is_none_or(|xor| xor.iter().all(|byte| *byte == 0));
        if let Some(loaded) = self.moved(data) {
            loaded.mask = mask;
            if !plain {
                loaded.what = What::Something { specific: true };
            }
        }
    }

    fn compare(&mut self, data: &[u8]) {
        let value = find(data, 3).and_then(|data| find(data, 1)).unwrap_or_default();
        let Some(loaded) = find_u32(data, 1).and_then(|register| self.registers.get(&register)).cloned()
        else {
            return self.tests.push(Test::Opaque { specific: false });
        };
        let test = compared(&loaded, find_u32(data, 2).unwrap_or_default(), value);
        self.tests.push(test);
    }

    fn range(&mut self, data: &[u8]) {
        let value = |kind| find(data, kind).and_then(|data| find(data, 1));
        let loaded = find_u32(data, 1).and_then(|register| self.registers.get(&register));
        let test = match (loaded, value(3), value(4)) {
            (
                Some(Loaded { what: What::Number(field), mask: None, missing: 0, big, .. }),
                Some(from),
                Some(to),
            ) => {
                let span = number(from, *big)..=number(to, *big);
                within(*field, vec![span], find_u32(data, 2) == Some(1))
            }
            _ => opaque(loaded),
        };
        self.tests.push(test);
    }

    fn lookup(&mut self, data: &[u8]) {
        let name = find_text(data, 1).unwrap_or_default();
        let loaded = find_u32(data, 2).and_then(|register| self.registers.get(&register)).cloned();
        let negated = find_u32(data, 5).is_some_and(|flags| flags & 1 != 0);
        let is_map = find_u32(data, 3) == Some(0);
        let elements = self.sets.get(&(self.family, self.table.to_owned(), name));
        let whole =
            |loaded: &Loaded, elements: &Elements| loaded.width == elements.width && loaded.mask.is_none();
        match (loaded, elements) {
            (Some(loaded), Some(elements)) if whole(&loaded, elements) => {
                let of = |(key, end, _): &Element| element(&loaded, key, end.as_deref());
                if is_map {
                    self.map = elements
                        .keys
                        .iter()
                        .map(|all| (vec![of(all)], all.2.clone().unwrap_or(Action::Continue)))
                        .collect();
                } else {
                    self.tests.push(any_of(elements.keys.iter().map(of).collect(), negated));
                }
            }
            // An empty set holds nothing.
            (Some(_), None) if !is_map => self.tests.push(any_of(Vec::new(), negated)),
            (Some(_), None) => {}
            (_, Some(elements)) if is_map => {
                let keys = elements.keys.iter();
                self.map = keys
                    .map(|all| {
                        (vec![Test::Opaque { specific: true }], all.2.clone().unwrap_or(Action::Continue))
                    })
                    .collect();
            }
            _ => self.tests.push(Test::Opaque { specific: true }),
        }
    }
}

fn opaque(loaded: Option<&Loaded>) -> Test {
    let specific = match loaded.map(|loaded| loaded.what) {
        Some(What::Something { specific }) => specific,
        Some(_) => true,
        None => false,
    };
    Test::Opaque { specific }
}

/// What a comparison asks for.
fn compared(loaded: &Loaded, operation: u32, value: &[u8]) -> Test {
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
fn element(loaded: &Loaded, key: &[u8], end: Option<&[u8]>) -> Test {
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
fn any_of(tests: Vec<Test>, negated: bool) -> Test {
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

fn number(bytes: &[u8], big: bool) -> u128 {
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

fn verdict(data: &[u8]) -> Action {
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

/// Whether a chain of iptables is one of ours.
pub fn is_own_chain(name: &str) -> bool {
    OwnChain::named(name).is_some()
}

/// The numbers of a network's addresses.
pub fn span_of(net: IpNet) -> Span {
    number_of(net.network())..=number_of(net.broadcast())
}

/// An address as a number.
pub fn number_of(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(four) => u32::from(four).into(),
        IpAddr::V6(six) => six.into(),
    }
}
