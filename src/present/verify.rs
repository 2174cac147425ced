//! What was verified, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::text::escape;
use crate::verify::check::{Outcome, Report, Status};

/// The longest line, in characters.
const WIDTH: usize = 100;

/// For people: a line for each check, what is wrong at length, and a sum.
pub fn verify_text(report: &Report) -> String {
    let mut text = String::new();
    for outcome in &report.outcomes {
        let check = &outcome.check;
        let line = format!(
            "{}  {:<11}  {:<10}  {}",
            check.family,
            check.id.name(),
            outcome.status.name(),
            escape(&check.target)
        );
        text.push_str(&cut(&line));
        text.push('\n');
    }
    for (outcome, more) in alike(report) {
        text.push('\n');
        text.push_str(&at_length(outcome, more));
    }
    let tested = match report.method {
        crate::verify::Method::Listeners => "tproxy listened on the sidecar's ports",
        crate::verify::Method::Counters => {
            "the sidecar's ports are in use; connection tracking told, and the rules' counters"
        }
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "\n{} passed, {} failed, {} not tested (method {}: {tested})",
        report.count(Status::Pass),
        report.count(Status::Fail),
        report.count(Status::NotTested),
        report.method.name(),
    );
    text
}

/// What did not pass, each with how many more there are of which the same would be said: of a thousand excluded ports
/// that a firewall is in the way of, one tells as much as all.
fn alike(report: &Report) -> Vec<(&Outcome, usize)> {
    let mut kinds: Vec<(&Outcome, usize)> = Vec::new();
    let mut known = BTreeMap::new();
    for outcome in report.outcomes.iter().filter(|outcome| outcome.status != Status::Pass) {
        let check = &outcome.check;
        let about = (check.id, check.family, &check.expected, outcome.status.name());
        let at =
            *known.entry((about, &outcome.happened, &outcome.cause, &outcome.next)).or_insert(kinds.len());
        match kinds.get_mut(at) {
            Some((_, more)) => *more += 1,
            None => kinds.push((outcome, 0)),
        }
    }
    kinds
}

fn at_length(outcome: &Outcome, more: usize) -> String {
    let check = &outcome.check;
    let status = match outcome.status {
        Status::Fail => "FAILED",
        _ => "not tested",
    };
    let more = if more > 0 { format!(", and {more} more like it") } else { String::new() };
    let mut text = wrapped(status, &format!("{} {}: {}{more}", check.family, check.id.name(), check.target));
    if outcome.status == Status::NotTested {
        text.push_str(&wrapped("  why", &outcome.happened));
        if let Some(next) = &outcome.next {
            text.push_str(&wrapped("  next", next));
        }
        return text;
    }
    text.push_str(&wrapped("  expected", &check.expected));
    text.push_str(&wrapped("  happened", &outcome.happened));
    for (name, words) in [("  cause", &outcome.cause), ("  next", &outcome.next)] {
        if let Some(words) = words {
            text.push_str(&wrapped(name, words));
        }
    }
    text
}

/// A name and a text beside it, in lines of at most [`WIDTH`].
fn wrapped(name: &str, words: &str) -> String {
    const INDENT: usize = 12;
    let mut text = String::new();
    let mut line = format!("{name:<INDENT$}");
    let mut fresh = true;
    for word in escape(words).split(' ') {
        if !fresh && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(line.trim_end());
            text.push('\n');
            line = " ".repeat(INDENT);
            fresh = true;
        }
        if !fresh {
            line.push(' ');
        }
        line.push_str(word);
        fresh = false;
    }
    text.push_str(line.trim_end());
    text.push('\n');
    text
}

fn cut(line: &str) -> String {
    if line.chars().count() <= WIDTH {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(WIDTH - 1).collect();
    short.push('…');
    short
}

/// For programs.
pub fn verify_json(report: &Report) -> String {
    super::pretty(&verify_value(report))
}

/// The same as part of something larger.
pub fn verify_value(report: &Report) -> Value {
    let checks: Vec<Value> = report
        .outcomes
        .iter()
        .map(|outcome| {
            json!({
                "id": outcome.check.id.name(),
                "family": outcome.check.family.to_string().to_lowercase(),
                "target": outcome.check.target,
                "status": outcome.status.name(),
                "expected": outcome.check.expected,
                "happened": outcome.happened,
                "evidence": outcome.evidence.iter().map(|evidence| evidence.name()).collect::<Vec<_>>(),
                "cause": outcome.cause,
                "next": outcome.next,
            })
        })
        .collect();
    json!({ "schema": 1, "method": report.method.name(), "checks": checks })
}
