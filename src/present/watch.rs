//! The lines of `tproxy status --watch`.

use serde_json::json;

use crate::status::change::Summary;
use crate::status::model::{DifferenceKind, Report, Verdict};
use crate::status::words::time;
use crate::text::escape;

/// A change, for people.
pub fn change_text(at: u64, summary: &Summary) -> String {
    let who = match (&summary.program, summary.pid) {
        (Some(program), Some(pid)) => format!("{} (pid {pid})", escape(program)),
        (Some(program), None) => escape(program),
        (None, Some(pid)) => format!("process {pid}"),
        (None, None) => "somebody".to_owned(),
    };
    let mut did = Vec::new();
    let mut count = |what: &str, all: usize, ours: usize| {
        if all > 0 {
            let ours = if ours > 0 { format!(" ({ours} of them ours)") } else { String::new() };
            did.push(format!("{what} {all} {}{ours}", if all == 1 { "rule" } else { "rules" }));
        }
    };
    count("removed", summary.removed, summary.ours_removed);
    count("added", summary.added, summary.ours_added);
    if did.is_empty() {
        did.push(format!("changed {} other objects", summary.others));
    }
    let tables: Vec<_> = summary.tables.iter().map(|table| escape(table)).collect();
    let place = if tables.is_empty() { String::new() } else { format!(" in {}", tables.join(", ")) };
    let lost = if summary.lost { "; more was changed than the kernel could tell" } else { "" };
    let command = summary.command.as_ref().map_or(String::new(), |command| format!(": {}", escape(command)));
    format!("{} {}: {who} {}{place}{lost}{command}\n", time(at), summary.variant, did.join(" and "))
}

/// A change, for programs: one object on one line.
pub fn change_json(at: u64, summary: &Summary) -> String {
    let value = json!({
        "schema": 1,
        "event": "change",
        "time": time(at),
        "variant": summary.variant,
        "program": summary.program,
        "pid": summary.pid,
        "command": summary.command,
        "rules": {
            "added": summary.added,
            "removed": summary.removed,
            "oursAdded": summary.ours_added,
            "oursRemoved": summary.ours_removed,
        },
        "otherObjects": summary.others,
        "tables": summary.tables,
        "lost": summary.lost,
    });
    format!("{value}\n")
}

/// How things stand, on one line.
pub fn state_text(at: u64, report: &Report) -> String {
    format!("{} now: {}\n", time(at), in_short(report))
}

/// The same for programs.
pub fn state_json(at: u64, report: &Report) -> String {
    let value = json!({
        "schema": 1,
        "event": "state",
        "time": time(at),
        "status": super::status_json::verdict(report.verdict),
        "differences": report.differences.len(),
        "ahead": report.ahead.len(),
    });
    format!("{value}\n")
}

/// What of a report is worth a line when it changes.
pub fn in_short(report: &Report) -> String {
    match report.verdict {
        Verdict::Installed => return "installed, as wanted".to_owned(),
        Verdict::NotInstalled => return "NOT INSTALLED".to_owned(),
        Verdict::Differs => {}
    }
    let mut parts = Vec::new();
    let kinds =
        [DifferenceKind::Missing, DifferenceKind::Extra, DifferenceKind::Reordered, DifferenceKind::Foreign];
    for kind in kinds {
        let count = report.differences.iter().filter(|difference| difference.kind == kind).count();
        if count > 0 {
            parts.push(format!("{count} {}", kind.name()));
        }
    }
    if !report.ahead.is_empty() {
        parts.push(format!("{} ahead of ours", report.ahead.len()));
    }
    if !report.listeners.iter().all(|listening| listening.who.may_be_reached()) {
        parts.push("the sidecar does not listen".to_owned());
    }
    if parts.is_empty() { "NOT AS WANTED".to_owned() } else { format!("NOT AS WANTED: {}", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_who_and_what() {
        let summary = Summary {
            variant: "nft",
            program: Some("nft\u{1b}".into()),
            pid: Some(7),
            command: Some("nft flush ruleset".into()),
            removed: 24,
            ours_removed: 23,
            added: 1,
            tables: ["ip nat".to_owned(), "ip raw".to_owned()].into(),
            ..Summary::default()
        };
        assert_eq!(
            change_text(0, &summary),
            "1970-01-01T00:00:00Z nft: nft\\u{1b} (pid 7) removed 24 rules (23 of them ours) and added 1 rule in \
             ip nat, ip raw: nft flush ruleset\n"
        );
        let json: serde_json::Value = serde_json::from_str(&change_json(0, &summary)).expect("JSON");
        assert_eq!((json["pid"].as_u64(), json["rules"]["oursRemoved"].as_u64()), (Some(7), Some(23)));
        let legacy = Summary { variant: "legacy", others: 2, ..Summary::default() };
        assert_eq!(
            change_text(0, &legacy),
            "1970-01-01T00:00:00Z legacy: somebody changed 2 other objects\n"
        );
    }
}
