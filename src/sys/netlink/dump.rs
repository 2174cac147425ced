//! What is in `nf_tables`, in the kernel's own words, to compare two moments: chains, rules and sets with the handles
//! that tell an object from an equal one that took its place.
//!
//! Numbers are those of the kernel's `include/uapi/linux/netfilter/nf_tables.h`.

use std::io;

use super::list;
use super::message::{Message, NLM_F_DUMP, Request, attributes, nest};

const NEWCHAIN: u16 = 0x0a03;
const NEWRULE: u16 = 0x0a06;
const NEWSET: u16 = 0x0a09;
/// `struct nfgenmsg`.
const HEADER: usize = 4;

const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_COUNTERS: u16 = 8;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
/// `NF_ACCEPT`, as the kernel sends it.
const ACCEPT: [u8; 4] = 1u32.to_be_bytes();

/// Every object that does something, without counters, in no order that means anything. Tables are left out, and so
/// are chains that a hook calls and whose policy is to accept: the tools of iptables make those by looking, and none
/// of them takes them away. Empty where the kernel has no `nf_tables`.
///
/// # Errors
/// The kernel's; without `CAP_NET_ADMIN` that is "operation not permitted".
pub fn objects() -> io::Result<Vec<Vec<u8>>> {
    let mut objects = Vec::new();
    for kind in [NEWCHAIN, NEWRULE, NEWSET] {
        // What asks for a list has the number after that of what is listed.
        let request = Request::new(kind + 1, NLM_F_DUMP, &[0; HEADER], &[]);
        objects.extend(list(&request, |message| object(kind, message))?);
    }
    objects.sort();
    Ok(objects)
}

fn object(wanted: u16, message: &Message<'_>) -> Option<Vec<u8>> {
    if message.kind != wanted {
        return None;
    }
    let (family, body) = (*message.payload.first()?, message.payload.get(HEADER..)?);
    let mut bytes = wanted.to_be_bytes().to_vec();
    bytes.push(family);
    let has = |kind| attributes(body).any(|(of, _)| of == kind);
    let accepts = attributes(body).any(|(of, value)| of == CHAIN_POLICY && value == ACCEPT);
    if wanted == NEWCHAIN && has(CHAIN_HOOK) && accepts {
        return None;
    }
    for (kind, value) in attributes(body) {
        match (wanted, kind) {
            (NEWCHAIN, CHAIN_COUNTERS) => {}
            (NEWRULE, RULE_EXPRESSIONS) => bytes.extend(without_counts(value)),
            _ => bytes.extend(nest(&[(kind, value)])),
        }
    }
    Some(bytes)
}

/// A rule's expressions; of a counter only that it is there.
fn without_counts(expressions: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (_, expression) in attributes(expressions) {
        let name = attributes(expression).find(|(kind, _)| *kind == EXPRESSION_NAME).map(|(_, name)| name);
        let kept = match name {
            Some(b"counter\0") => b"counter\0",
            _ => expression,
        };
        bytes.extend(nest(&[(LIST_ELEMENT, kept)]));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Message<'_> {
        Message { kind, flags: 0, sequence: 1, payload }
    }

    fn rule(packets: u8, port: u8) -> Vec<u8> {
        let counter = nest(&[(EXPRESSION_NAME, b"counter\0"), (2, &[packets; 8])]);
        let match_ = nest(&[(EXPRESSION_NAME, b"cmp\0"), (2, &[port])]);
        let expressions = nest(&[(LIST_ELEMENT, &match_), (LIST_ELEMENT, &counter)]);
        [vec![2, 0, 0, 0], nest(&[(1, b"nat\0"), (3, &[7; 8]), (RULE_EXPRESSIONS, &expressions)])].concat()
    }

    #[test]
    fn counters_do_not_tell_rules_apart_and_all_else_does() {
        let of = |rule: &[u8]| object(NEWRULE, &message(NEWRULE, rule)).unwrap();
        assert_eq!(of(&rule(1, 22)), of(&rule(2, 22)));
        assert_ne!(of(&rule(1, 22)), of(&rule(1, 23)));
        let mut six = rule(1, 22);
        six[0] = 10;
        assert_ne!(of(&six), of(&rule(1, 22)));
        assert_eq!(object(NEWCHAIN, &message(NEWRULE, &six)), None);
    }

    #[test]
    fn chains_that_only_accept_are_nothing() {
        let chain = |attributes: &[(u16, &[u8])]| {
            let payload = [vec![2, 0, 0, 0], nest(attributes)].concat();
            object(NEWCHAIN, &message(NEWCHAIN, &payload))
        };
        let name: (u16, &[u8]) = (3, b"INPUT\0");
        assert_eq!(chain(&[name, (CHAIN_HOOK, &[0; 4]), (CHAIN_POLICY, &ACCEPT)]), None);
        assert!(chain(&[name, (CHAIN_HOOK, &[0; 4]), (CHAIN_POLICY, &[0; 4])]).is_some());
        assert_eq!(chain(&[name, (CHAIN_COUNTERS, &[1])]), chain(&[name, (CHAIN_COUNTERS, &[2])]));
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            for kind in [NEWCHAIN, NEWRULE, NEWSET] {
                object(kind, &message(kind, &bytes));
            }
        }
    }
}
