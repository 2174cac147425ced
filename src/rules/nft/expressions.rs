//! A rule's expressions, one after another.

use std::collections::HashMap;

use super::super::model::{Action, Field, Rule, Test};
use super::super::xt::{self, within};
use super::compared::{Loaded, What, any_of, compared, element, number, opaque};
use super::sets::{Element, Elements, Sets};
use super::{IPV4, IPV6, is_own_chain};
use crate::attribute::{attributes, find, find_text, find_u32};
use crate::plan::OWNER_TAG;

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
pub fn rule(family: u8, table: &str, sets: &Sets, body: &[u8], number: usize) -> Vec<Rule> {
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
            "socket" => self.socket(data),
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
                    self.action = super::compared::verdict(verdict);
                }
            }
            "reject" => self.action = Action::Drop,
            "redir" | "tproxy" => self.action = Action::Translate,
            "nat" => {
                self.action = if find_u32(data, 1) == Some(1) { Action::Translate } else { Action::Accept }
            }
            "masq" => self.action = Action::Accept,
            "notrack" => self.action = Action::Untrack,
            "counter" | "log" | "dup" => {}
            // A program decides.
            "queue" => self.anything(),
            "match" => self.matched(data),
            "target" => {
                let info = find(data, 3).unwrap_or_default();
                let name = find_text(data, 1).unwrap_or_default();
                self.action = xt::target(&name, info);
                if self.action == Action::Continue && !xt::goes_on(&name) {
                    self.anything();
                }
            }
            // How often, how much, and whatever newer kernels have.
            _ => self.tests.push(Test::Opaque { specific: false }),
        }
    }

    /// Perhaps it passes, and perhaps it does not.
    fn anything(&mut self) {
        self.tests.push(Test::Opaque { specific: false });
        self.action = Action::Accept;
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
            Some(23) => number(Field::Cgroup, 4),
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
        let original = find(data, 3).is_some_and(|direction| direction == [0]);
        let (what, width) = match key {
            Some(12) if original => {
                return self.load(find_u32(data, 1), What::Number(Field::OriginalPort), 2, 0, true);
            }
            Some(0) => (What::Number(Field::State), 4),
            Some(1) => (What::Number(Field::Direction), 1),
            Some(2) => (What::Number(Field::Status), 4),
            _ => (What::Something { specific: false }, 4),
        };
        self.load(find_u32(data, 1), what, width, 0, false);
    }

    fn socket(&mut self, data: &[u8]) {
        /// `NFT_SOCKET_CGROUPV2`
        const CGROUP: u32 = 3;
        let (what, width) = match find_u32(data, 1) {
            Some(CGROUP) => (What::Number(Field::Cgroup), 8),
            _ => (What::Something { specific: false }, 4),
        };
        self.load(find_u32(data, 2), what, width, 0, false);
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
