//! What in our table is not ours, and what is left without it. Pure.

use super::decode::Observed;
use super::lower::{self, sentence};
use super::model::{Rule, Statement, Table, Test};

/// What others put into the table, each in words: it goes when the table becomes another one.
pub fn intruders(observed: &Observed) -> Vec<String> {
    let table = &observed.table;
    let commented = is_commented(table);
    let mut found = observed.foreign.clone();
    for chain in &table.chains {
        let ours = lower::is_own_chain(&chain.name);
        if !ours {
            let hook = chain.hook.iter().map(|hook| format!(" {{ {hook} }}"));
            found.push(format!("chain {}{}", chain.name, hook.collect::<String>()));
        } else if chain.hook.as_ref().is_some_and(|hook| hook.drops) {
            found.push(format!("chain {}: policy drop", chain.name));
        }
        let foreign = chain.rules.iter().filter(|rule| !ours || !looks_like_ours(rule, commented));
        found.extend(foreign.map(|rule| format!("chain {}: {rule}", chain.name)));
    }
    let sets = table.sets.keys().filter(|name| !lower::is_own_set(name));
    found.extend(sets.map(|name| format!("set {name}")));
    found
}

/// Whether an installation made it, going by the names of its chains. A table of our name without any of them is
/// somebody else's.
pub fn is_installation(table: &Table) -> bool {
    table.chains.iter().any(|chain| lower::is_own_chain(&chain.name))
}

/// What of a table can be written in our words.
pub(super) fn known(table: &Table) -> Table {
    let writable = |rule: &Rule| {
        rule.statements.iter().all(|statement| match statement {
            Statement::Foreign(_) => false,
            Statement::Address(_, Test::In(set) | Test::NotIn(set))
            | Statement::Port(_, Test::In(set) | Test::NotIn(set))
            | Statement::Interface(_, Test::In(set) | Test::NotIn(set))
            | Statement::Owner(Test::In(set) | Test::NotIn(set)) => table.sets.contains_key(set),
            _ => true,
        })
    };
    let mut known = table.clone();
    for chain in &mut known.chains {
        chain.rules.retain(writable);
    }
    known
}

/// Every rule of ours counts before it does something, and says why it is there unless none does.
fn looks_like_ours(rule: &Rule, commented: bool) -> bool {
    let known = !rule.statements.iter().any(|statement| matches!(statement, Statement::Foreign(_)));
    let shape =
        rule.lets_pass().is_some() || matches!(rule.statements.as_slice(), [.., Statement::Counter, _]);
    known && shape && is_in_our_words(rule, commented)
}

/// Whether the rules of ours in a table say why they are there.
pub fn is_commented(table: &Table) -> bool {
    let mut rules = table.chains.iter().flat_map(|chain| &chain.rules);
    rules.any(|rule| rule.comment.as_deref().is_some_and(sentence::is_ours))
}

/// Whether a rule says what one of ours would say in a table where those do, or do not, say why.
pub fn is_in_our_words(rule: &Rule, commented: bool) -> bool {
    match &rule.comment {
        Some(comment) => commented && sentence::is_ours(comment),
        None => !commented,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::lower::OTHERS;
    use super::super::model::{Chain, ChainKind, Hook, HookPoint, Verdict};
    use super::super::set::{Key, Set};
    use super::*;

    #[test]
    fn a_rule_in_other_words_than_ours_is_not_ours() {
        const OURS: &str = "Traffic to localhost is left alone.";
        let rule = |comment: Option<&str>| Rule {
            statements: vec![Statement::Counter, Statement::Verdict(Verdict::Return)],
            comment: comment.map(str::to_owned),
        };
        let of = |comments: &[Option<&str>]| {
            let rules = comments.iter().map(|comment| rule(*comment)).collect();
            let chains = vec![Chain { name: "outbound".to_owned(), hook: None, rules }];
            intruders(&Observed { table: Table { chains, ..Table::default() }, ..Observed::default() })
        };
        assert_eq!(of(&[Some(OURS), Some(OURS)]), [""; 0]);
        assert_eq!(of(&[None, None]), [""; 0]);
        assert_eq!(of(&[None, Some(OURS)]), ["chain outbound: counter return"]);
        let theirs = ["chain outbound: counter return comment \"ssh\""];
        assert_eq!(of(&[Some(OURS), Some("ssh")]), theirs);
        assert_eq!(of(&[None, Some("ssh")]), theirs);
    }

    #[test]
    fn a_policy_is_told_as_it_is() {
        let hook = |number, drops| {
            let point = HookPoint::Other(number);
            Some(Hook { kind: ChainKind::Filter, point, priority: 0, drops })
        };
        let chain = |name: &str, hook| Chain { name: name.to_owned(), hook, rules: Vec::new() };
        let chains =
            vec![chain("a", hook(1, true)), chain("b", hook(5, false)), chain("output", hook(1, true))];
        let table = Table { chains, ..Table::default() };
        assert_eq!(
            intruders(&Observed { table, ..Observed::default() }),
            [
                "chain a { type filter hook input priority 0; policy drop; }",
                "chain b { type filter hook ingress priority 0; policy accept; }",
                "chain output: policy drop"
            ]
        );
    }

    #[test]
    fn without_a_chain_of_ours_a_table_is_no_installation() {
        let of = |name: &str| {
            let chain = Chain { name: name.to_owned(), hook: None, rules: Vec::new() };
            is_installation(&Table { chains: vec![chain], ..Table::default() })
        };
        assert!(of("inbound") && of(OTHERS) && of("output_first") && !of("mine"));
        assert!(!is_installation(&Table::default()));
    }

    #[test]
    fn what_no_plan_has_is_not_ours() {
        let counting = |statement| Rule { statements: vec![Statement::Counter, statement], comment: None };
        let drops = || counting(Statement::Verdict(Verdict::Drop));
        let chain = |name: &str, rules| Chain { name: name.to_owned(), hook: None, rules };
        let bare = Rule { statements: vec![Statement::Verdict(Verdict::Drop)], comment: None };
        let table = Table {
            chains: vec![chain("theirs", vec![drops()]), chain("inbound", vec![drops(), bare])],
            sets: BTreeMap::from(
                ["banned", "excluded_inbound_ports"].map(|name| (name.to_owned(), Set::new(Key::Port, []))),
            ),
        };
        let observed = Observed { table, foreign: vec!["counter hits".into()], ..Observed::default() };
        assert_eq!(
            intruders(&observed),
            [
                "counter hits",
                "chain theirs",
                "chain theirs: counter drop",
                "chain inbound: drop",
                "set banned"
            ]
        );
    }
}
