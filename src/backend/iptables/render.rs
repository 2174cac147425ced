//! A plan as the file that kumactl would hand to `iptables-restore`: what `--dry-run` prints. Pure.

use crate::plan::{ChainRef, Family, FamilyPlan, PlacedRule, Placement, Plan, Table, TablePlan};

use super::syntax::{Style, rule_args};

/// The dry run of a plan, in kumactl's layout; `comments` is asked for each family.
pub fn dry_run(plan: &Plan, style: Style, comments: impl Fn(Family) -> bool) -> String {
    let mut sections = Vec::new();
    for family in &plan.families {
        let rules = family_file(family, style, comments(family.family));
        sections.push(format!("### {} ###\n\n{}\n", family.family, rules.trim()));
    }
    sections.join("\n")
}

/// One family's restore file.
pub fn family_file(plan: &FamilyPlan, style: Style, comments: bool) -> String {
    let mut tables: Vec<&TablePlan> = plan.tables.iter().collect();
    tables.sort_by_key(|table| printed(table.table));
    let tables: Vec<String> = tables.into_iter().map(|table| table_block(table, style, comments)).collect();
    let mut text = tables.join(match style {
        Style::Short => "\n",
        Style::Long => "\n\n",
    });
    text.push('\n');
    text
}

/// kumactl prints the tables in this order, which is not the one in which they are committed.
fn printed(table: Table) -> u8 {
    match table {
        Table::Raw => 0,
        Table::Nat => 1,
        Table::Mangle => 2,
    }
}

fn table_block(table: &TablePlan, style: Style, comments: bool) -> String {
    let header = format!("* {}", table.table.name());
    let declare = match style {
        Style::Short => "-N",
        Style::Long => "--new-chain",
    };
    let chains: Vec<String> = table
        .chains
        .iter()
        .filter_map(|(chain, _)| match chain {
            ChainRef::Own(chain) => Some(format!("{declare} {}", chain.name())),
            ChainRef::Builtin(_) => None,
        })
        .collect();
    let rules: Vec<String> =
        table.chains.iter().flat_map(|(chain, rules)| rule_lines(*chain, rules, style, comments)).collect();

    let mut lines = vec![header];
    let blocks = [("# Custom Chains:", chains), ("# Rules:", rules)];
    for (title, block) in blocks {
        if block.is_empty() {
            continue;
        }
        if style == Style::Long {
            lines.push(String::new());
            lines.push(title.to_owned());
        }
        lines.extend(block);
    }
    if style == Style::Long {
        lines.push(String::new());
    }
    lines.push("COMMIT".to_owned());
    lines.join("\n")
}

/// The lines that put a chain's rules in place. Rules for the head are numbered from 1, so that they come to stand
/// before everybody else's, in the order written.
pub fn rule_lines(chain: ChainRef, rules: &[PlacedRule], style: Style, comments: bool) -> Vec<String> {
    let (append, insert) = match style {
        Style::Short => ("-A", "-I"),
        Style::Long => ("--append", "--insert"),
    };
    let mut position = 0;
    rules
        .iter()
        .map(|PlacedRule { placement, rule }| {
            let args = rule_args(rule, comments, style);
            match placement {
                Placement::Head => {
                    position += 1;
                    format!("{insert} {} {position}{args}", chain.name())
                }
                Placement::Tail => format!("{append} {}{args}", chain.name()),
            }
        })
        .collect()
}
