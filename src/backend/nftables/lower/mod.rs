//! From a plan to the table that does the same. Pure.
//!
//! A plan is said in iptables' terms: one chain a hook that everybody shares, and rules at its head or its tail. Here
//! every hook has base chains of our own instead. Priority does what the place in the chain did: the tail comes after
//! everybody's address translation at the usual priority, the head before it.

mod family;
mod fold;
mod join;
mod names;
pub mod sentence;

use crate::config::values::Protocol;
use crate::plan::{self, BuiltinChain, ChainRef, Family, OwnChain, Placement, Plan, Target};

use self::fold::Draft;
use self::join::fold;
use self::names::Sets;
use super::model::{
    Chain, ChainKind, End, Hook, HookPoint, Interface, Rule, Statement, Table, Test, Verdict,
};

/// Right after iptables' raw table (-300, `NF_IP_PRI_RAW`) and everybody else who switches connection tracking off at
/// its priority, whenever that was written.
const ZONES: i32 = -299;
/// iptables' priority of its mangle table (`NF_IP_PRI_MANGLE`).
const MANGLE: i32 = -150;
/// Before translation of destinations at its usual priority, -100 (`NF_IP_PRI_NAT_DST`).
pub const NAT_FIRST: i32 = -105;
/// After it.
pub const NAT_LAST: i32 = -95;
/// The chain that lets everybody's traffic pass but the sidecar's.
pub const OTHERS: &str = "pass_others";

/// The table that does what `plan` says; with `comments`, every rule says why it is there.
pub fn table(plan: &Plan, comments: bool) -> Table {
    let mut lowering = Lowering { comments, sets: Sets::default(), others: None };
    let mut chains = Vec::new();
    for (table, kind) in [
        (plan::Table::Raw, ChainKind::Filter),
        (plan::Table::Mangle, ChainKind::Filter),
        (plan::Table::Nat, ChainKind::Nat),
    ] {
        for builtin in [BuiltinChain::Prerouting, BuiltinChain::Output] {
            for part in parts(plan, table, builtin) {
                let hook = Hook { kind, point: point(builtin), priority: part.priority, drops: false };
                let only = match part.families.as_slice() {
                    [(only, _)] => Some(*only),
                    _ => None,
                };
                let mut rules = lowering.rules(part.families);
                if table == plan::Table::Raw {
                    rules.insert(0, lowering.skip_untracked());
                }
                if let Some(only) = only {
                    rules.insert(0, lowering.skip_other_than(only));
                }
                chains.push(Chain { name: part.name, hook: Some(hook), rules });
            }
        }
    }
    for own in OwnChain::ALL {
        let chain = ChainRef::Own(own);
        let drafts = |family| {
            let rules = rules_of(family, plan::Table::Nat, chain).iter();
            fold(rules.map(|placed| Draft::new(plan::Table::Nat, chain, &placed.rule)))
        };
        let families: Vec<_> = plan.families.iter().map(|family| (family.family, drafts(family))).collect();
        chains.push(Chain { name: own_name(own).to_owned(), hook: None, rules: lowering.rules(families) });
    }
    if let Some(rules) = lowering.others.take() {
        chains.push(Chain { name: OTHERS.to_owned(), hook: None, rules });
    }
    Table { sets: lowering.sets.into_all(), chains }
}

/// The name of a chain of ours within the table.
pub const fn own_name(chain: OwnChain) -> &'static str {
    match chain {
        OwnChain::Inbound => "inbound",
        OwnChain::Outbound => "outbound",
        OwnChain::InboundRedirect => "inbound_redirect",
        OwnChain::OutboundRedirect => "outbound_redirect",
    }
}

/// Whether the table that does what some plan says can have a chain of this name.
pub fn is_own_chain(name: &str) -> bool {
    const BASE: [&str; 6] =
        ["zones_prerouting", "zones_output", "invalid_prerouting", "invalid_output", "prerouting", "output"];
    let base = name.strip_suffix("_first").unwrap_or(name);
    name == OTHERS || BASE.contains(&base) || OwnChain::ALL.iter().any(|chain| own_name(*chain) == name)
}

/// Whether it can have a set of this name.
pub fn is_own_set(name: &str) -> bool {
    fold::NAMES.iter().any(|beginning| name.starts_with(beginning))
}

const fn point(chain: BuiltinChain) -> HookPoint {
    match chain {
        BuiltinChain::Prerouting => HookPoint::Prerouting,
        BuiltinChain::Output => HookPoint::Output,
    }
}

/// One base chain: what each family has of it, joined to lists.
struct Part {
    name: String,
    priority: i32,
    families: Vec<(Family, Vec<Draft>)>,
}

/// The base chains that stand for one chain of iptables; none where no family has a rule in it. A list is one rule
/// for each of its entries in a plan, and there can be many thousands, so drafts are joined as they are made.
fn parts(plan: &Plan, table: plan::Table, builtin: BuiltinChain) -> Vec<Part> {
    let chain = ChainRef::Builtin(builtin);
    let rules = |family, placement| {
        let rules = rules_of(family, table, chain).iter().filter(move |placed| placed.placement == placement);
        rules.map(|placed| &placed.rule)
    };
    let drafts = |family, placement| rules(family, placement).map(move |rule| Draft::new(table, chain, rule));
    let folded = |placement| -> Vec<(Family, Vec<Draft>)> {
        plan.families.iter().map(|of| (of.family, fold(drafts(of, placement)))).collect()
    };
    let has = |placement| plan.families.iter().any(|family| rules(family, placement).next().is_some());
    let point = match builtin {
        BuiltinChain::Prerouting => "prerouting",
        BuiltinChain::Output => "output",
    };
    let (name, early, late) = match table {
        plan::Table::Raw => (format!("zones_{point}"), ZONES, ZONES),
        plan::Table::Mangle => (format!("invalid_{point}"), MANGLE, MANGLE),
        plan::Table::Nat => (point.to_owned(), NAT_FIRST, NAT_LAST),
    };
    match (has(Placement::Head), has(Placement::Tail)) {
        (false, false) => Vec::new(),
        (false, true) => vec![Part { name, priority: late, families: folded(Placement::Tail) }],
        (true, false) => vec![Part { name, priority: early, families: folded(Placement::Head) }],
        (true, true) => {
            let last = plan.families.iter().map(|of| {
                let tail: Vec<Draft> = drafts(of, Placement::Tail).collect();
                // What the head lets pass does not reach the tail in a shared chain; here it has to be said twice.
                let passes = |draft: &Draft| {
                    draft.target == Target::Return && tail.iter().any(|after| draft.can_meet(after))
                };
                let head = drafts(of, Placement::Head).filter(passes);
                (of.family, fold(head.chain(tail.iter().cloned())))
            });
            let last = Part { name: name.clone(), priority: late, families: last.collect() };
            let acts = |family| rules(family, Placement::Head).any(|rule| rule.target != Target::Return);
            if !plan.families.iter().any(acts) {
                return vec![last];
            }
            let families = folded(Placement::Head);
            vec![Part { name: format!("{name}_first"), priority: early, families }, last]
        }
    }
}

fn rules_of(family: &plan::FamilyPlan, table: plan::Table, chain: ChainRef) -> &[plan::PlacedRule] {
    let found = family.tables.iter().find(|plan| plan.table == table);
    found
        .and_then(|plan| plan.chains.iter().find(|(of, _)| *of == chain))
        .map(|(_, rules)| rules.as_slice())
        .unwrap_or_default()
}

/// What is shared while chains are lowered.
struct Lowering {
    comments: bool,
    sets: Sets,
    /// The rules of [`OTHERS`], once somebody jumps there.
    others: Option<Vec<Rule>>,
}

impl Lowering {
    /// The rules of one chain, both families' in one list.
    fn rules(&mut self, families: Vec<(Family, Vec<Draft>)>) -> Vec<Rule> {
        let mut lowered = families.into_iter().map(|(family, drafts)| {
            (family, drafts.into_iter().filter_map(|draft| self.rule(family, draft)).collect::<Vec<_>>())
        });
        match (lowered.next(), lowered.next()) {
            (Some((v4, first)), Some((v6, second))) => family::merge((v4, first), (v6, second)),
            (Some((only, rules)), None) => {
                rules.into_iter().map(|rule| family::guard_addresses(only, rule)).collect()
            }
            (None, _) => Vec::new(),
        }
    }

    /// In a chain for one family, what lets the other's packets pass.
    fn skip_other_than(&self, family: Family) -> Rule {
        let other = match family {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        };
        Rule {
            statements: vec![
                Statement::Family(other),
                Statement::Counter,
                Statement::Verdict(Verdict::Accept),
            ],
            comment: self.comment(sentence::not_redirected(other)),
        }
    }

    /// Before rules about zones: a zone makes the kernel track what somebody left untracked, while iptables' target
    /// `CT` keeps its hands off such a packet (`xt_ct_target`).
    fn skip_untracked(&self) -> Rule {
        Rule {
            statements: vec![Statement::Untracked, Statement::Counter, Statement::Verdict(Verdict::Accept)],
            comment: self.comment(sentence::STAYS_UNTRACKED),
        }
    }

    /// `None` for a rule that needs no equivalent: Docker's chain comes by itself, by its priority.
    fn rule(&mut self, family: Family, draft: Draft) -> Option<Rule> {
        let mut statements = Vec::new();
        let mut others = false;
        for condition in draft.conditions {
            match condition.statement(family, &mut self.sets) {
                fold::Lowered::Statement(statement) => statements.push(statement),
                fold::Lowered::NotOwner(statement) => {
                    others = true;
                    if self.others.is_none() {
                        self.others = Some(self.pass_others(statement));
                    }
                }
                fold::Lowered::Nothing => {}
            }
        }
        statements.sort_by_key(rank);
        statements.dedup();
        let action = match draft.target {
            // A user test never holds for a packet without a socket, so "anybody else" takes a chain of its own.
            _ if others => Statement::Verdict(Verdict::Jump(OTHERS.to_owned())),
            // In a base chain this means its policy, which accepts.
            Target::Return => Statement::Verdict(Verdict::Return),
            Target::Jump(chain) => Statement::Verdict(Verdict::Jump(own_name(chain).to_owned())),
            Target::DockerOutput => return None,
            Target::Redirect(port) => Statement::Redirect(port),
            Target::CtZone(zone) => Statement::CtZone(zone),
            Target::Drop => Statement::Verdict(Verdict::Drop),
            Target::Log { prefix, level } => Statement::Log { prefix: prefix.to_owned(), level },
        };
        statements.extend([Statement::Counter, action]);
        Some(Rule { statements, comment: self.comment(draft.why) })
    }

    /// The rules of [`OTHERS`].
    fn pass_others(&self, sidecar: Statement) -> Vec<Rule> {
        let returns = vec![sidecar, Statement::Counter, Statement::Verdict(Verdict::Return)];
        let accepts = vec![Statement::Counter, Statement::Verdict(Verdict::Accept)];
        vec![
            Rule { statements: returns, comment: self.comment(sentence::SIDECAR_GOES_ON) },
            Rule { statements: accepts, comment: self.comment(sentence::OTHERS_PASS) },
        ]
    }

    fn comment(&self, why: &'static str) -> Option<String> {
        self.comments.then(|| why.to_owned())
    }
}

/// The order of conditions within a rule: the cheapest first, and each where nft would put what it implies. The rules
/// about zones see every packet, and to most of them the protocol says at once that they are about others; looking up
/// an address first took a twentieth of the new connections that a host can make.
fn rank(statement: &Statement) -> u8 {
    match statement {
        Statement::Interface(..) => 0,
        Statement::Protocol(_) => 1,
        Statement::Port(..) => 2,
        Statement::Family(_) => 3,
        Statement::Address(End::Source, _) => 4,
        Statement::Address(End::Destination, _) => 5,
        Statement::Owner(_) => 6,
        _ => 7,
    }
}

/// An interface as the configuration writes it.
fn interface(pattern: &str) -> Interface {
    match pattern.strip_suffix('+') {
        Some(name) => Interface { name: name.to_owned(), prefix: true },
        None => Interface { name: pattern.to_owned(), prefix: false },
    }
}

/// Whether two protocols can be those of one packet.
fn same_protocol(one: Option<Protocol>, other: Option<Protocol>) -> bool {
    one.is_none() || other.is_none() || one == other
}

/// The test that one value stands for.
fn is<T>(value: T, negated: bool) -> Test<T> {
    if negated { Test::IsNot(value) } else { Test::Is(value) }
}
