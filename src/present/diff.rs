//! What would change, against the live rules.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use crate::backend::iptables::situation::Changes;
use crate::backend::iptables::transition::DiffLine;
use crate::text::escape;

impl fmt::Display for DiffLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.added { '+' } else { '-' };
        if self.args.is_empty() {
            write!(f, "{sign} -N {}", self.chain)
        } else {
            write!(f, "{sign} -A {} {}", self.chain, escape(&self.args))
        }
    }
}

/// For people: a section for each table, `+` for what would be added and `-` for what would be removed.
pub fn diff_text(changes: &Changes) -> String {
    if changes.is_empty() {
        return "no difference: nothing would be written\n".to_owned();
    }
    // Writing to a String cannot fail.
    let mut text = String::new();
    for ((variant, family), tables) in changes {
        for change in tables {
            let _ = writeln!(text, "### {family} {} ({variant}) ###", change.table.name());
            if change.diff.is_empty() {
                text.push_str("  the same rules in another order\n");
            }
            for line in &change.diff {
                let _ = writeln!(text, "{line}");
            }
        }
    }
    text
}

/// For programs.
pub fn diff_json(changes: &Changes) -> String {
    let tables: Vec<Value> = changes
        .iter()
        .flat_map(|((variant, family), tables)| {
            tables.iter().map(move |change| {
                let lines = |added: bool| -> Vec<Value> {
                    let wanted = change.diff.iter().filter(|line| line.added == added);
                    wanted.map(|line| json!({ "chain": line.chain, "rule": line.args })).collect()
                };
                json!({
                    "family": family.to_string().to_lowercase(),
                    "variant": variant.to_string(),
                    "table": change.table.name(),
                    "add": lines(true),
                    "remove": lines(false),
                })
            })
        })
        .collect();
    super::pretty(&json!({ "schema": 1, "changed": !changes.is_empty(), "tables": tables }))
}
