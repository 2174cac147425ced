//! From the table that is there to the one that is wanted: nothing, other elements of its sets, or another table.
//! Pure.

use std::collections::BTreeMap;
use std::fmt;

use super::decode::Observed;
use super::model::Table;
use super::replay;
use super::set::{Interval, Key, Set};
use super::text;
use super::wire::Message;

/// What our table shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// This, and nothing else.
    New(Table),
    /// What was there once, whatever others had put into it.
    Former(Observed),
}

impl Wanted {
    /// As far as it can be said in our words.
    pub fn table(&self) -> &Table {
        match self {
            Self::New(table) => table,
            Self::Former(observed) => &observed.table,
        }
    }
}

/// What has to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Nothing,
    /// There is no table yet.
    Create(Table),
    /// It takes the place of the one that is there.
    Replace(Table),
    /// Only lists differ; the rules stay, and what they counted.
    Elements(Vec<SetChange>),
    /// These messages make it in the place of the one that may be there.
    Restore(Vec<Message>),
    /// None shall be there.
    Remove,
}

/// How one set changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetChange {
    /// Its name.
    pub set: String,
    /// Of what it is.
    pub key: Key,
    /// Not in it yet.
    pub add: Vec<Interval>,
    /// In it, and not wanted.
    pub delete: Vec<Interval>,
}

/// A line of a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Added, or else removed.
    pub added: bool,
    /// The chain's or set's name.
    pub place: String,
    /// The rule or element as nft says it; empty for the chain or set itself.
    pub text: String,
}

impl Change {
    /// From what is there to what is wanted; `whole` if sets cannot be changed alone.
    pub fn to(now: Option<&Observed>, wanted: Option<&Wanted>, whole: bool) -> Self {
        match (now, wanted) {
            (now, Some(Wanted::New(wanted))) => match now {
                // What cannot be said in our words is not what is wanted, whatever the rest is.
                Some(now) if !now.is(wanted) && (whole || !now.foreign.is_empty()) => {
                    Self::Replace(wanted.clone())
                }
                now => Self::between(now.map(|now| &now.table), Some(wanted)),
            },
            (Some(now), Some(Wanted::Former(former)))
                if now.handles == former.handles && now.foreign == former.foreign =>
            {
                match Self::between(Some(&now.table), Some(&former.table)) {
                    change @ Self::Elements(_) if !whole => change,
                    Self::Nothing => Self::Nothing,
                    _ => Self::Restore(replay::again(&former.told)),
                }
            }
            (_, Some(Wanted::Former(former))) => Self::Restore(replay::again(&former.told)),
            (now, None) => Self::between(now.map(|now| &now.table), None),
        }
    }

    /// From `now` to `wanted`.
    pub fn between(now: Option<&Table>, wanted: Option<&Table>) -> Self {
        match (now, wanted) {
            (None, None) => Self::Nothing,
            (Some(_), None) => Self::Remove,
            (None, Some(wanted)) => Self::Create(wanted.clone()),
            (Some(now), Some(wanted)) if now == wanted => Self::Nothing,
            (Some(now), Some(wanted)) => {
                elements(now, wanted).map_or_else(|| Self::Replace(wanted.clone()), Self::Elements)
            }
        }
    }

    /// Whether nothing has to happen.
    pub fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.added { '+' } else { '-' };
        write!(f, "{sign} {}", self.place)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}

/// The changes of sets, if nothing else differs.
fn elements(now: &Table, wanted: &Table) -> Option<Vec<SetChange>> {
    let kinds = |table: &Table| -> Vec<(String, Key)> {
        table.sets.iter().map(|(name, set)| (name.clone(), set.key)).collect()
    };
    if now.chains != wanted.chains || kinds(now) != kinds(wanted) {
        return None;
    }
    let changes = wanted.sets.iter().filter_map(|(name, set)| {
        let was = now.sets.get(name)?;
        (was != set).then(|| SetChange {
            set: name.clone(),
            key: set.key,
            add: missing(set, was),
            delete: missing(was, set),
        })
    });
    Some(changes.collect())
}

/// What is in `one` and not in `other`; both are sorted.
fn missing(one: &Set, other: &Set) -> Vec<Interval> {
    one.intervals
        .iter()
        .filter(|interval| other.intervals.binary_search(interval).is_err())
        .copied()
        .collect()
}

/// What differs, for a reader; what others put there too.
pub fn differences(now: Option<&Observed>, wanted: Option<&Wanted>) -> Vec<Line> {
    let mut lines = lines(now.map(|now| &now.table), wanted.map(Wanted::table));
    let was = now.map(|now| now.foreign.as_slice()).unwrap_or_default();
    let is = match wanted {
        Some(Wanted::Former(former)) => former.foreign.as_slice(),
        _ => &[],
    };
    let mut say = |added, places: Vec<&String>| {
        lines.extend(places.into_iter().map(|place| Line {
            added,
            place: place.clone(),
            text: String::new(),
        }));
    };
    say(false, left_over(was, is));
    say(true, left_over(is, was));
    lines
}

/// What differs, for a reader: chain by chain and set by set. A rule that only moved is in neither list.
pub fn lines(now: Option<&Table>, wanted: Option<&Table>) -> Vec<Line> {
    let (now, wanted) = (now.map(described).unwrap_or_default(), wanted.map(described).unwrap_or_default());
    let mut places: Vec<&String> = now.keys().chain(wanted.keys()).collect();
    places.sort_unstable();
    places.dedup();
    let nothing = Vec::new();
    let mut lines = Vec::new();
    for place in places {
        let (was, is) = (now.get(place), wanted.get(place));
        let mut say =
            |added, text: &str| lines.push(Line { added, place: place.clone(), text: text.to_owned() });
        match (was.is_some(), is.is_some()) {
            (true, false) => say(false, ""),
            (false, true) => say(true, ""),
            _ => {}
        }
        let (was, is) = (was.unwrap_or(&nothing), is.unwrap_or(&nothing));
        for text in left_over(was, is) {
            say(false, text);
        }
        for text in left_over(is, was) {
            say(true, text);
        }
    }
    lines
}

/// Every chain and set by name, what it holds as nft says it.
fn described(table: &Table) -> BTreeMap<String, Vec<String>> {
    let chains = table.chains.iter().map(|chain| {
        let hook = chain.hook.iter().map(ToString::to_string);
        (format!("chain {}", chain.name), hook.chain(chain.rules.iter().map(ToString::to_string)).collect())
    });
    let sets = table.sets.iter().map(|(name, set)| {
        let elements = set.intervals.iter().map(|&interval| text::element(set.key, interval)).collect();
        (format!("set {name}"), elements)
    });
    chains.chain(sets).collect()
}

/// What of `one` is left when everything of `other` is taken away, each as often as it is there.
fn left_over<'a>(one: &'a [String], other: &[String]) -> Vec<&'a String> {
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    for text in other {
        *counts.entry(text).or_default() += 1;
    }
    let not_taken = |text: &&String| match counts.get_mut(*text) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    one.iter().filter(not_taken).collect()
}

#[cfg(test)]
mod tests {
    use crate::config::values::PortRange;

    use super::*;

    fn table(ports: &[&str]) -> Table {
        let intervals = ports.iter().map(|text| text.parse::<PortRange>().unwrap().into());
        let set = Set::new(Key::Port, intervals);
        Table { sets: BTreeMap::from([("ports".to_owned(), set)]), chains: Vec::new() }
    }

    #[test]
    fn another_port_is_another_element_and_nothing_else() {
        let change = Change::between(Some(&table(&["80", "90-95"])), Some(&table(&["80", "90-94"])));
        let Change::Elements(changes) = change else { panic!("{change:?}") };
        let interval = |first, last| Interval { first, last };
        assert_eq!(changes[0].add, [interval(90, 94)]);
        assert_eq!(changes[0].delete, [interval(90, 95)]);
    }

    #[test]
    fn a_list_more_is_another_table() {
        let none = Table::default();
        assert!(matches!(Change::between(Some(&none), Some(&table(&["80"]))), Change::Replace(_)));
        assert_eq!(Change::between(Some(&none), Some(&none)), Change::Nothing);
        assert_eq!(Change::between(Some(&none), None), Change::Remove);
    }

    #[test]
    fn differences_name_the_place() {
        let lines = lines(Some(&table(&["80"])), Some(&table(&["80", "81"])));
        // 80 and 81 are one interval.
        let said: Vec<_> = lines.iter().map(|l| (l.added, l.place.as_str(), l.text.as_str())).collect();
        assert_eq!(said, [(false, "set ports", "80"), (true, "set ports", "80-81")]);
    }
}
