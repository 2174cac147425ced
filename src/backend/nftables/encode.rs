//! A table as the messages that make it: what `nft -f` sends for the same text. Pure.

use crate::attribute::Attributes;

use super::expression;
use super::model::{Chain, ChainKind, HookPoint, Rule, TABLE, Table};
use super::set::{Interval, Key};
use super::wire::{self, APPEND, CREATE, INET, Message, message};
use super::{elements, model};

/// The messages that make the table where there is none.
pub fn create(table: &Table) -> Vec<Message> {
    let mut messages = vec![new(message::NEW_TABLE, 0, Attributes::new().text(wire::table::NAME, TABLE))];
    for (id, (name, set)) in (1..).zip(&table.sets) {
        messages.push(elements::new_set(name, set, id));
        messages.extend(elements::fill(name, set));
    }
    messages.extend(table.chains.iter().map(chain));
    for chain in &table.chains {
        messages.extend(chain.rules.iter().map(|rule| rule_of(chain, rule, table)));
    }
    messages
}

/// The messages that make the table in the place of what is there, or is not.
pub fn replace(table: &Table) -> Vec<Message> {
    in_the_place_of_any(create(table))
}

/// The messages that make a table, preceded by what removes the one that may be there: it comes into being if it was
/// not there, so that it can be deleted.
pub(super) fn in_the_place_of_any(messages: Vec<Message>) -> Vec<Message> {
    let mut all = vec![new(message::NEW_TABLE, 0, Attributes::new().text(wire::table::NAME, TABLE))];
    all.extend(remove());
    all.extend(messages);
    all
}

/// The message that deletes the table with all that is in it. It has to be there.
pub fn remove() -> Vec<Message> {
    let body = Attributes::new().text(wire::table::NAME, TABLE).into();
    vec![Message { kind: message::DELETE_TABLE, flags: 0, family: INET, body }]
}

/// The messages that change a set of the table. What is deleted has to be there as it is given, and what is added
/// must not touch what stays.
pub fn elements(name: &str, key: Key, add: &[Interval], delete: &[Interval]) -> Vec<Message> {
    let mut messages = elements::change(name, key, delete, message::DELETE_ELEMENTS, 0);
    messages.extend(elements::change(name, key, add, message::NEW_ELEMENTS, CREATE));
    messages
}

pub(super) fn new(kind: u16, flags: u16, body: Attributes) -> Message {
    Message { kind, flags: CREATE | flags, family: INET, body: body.into() }
}

fn chain(chain: &Chain) -> Message {
    use wire::chain::{HOOK, HOOK_NUMBER, HOOK_PRIORITY, NAME, OUTPUT, POLICY, PREROUTING, TABLE, TYPE};
    let mut body = Attributes::new().text(TABLE, model::TABLE).text(NAME, &chain.name);
    if let Some(hook) = &chain.hook {
        let number = match hook.point {
            HookPoint::Prerouting => PREROUTING,
            HookPoint::Output => OUTPUT,
            HookPoint::Other(number) => number,
        };
        let kind = match hook.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Other => "route",
        };
        let place = Attributes::new()
            .number(HOOK_NUMBER, number)
            .number(HOOK_PRIORITY, hook.priority.cast_unsigned());
        let policy = if hook.drops { wire::data::DROP } else { wire::data::ACCEPT };
        body = body.text(TYPE, kind).number(POLICY, policy.cast_unsigned()).nested(HOOK, &place);
    }
    new(message::NEW_CHAIN, 0, body)
}

fn rule_of(chain: &Chain, rule: &Rule, table: &Table) -> Message {
    use wire::rule::{CHAIN, EXPRESSIONS, TABLE, USERDATA};
    let expressions = expression::write(&rule.statements, &table.sets);
    let mut body = Attributes::new()
        .text(TABLE, model::TABLE)
        .text(CHAIN, &chain.name)
        .nested(EXPRESSIONS, &expressions);
    if let Some(comment) = &rule.comment {
        let text: Vec<u8> = comment.bytes().chain([0]).collect();
        body = body.bytes(USERDATA, &wire::userdata(&[(wire::rule::COMMENT, &text)]));
    }
    new(message::NEW_RULE, APPEND, body)
}
