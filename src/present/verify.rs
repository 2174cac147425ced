//! What was verified, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::both::once;
use crate::status::model::Finding;
use crate::text::{WIDTH, escape, hanging};
use crate::verify::check::{Outcome, Report, Status};

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
    for block in blocks(alike(report)) {
        text.push('\n');
        text.push_str(&at_length(&block));
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

/// Kinds of one cause; without a cause, of which the same is told.
fn blocks(kinds: Vec<(&Outcome, usize)>) -> Vec<Vec<(&Outcome, usize)>> {
    let about = |outcome: &Outcome| {
        let Outcome { status, happened, cause, next, .. } = outcome;
        let told = cause.is_none().then(|| (happened.clone(), next.clone()));
        (status.name(), cause.clone(), told)
    };
    let mut blocks: Vec<Vec<(&Outcome, usize)>> = Vec::new();
    let mut known = BTreeMap::new();
    for kind in kinds {
        let at = *known.entry(about(kind.0)).or_insert(blocks.len());
        match blocks.get_mut(at) {
            Some(block) => block.push(kind),
            None => blocks.push(vec![kind]),
        }
    }
    blocks
}

fn at_length(block: &[(&Outcome, usize)]) -> String {
    /// So many different ones are told of all that happened.
    const SHOWN: usize = 3;
    let Some((first, _)) = block.first() else { return String::new() };
    let status = match first.status {
        Status::Fail => "FAILED",
        _ => "not tested",
    };
    let mut text = String::new();
    for (nth, (Outcome { check, .. }, more)) in block.iter().enumerate() {
        let more = if *more > 0 { format!(", and {more} more like it") } else { String::new() };
        let name = if nth == 0 { status } else { "" };
        text.push_str(&wrapped(
            name,
            &format!("{} {}: {}{more}", check.family, check.id.name(), check.target),
        ));
    }
    let mut told = |name: &str, part: &dyn Fn(&Outcome) -> Option<String>| {
        let all = block.iter().filter_map(|(outcome, _)| part(outcome));
        let all = once(all.map(Finding::note));
        for (nth, words) in all.iter().take(SHOWN).enumerate() {
            text.push_str(&wrapped(if nth == 0 { name } else { "" }, &words.what));
        }
    };
    if first.status == Status::NotTested {
        told("  why", &|outcome| Some(outcome.happened.clone()));
    } else {
        told("  expected", &|outcome| Some(outcome.check.expected.clone()));
        told("  happened", &|outcome| Some(outcome.happened.clone()));
        told("  cause", &|outcome| outcome.cause.clone());
    }
    told("  next", &|outcome| outcome.next.clone());
    text
}

/// A name and a text beside it.
fn wrapped(name: &str, words: &str) -> String {
    const INDENT: usize = 12;
    format!("{name:<INDENT$}{}\n", hanging(&escape(words), INDENT))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Family;
    use crate::verify::Method;
    use crate::verify::check::{Check, Goal, Id, Probe};

    fn failed(family: Family, id: Id, port: u16, cause: Option<&str>) -> Outcome {
        let check = Check {
            id,
            family,
            target: "somewhere".into(),
            probe: Probe::Nothing(String::new()),
            goal: Goal::Past,
            expected: format!("arrives at port {port}"),
        };
        let happened = format!("was not sent: UID 0 has port {port}");
        let (evidence, next) = (Vec::new(), Some(format!("ss -lnptu 'sport = :{port}'")));
        Outcome { check, status: Status::Fail, happened, evidence, cause: cause.map(str::to_owned), next }
    }

    #[test]
    fn one_cause_is_one_block_that_lists_the_checks() {
        let mut outcomes = Vec::new();
        for family in Family::BOTH {
            for (id, port) in [(Id::Outbound, 15001), (Id::Inbound, 15006), (Id::Own, 15006)] {
                outcomes.push(failed(family, id, port, Some("another user has it")));
            }
        }
        outcomes.push(failed(Family::V4, Id::Dns, 15053, None));
        let text = verify_text(&Report { method: Method::Counters, outcomes });
        assert_eq!(text.matches("FAILED").count(), 2, "{text}");
        assert_eq!(text.matches("cause     another user has it").count(), 1, "{text}");
        let block = "FAILED      IPv4 outbound: somewhere\n            IPv4 inbound: somewhere\n            IPv4 self: somewhere\n";
        assert!(text.contains(block), "{text}");
        let next = "  next      ss -lnptu 'sport = :15001'\n            ss -lnptu 'sport = :15006'\n";
        assert!(text.contains(next), "{text}");
        assert_eq!(text.matches("UID 0 has port 15006").count(), 1, "{text}");
    }
}
