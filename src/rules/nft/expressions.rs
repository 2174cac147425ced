//! A rule's expressions, one after another.

use std::collections::HashMap;

use super::super::model::{Action, Field, Rule, Test};
use super::super::xt::{self, within};
use super::compared::{Loaded, What, any_of, compared, element, number, opaque};
use super::quote::Quote;
use super::sets::{Element, Elements, Sets};
use super::{IPV4, IPV6, is_own_chain};
use crate::attribute::{attributes, find, find_text, find_u32};
use crate::plan::{Family, OWNER_TAG};

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
    /// The rule's words, where those are asked for.
    quote: Option<Quote>,
}

/// Where a rule is.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The table's family.
    pub family: u8,
    /// The table.
    pub table: &'a str,
    /// Whether the chain is one that iptables' programs read.
    pub compat: bool,
}

/// A rule; several, where it looks its verdict up in a map. It has words only if it may be named, and `quoted`; else its
/// number.
pub fn rule(place: Place<'_>, sets: &Sets, body: &[u8], number: usize, quoted: bool) -> Vec<Rule> {
    let Reader { tests, mut action, ours, map, .. } = read(place, sets, body, None);
    let leads_to_ours = matches!(&action, Action::Jump(to) | Action::Goto(to) if is_own_chain(to));
    if ours || leads_to_ours {
        let takes = leads_to_ours || action == Action::Translate;
        action = if takes { Action::Ours } else { Action::OursPasses };
    }
    let leads = |action: &Action| matches!(action, Action::Continue | Action::Jump(_) | Action::Goto(_));
    let may_be_named = quoted && !ours && (!leads(&action) || !map.is_empty());
    let name = if may_be_named { words(place, sets, body) } else { format!("rule {number}") };
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

fn read<'a>(place: Place<'a>, sets: &'a Sets, body: &[u8], quote: Option<Quote>) -> Reader<'a> {
    let mut reader = Reader {
        family: place.family,
        table: place.table,
        sets,
        registers: HashMap::new(),
        tests: Vec::new(),
        action: Action::Continue,
        ours: false,
        map: Vec::new(),
        quote,
    };
    for (_, expression) in attributes(find(body, 4).unwrap_or_default()) {
        let name = find_text(expression, 1).unwrap_or_default();
        reader.read(&name, find(expression, 2).unwrap_or_default());
    }
    reader
}

/// The rule as its own program prints it.
fn words(place: Place<'_>, sets: &Sets, body: &[u8]) -> String {
    let expressions = || attributes(find(body, 4).unwrap_or_default());
    let names: Vec<String> = expressions().filter_map(|(_, expression)| find_text(expression, 1)).collect();
    let family = match place.family {
        IPV4 => Some(Family::V4),
        IPV6 => Some(Family::V6),
        _ => None,
    };
    let quote = Quote::new(place.compat, family, names.iter().map(String::as_str));
    read(place, sets, body, Some(quote)).quote.map(Quote::text).unwrap_or_default()
}

impl Reader<'_> {
    fn read(&mut self, name: &str, data: &[u8]) {
        const TESTS: [&str; 10] =
            ["payload", "fib", "socket", "bitwise", "byteorder", "cmp", "range", "lookup", "meta", "ct"];
        let sets =
            (name == "meta" && find_u32(data, 3).is_some()) || (name == "ct" && find_u32(data, 4).is_some());
        if let Some(quote) = self.quote.as_mut().filter(|_| sets || !TESTS.contains(&name)) {
            quote.other(name, data);
        }
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

    /// Asks for something of what was loaded.
    fn ask(&mut self, test: Test, loaded: Option<&Loaded>, set: Option<&str>) {
        if let Some(quote) = &mut self.quote {
            quote.test(&test, loaded.map_or("", |loaded| loaded.term), set);
        }
        self.tests.push(test);
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

    fn load(&mut self, register: Option<u32>, loaded: Loaded) {
        if let Some(register) = register {
            self.registers.insert(register, loaded);
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
        let number = |term, field, width| (term, What::Number(field), width);
        let something = |term, width| (term, What::Something { specific: false }, width);
        let (term, what, width) = match find_u32(data, 2) {
            Some(MARK) => number("meta mark", Field::Mark, 4),
            Some(4) => number("iif", Field::InIndex, 4),
            Some(5) => number("oif", Field::OutIndex, 4),
            Some(6) => ("iifname", What::Name { leaving: false }, 16),
            Some(7) => ("oifname", What::Name { leaving: true }, 16),
            Some(10) => number("meta skuid", Field::User, 4),
            Some(11) => number("meta skgid", Field::Group, 4),
            Some(23) => number("meta cgroup", Field::Cgroup, 4),
            Some(15) => ("meta nfproto", What::Family, 1),
            Some(16) => number("meta l4proto", Field::Protocol, 1),
            Some(0) => something("meta length", 4),
            Some(1) => something("meta protocol", 2),
            Some(8) => something("iiftype", 4),
            Some(9) => something("oiftype", 4),
            Some(14) => something("rt classid", 4),
            Some(18) => something("meta pkttype", 4),
            Some(_) | None => something("meta", 4),
        };
        self.load(find_u32(data, 1), Loaded { what, term, width, missing: 0, mask: None, big: false });
    }

    fn payload(&mut self, data: &[u8]) {
        let (base, offset, length) = (find_u32(data, 2), find_u32(data, 3), find_u32(data, 4));
        let width = usize::try_from(length.unwrap_or(0)).unwrap_or(0);
        let address = |begin: u32, whole: usize, field, term| {
            (offset == Some(begin) && (1..=whole).contains(&width)).then_some((
                What::Number(field),
                whole.saturating_sub(width),
                term,
            ))
        };
        let four = self.family != IPV6 && width <= 4;
        let six = self.family != IPV4;
        let port = |field, term| Some((What::Number(field), 0, term));
        let found = match base {
            Some(1) if four && offset == Some(9) && width == 1 => {
                Some((What::Number(Field::Protocol), 0, "ip protocol"))
            }
            Some(1) => None
                .or_else(|| address(12, 4, Field::Source, "ip saddr").filter(|_| four))
                .or_else(|| address(16, 4, Field::Destination, "ip daddr").filter(|_| four))
                .or_else(|| address(8, 16, Field::Source, "ip6 saddr").filter(|_| six && width > 1))
                .or_else(|| address(24, 16, Field::Destination, "ip6 daddr").filter(|_| six && width > 1)),
            Some(2) if width == 2 && offset == Some(0) => port(Field::SourcePort, "sport"),
            Some(2) if width == 2 && offset == Some(2) => port(Field::DestinationPort, "dport"),
            _ => None,
        };
        // As nft names what it has no name for.
        let raw = match base {
            Some(0) => "@ll",
            Some(1) => "@nh",
            Some(2) => "@th",
            _ => "@ih",
        };
        let specific = base == Some(1) && width >= 4;
        let (what, missing, term) = found.unwrap_or((What::Something { specific }, 0, raw));
        self.load(find_u32(data, 1), Loaded { what, term, width, missing, mask: None, big: true });
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
        let something = What::Something { specific: false };
        let (what, term, width, big) = match key {
            Some(12) if original => (What::Number(Field::OriginalPort), "ct original proto-dst", 2, true),
            Some(0) => (What::Number(Field::State), "ct state", 4, false),
            Some(1) => (What::Number(Field::Direction), "ct direction", 1, false),
            Some(2) => (What::Number(Field::Status), "ct status", 4, false),
            Some(3) => (something, "ct mark", 4, false),
            Some(ZONE) => (something, "ct zone", 4, false),
            _ => (something, "ct", 4, false),
        };
        self.load(find_u32(data, 1), Loaded { what, term, width, missing: 0, mask: None, big });
    }

    fn socket(&mut self, data: &[u8]) {
        /// `NFT_SOCKET_CGROUPV2`
        const CGROUP: u32 = 3;
        let (what, term, width) = match find_u32(data, 1) {
            Some(CGROUP) => (What::Number(Field::Cgroup), "socket cgroupv2", 8),
            _ => (What::Something { specific: false }, "socket", 4),
        };
        self.load(find_u32(data, 2), Loaded { what, term, width, missing: 0, mask: None, big: false });
    }

    fn fib(&mut self, data: &[u8]) {
        const TYPE: u32 = 3;
        let (what, term) = match (find_u32(data, 2), find_u32(data, 3)) {
            (Some(TYPE), Some(1)) => (What::Number(Field::SourceType), "fib saddr type"),
            (Some(TYPE), Some(2)) => (What::Number(Field::DestinationType), "fib daddr type"),
            _ => (What::Something { specific: false }, "fib"),
        };
        self.load(find_u32(data, 1), Loaded { what, term, width: 4, missing: 0, mask: None, big: false });
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
            return self.ask(Test::Opaque { specific: false }, None, None);
        };
        let test = compared(&loaded, find_u32(data, 2).unwrap_or_default(), value);
        self.ask(test, Some(&loaded), None);
    }

    fn range(&mut self, data: &[u8]) {
        let value = |kind| find(data, kind).and_then(|data| find(data, 1));
        let loaded = find_u32(data, 1).and_then(|register| self.registers.get(&register)).cloned();
        let test = match (&loaded, value(3), value(4)) {
            (
                Some(Loaded { what: What::Number(field), mask: None, missing: 0, big, .. }),
                Some(from),
                Some(to),
            ) => {
                let span = number(from, *big)..=number(to, *big);
                within(*field, vec![span], find_u32(data, 2) == Some(1))
            }
            _ => opaque(loaded.as_ref()),
        };
        self.ask(test, loaded.as_ref(), None);
    }

    fn lookup(&mut self, data: &[u8]) {
        let name = find_text(data, 1).unwrap_or_default();
        let loaded = find_u32(data, 2).and_then(|register| self.registers.get(&register)).cloned();
        let negated = find_u32(data, 5).is_some_and(|flags| flags & 1 != 0);
        let is_map = find_u32(data, 3) == Some(0);
        let elements = self.sets.get(&(self.family, self.table.to_owned(), name.clone()));
        let named = (!name.starts_with("__")).then_some(name.as_str());
        let whole =
            |loaded: &Loaded, elements: &Elements| loaded.width == elements.width && loaded.mask.is_none();
        if let Some(quote) = self.quote.as_mut().filter(|_| is_map) {
            quote.map(loaded.as_ref().map_or("", |loaded| loaded.term), named);
        }
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
                    let test = any_of(elements.keys.iter().map(of).collect(), negated);
                    self.ask(test, Some(&loaded), named);
                }
            }
            // An empty set holds nothing.
            (Some(loaded), None) if !is_map => self.ask(any_of(Vec::new(), negated), Some(&loaded), named),
            (Some(_), None) => {}
            (_, Some(elements)) if is_map => {
                let keys = elements.keys.iter();
                self.map = keys
                    .map(|all| {
                        (vec![Test::Opaque { specific: true }], all.2.clone().unwrap_or(Action::Continue))
                    })
                    .collect();
            }
            (loaded, _) => self.ask(Test::Opaque { specific: true }, loaded.as_ref(), named),
        }
    }
}
