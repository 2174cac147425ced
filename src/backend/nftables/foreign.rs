//! What in our table is not ours, and what is left without it. Pure.

use super::decode::Observed;
use super::lower;
use super::model::{Chain, Rule, Statement, Table, Test, Verdict};

/// What others put into the table, each in words: it goes when the table becomes another one.
pub fn intruders(observed: &Observed) -> Vec<String> {
    let table = &observed.table;
    let commented = table.chains.iter().flat_map(|chain| &chain.rules).any(|rule| rule.comment.is_some());
    let mut found = observed.foreign.clone();
    for chain in &table.chains {
        let ours = lower::is_own_chain(&chain.name);
        if !ours {
            let hook = chain.hook.iter().map(|hook| format!(" {{ {hook} }}"));
            found.push(format!("chain {}{}", chain.name, hook.collect::<String>()));
        }
        let is_ours = |rule: &&Rule| ours && (looks_like_ours(rule, commented) || is_former(chain, rule));
        let foreign = chain.rules.iter().filter(|rule| !is_ours(rule));
        found.extend(foreign.map(|rule| format!("chain {}: {rule}", chain.name)));
    }
    let sets = table.sets.keys().filter(|name| !lower::is_own_set(name));
    found.extend(sets.map(|name| format!("set {name}")));
    found
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

/// Every rule of ours says why it is there, if any does, and counts before it does something.
fn looks_like_ours(rule: &Rule, commented: bool) -> bool {
    let known = !rule.statements.iter().any(|statement| matches!(statement, Statement::Foreign(_)));
    let shape =
        rule.lets_pass().is_some() || matches!(rule.statements.as_slice(), [.., Statement::Counter, _]);
    known && shape && (!commented || rule.comment.is_some())
}

/// Whether it is a rule of ours as it was when those of this chain had no comment.
pub fn is_former(chain: &Chain, rule: &Rule) -> bool {
    let former = matches!(
        rule.statements.as_slice(),
        [Statement::Owner(Test::Is(_)), Statement::Verdict(Verdict::Return)]
            | [Statement::Counter, Statement::Verdict(Verdict::Accept)]
    );
    chain.name == lower::OTHERS && former
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::lower::OTHERS;
    use super::super::set::{Key, Set};
    use super::*;

    #[test]
    fn a_rule_without_comment_among_commented_ones_is_not_ours() {
        let rule = |comment: Option<&str>| Rule {
            statements: vec![Statement::Counter, Statement::Verdict(Verdict::Return)],
            comment: comment.map(str::to_owned),
        };
        let chain = |name: &str, rules| Chain { name: name.to_owned(), hook: None, rules };
        let of = |chains| {
            intruders(&Observed { table: Table { chains, ..Table::default() }, ..Observed::default() })
        };
        let mixed = of(vec![chain("outbound", vec![rule(None), rule(Some("ours"))])]);
        assert_eq!(mixed, ["chain outbound: counter return"]);
        assert_eq!(of(vec![chain("outbound", vec![rule(None)])]), [""; 0]);
        let accepts =
            Rule { statements: vec![Statement::Counter, Statement::Verdict(Verdict::Accept)], comment: None };
        let former = of(vec![
            chain("outbound", vec![rule(Some("ours")), accepts.clone()]),
            chain(OTHERS, vec![rule(None), accepts]),
        ]);
        assert_eq!(former, ["chain outbound: counter accept", "chain pass_others: counter return"]);
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
