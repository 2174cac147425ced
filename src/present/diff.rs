//! What would change, against the live rules.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use crate::backend::iptables::situation::Changes;
use crate::backend::iptables::transition::DiffLine;
use crate::backend::nftables::change::Line;
use crate::backend::nftables::model::TABLE;
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

/// What would change at one place beside rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The interface, or the path of the file.
    pub place: String,
    /// What it gets.
    pub add: Vec<String>,
    /// What it loses.
    pub remove: Vec<String>,
}

/// What would change beside rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beside {
    /// Addresses, by interface.
    pub addresses: Vec<Part>,
    /// Elements of configuration files.
    pub files: Vec<Part>,
    /// The record of an installation that would go.
    pub record: Option<String>,
}

impl Beside {
    fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.files.is_empty() && self.record.is_none()
    }

    /// Each with its title.
    fn parts(&self) -> impl Iterator<Item = (String, &Part)> {
        let addresses = self.addresses.iter().map(|part| (format!("addresses of {}", part.place), part));
        addresses.chain(self.files.iter().map(|part| (part.place.clone(), part)))
    }
}

/// For people: a section for each table, `+` for what would be added and `-` for what would be removed.
pub fn diff_text(changes: &Changes, native: Option<&[Line]>, beside: &Beside) -> String {
    if changes.is_empty() && native.is_none() && beside.is_empty() {
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
    if let Some(lines) = native {
        let _ = writeln!(text, "### table inet {TABLE} (nftables) ###");
        if lines.is_empty() {
            text.push_str("  the same rules in another order\n");
        }
        for line in lines {
            let _ = writeln!(text, "{}", escape(&line.to_string()));
        }
    }
    for (title, part) in beside.parts() {
        let _ = writeln!(text, "### {title} ###");
        for (sign, lines) in [('-', &part.remove), ('+', &part.add)] {
            for line in lines {
                let _ = writeln!(text, "{sign} {}", escape(line));
            }
        }
    }
    if let Some(record) = &beside.record {
        let _ = writeln!(text, "### record of the installation ###\n- {record}");
    }
    text
}

/// For programs.
pub fn diff_json(changes: &Changes, native: Option<&[Line]>, beside: &Beside) -> String {
    let mut tables: Vec<Value> = changes
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
    if let Some(lines) = native {
        let side = |added: bool| -> Vec<Value> {
            let lines = lines.iter().filter(|line| line.added == added);
            lines.map(|line| json!({ "place": line.place, "rule": line.text })).collect()
        };
        tables.push(json!({ "family": "inet", "table": TABLE, "add": side(true), "remove": side(false) }));
    }
    let parts = |what: &str, parts: &[Part]| -> Vec<Value> {
        parts.iter().map(|part| json!({ what: part.place, "add": part.add, "remove": part.remove })).collect()
    };
    super::pretty(&json!({
        "schema": 1,
        "changed": !tables.is_empty() || !beside.is_empty(),
        "tables": tables,
        "addresses": parts("interface", &beside.addresses),
        "files": parts("file", &beside.files),
        "record": beside.record,
    }))
}
