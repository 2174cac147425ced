//! What the kernel tells of our table, as a table. Pure, and what is read may be any bytes at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::attribute::{attributes, find, find_text, find_u32};

use super::model::{Chain, ChainKind, Hook, HookPoint, Rule, TABLE, Table};
use super::set::{Interval, Key, Set};
use super::statement;
use super::wire::{self, INET, Message, message};

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// As far as it can be said in our words.
    pub table: Table,
    /// The port of the socket of the process that alone may change it (the flag `owner`).
    pub owned_by: Option<u32>,
    /// What a rule counted, by the place of its chain in the table and its own in the chain.
    pub counts: BTreeMap<(usize, usize), Count>,
    /// What cannot be said in our words, except for expressions, which are in the rules: each with a name.
    pub foreign: Vec<String>,
    /// The numbers of all things in it. Where they are the same, so is everything but the elements of sets.
    pub handles: Vec<u64>,
    /// All that the kernel told of it, from which it can be made again; empty if it was not the kernel.
    pub told: Arc<[Message]>,
}

/// What a counter counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes of these.
    pub bytes: u64,
}

impl Observed {
    /// Whether it is exactly this.
    pub fn is(&self, wanted: &Table) -> bool {
        self.foreign.is_empty() && self.table == *wanted
    }
}

/// Puts together what the kernel tells of a table, its chains, its rules, its sets and their elements. What is of
/// other tables is passed over.
pub fn decode(messages: &[Message]) -> Observed {
    let mut observed = Observed::default();
    let of = |kind: u16| {
        let ours = messages.iter().filter(|message| is_ours(message));
        ours.filter(move |message| message.kind == kind).map(|message| message.body.as_slice())
    };
    of(message::NEW_TABLE).for_each(|body| observed.read_table(body));
    of(message::NEW_CHAIN).for_each(|body| observed.read_chain(body));
    let mut ends = Ends::new();
    of(message::NEW_SET).for_each(|body| observed.read_set(body, &mut ends));
    of(message::NEW_ELEMENTS).for_each(|body| observed.read_elements(body, &mut ends));
    for (name, (key, ends)) in ends {
        observed.table.sets.insert(name, Set::new(key, intervals(key, ends)));
    }
    of(message::NEW_OBJECT).for_each(|body| observed.read_object(body));
    of(message::NEW_FLOWTABLE).for_each(|body| observed.read_flowtable(body));
    of(message::NEW_RULE).for_each(|body| observed.read_rule(body));
    observed
}

/// Whether it is about our table, whose name is the first attribute of everything.
pub(super) fn is_ours(message: &Message) -> bool {
    message.family == INET && find_text(&message.body, wire::table::NAME).as_deref() == Some(TABLE)
}

/// Of each set: its elements, each with whether an interval begins there.
type Ends = BTreeMap<String, (Key, Vec<(u128, bool)>)>;

impl Observed {
    fn note_handle(&mut self, body: &[u8], kind: u16) {
        let handle = find(body, kind).and_then(|handle| handle.first_chunk());
        self.handles.extend(handle.map(|bytes| u64::from_be_bytes(*bytes)));
    }

    fn read_table(&mut self, body: &[u8]) {
        self.note_handle(body, wire::table::HANDLE);
        let flags = find_u32(body, wire::table::FLAGS).unwrap_or_default();
        if flags & wire::table::DORMANT != 0 {
            self.foreign.push("the flag \"dormant\", which turns all of its rules off".into());
        }
        self.owned_by = find_u32(body, wire::table::OWNER);
        let userdata = find(body, wire::table::USERDATA).unwrap_or_default();
        if let Some(comment) = wire::find_userdata(userdata, wire::table::COMMENT) {
            self.foreign.push(format!("the table's comment \"{}\"", text(comment)));
        }
    }

    fn read_chain(&mut self, body: &[u8]) {
        use wire::chain::{HANDLE, HOOK, HOOK_NUMBER, HOOK_PRIORITY, NAME, OUTPUT, POLICY, PREROUTING, TYPE};
        self.note_handle(body, HANDLE);
        let name = find_text(body, NAME).unwrap_or_default();
        let accept = wire::data::ACCEPT.cast_unsigned();
        let drops = find_u32(body, POLICY).is_some_and(|policy| policy != accept);
        let hook = find(body, HOOK).map(|hook| Hook {
            kind: match find_text(body, TYPE).as_deref() {
                Some("filter") => ChainKind::Filter,
                Some("nat") => ChainKind::Nat,
                _ => ChainKind::Other,
            },
            point: match find_u32(hook, HOOK_NUMBER).unwrap_or(u32::MAX) {
                PREROUTING => HookPoint::Prerouting,
                OUTPUT => HookPoint::Output,
                other => HookPoint::Other(other),
            },
            priority: find_u32(hook, HOOK_PRIORITY).unwrap_or_default().cast_signed(),
            drops,
        });
        self.table.chains.push(Chain { name, hook, rules: Vec::new() });
    }

    fn read_rule(&mut self, body: &[u8]) {
        use wire::rule::{CHAIN, COMMENT, EXPRESSIONS, HANDLE, USERDATA};
        self.note_handle(body, HANDLE);
        let name = find_text(body, CHAIN).unwrap_or_default();
        let place = self.table.chains.iter().position(|chain| chain.name == name);
        let Some((place, chain)) = place.and_then(|at| Some((at, self.table.chains.get_mut(at)?))) else {
            self.foreign.push(format!("a rule of a chain {name} that is not there"));
            return;
        };
        let (statements, count) = statement::read(find(body, EXPRESSIONS).unwrap_or_default());
        let comment = find(body, USERDATA).and_then(|userdata| wire::find_userdata(userdata, COMMENT));
        if let Some(count) = count {
            self.counts.insert((place, chain.rules.len()), count);
        }
        chain.rules.push(Rule { statements, comment: comment.map(text) });
    }

    fn read_set(&mut self, body: &[u8], ends: &mut Ends) {
        use wire::set::{ANONYMOUS, FLAGS, HANDLE, INTERVAL, KEY_LENGTH, KEY_TYPE, NAME};
        self.note_handle(body, HANDLE);
        let name = find_text(body, NAME).unwrap_or_default();
        let number = |kind| find_u32(body, kind).unwrap_or_default();
        match Key::of(number(KEY_TYPE), number(KEY_LENGTH)) {
            Some(key) if number(FLAGS) == INTERVAL => {
                ends.insert(name, (key, Vec::new()));
            }
            // It is part of a rule, and never one of ours.
            _ if number(FLAGS) & ANONYMOUS != 0 => {}
            _ => self.foreign.push(format!("set {name}: another type or other flags than ours")),
        }
    }

    fn read_elements(&mut self, body: &[u8], ends: &mut Ends) {
        let Some(name) = find_text(body, wire::element::SET) else { return };
        let Some((key, ends)) = ends.get_mut(&name) else { return };
        let list = find(body, wire::element::LIST).unwrap_or_default();
        let more = format!("set {name}: elements with a comment, or with more than a value");
        if attributes(list).any(|(_, element)| has_more(element)) && !self.foreign.contains(&more) {
            self.foreign.push(more);
        }
        read_ends(list, *key, ends);
    }

    fn read_object(&mut self, body: &[u8]) {
        use wire::object::{HANDLE, NAME, TYPE};
        const KINDS: [(u32, &str); 8] = [
            (1, "counter"),
            (2, "quota"),
            (3, "ct helper"),
            (4, "limit"),
            (7, "ct timeout"),
            (8, "secmark"),
            (9, "ct expectation"),
            (10, "synproxy"),
        ];
        self.note_handle(body, HANDLE);
        let number = find_u32(body, TYPE);
        let kind =
            KINDS.into_iter().find(|(kind, _)| Some(*kind) == number).map_or("object", |(_, name)| name);
        self.foreign.push(format!("{kind} {}", find_text(body, NAME).unwrap_or_default()));
    }

    fn read_flowtable(&mut self, body: &[u8]) {
        use wire::object::{FLOWTABLE_HANDLE, NAME};
        self.note_handle(body, FLOWTABLE_HANDLE);
        self.foreign.push(format!("flowtable {}", find_text(body, NAME).unwrap_or_default()));
    }
}

/// Whether an element is more than one end of an interval.
fn has_more(element: &[u8]) -> bool {
    use wire::element::{COMMENT, MORE, USERDATA};
    let userdata = find(element, USERDATA).unwrap_or_default();
    attributes(element).any(|(kind, _)| MORE.contains(&kind))
        || wire::find_userdata(userdata, COMMENT).is_some()
}

fn read_ends(list: &[u8], key: Key, ends: &mut Vec<(u128, bool)>) {
    use wire::element::{FLAGS, INTERVAL_END, KEY};
    for (_, element) in attributes(list) {
        let value = find(element, KEY).and_then(|key| find(key, wire::data::VALUE));
        let Some(value) = value.filter(|value| value.len() == key.width()) else { continue };
        let number = value.iter().fold(0, |number, byte| number << 8 | u128::from(*byte));
        let end = find_u32(element, FLAGS).unwrap_or_default() & INTERVAL_END != 0;
        ends.push((number, !end));
    }
}

/// The intervals between first values, marked so, and ends.
fn intervals(key: Key, mut ends: Vec<(u128, bool)>) -> Vec<Interval> {
    // Where one interval ends as another begins, the end comes first.
    ends.sort_unstable();
    let mut intervals = Vec::new();
    let mut open = None;
    for (number, starts) in ends {
        match (open, starts) {
            (None, true) => open = Some(number),
            (Some(first), false) => {
                // An end is greater than a beginning that was sorted before it.
                intervals.push(Interval { first, last: number.saturating_sub(1) });
                open = None;
            }
            _ => {}
        }
    }
    intervals.extend(open.map(|first| Interval { first, last: key.max() }));
    intervals
}

fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}
