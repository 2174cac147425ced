//! What `tproxy status` found, for programs; `docs/status.md` says what everything means.

use serde_json::{Value, json};

use crate::plan::Family;
use crate::status::model::{
    Ahead, Compared, Difference, Finding, Hits, Listening, Program, Report, Resolvers, Saved, Verdict, Who,
};
use crate::status::words::time;

/// For programs.
pub fn status_json(report: &Report) -> String {
    let hits = report.hits;
    super::pretty(&json!({
        "schema": 1,
        "status": verdict(report.verdict),
        "backend": report.backend,
        "variant": report.variant,
        "installedBy": report.installer.as_ref().map(|installer| json!({
            "program": match installer.program {
                Program::Tproxy => "tproxy",
                Program::Unrecorded | Program::UnrecordedTable => "unknown",
            },
            "version": installer.version,
            "since": installer.since.map(time),
        })),
        "comparedWith": compared(report.compared),
        "families": report.families.iter().map(|family| {
            let mut value = json!({ "family": name(family.family), "rules": family.rules });
            add_hits(&mut value, &family.hits);
            value
        }).collect::<Vec<_>>(),
        "ports": {
            "outbound": report.ports.outbound,
            "inbound": report.ports.inbound,
            "dns": report.ports.dns,
        },
        "sidecar": report.sidecar.as_ref().map(|sidecar| json!({ "uid": sidecar.uid, "name": sidecar.name })),
        "redirected": redirected(&hits),
        "excluded": hits.excluded,
        "invalidDropped": hits.invalid_dropped,
        "listeners": report.listeners.iter().map(listening).collect::<Vec<_>>(),
        "resolvers": report.resolvers.as_ref().map(resolvers),
        "differences": report.differences.iter().map(difference).collect::<Vec<_>>(),
        "ahead": report.ahead.iter().map(ahead).collect::<Vec<_>>(),
        "meetSidecar": report.meets.iter().map(|met| json!({
            "what": met.what,
            "dead": met.dead,
            "fix": met.fix,
        })).collect::<Vec<_>>(),
        "trial": report.on_trial.map(|trial| json!({ "state": trial.state, "until": trial.until.map(time) })),
        "problems": report.problems.iter().map(finding).collect::<Vec<_>>(),
        "notes": report.notes.iter().map(finding).collect::<Vec<_>>(),
        "saved": report.saved.iter().map(saved).collect::<Vec<_>>(),
    }))
}

/// The word for a verdict.
pub fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Installed => "installed",
        Verdict::Differs => "differs",
        Verdict::NotInstalled => "not-installed",
    }
}

fn compared(compared: Compared) -> Option<&'static str> {
    match compared {
        Compared::Given => Some("given"),
        Compared::Recorded => Some("recorded"),
        Compared::Inferred => Some("inferred"),
        Compared::Nothing => None,
    }
}

fn name(family: Family) -> String {
    family.to_string().to_lowercase()
}

fn redirected(hits: &Hits) -> Value {
    json!({ "outbound": hits.outbound, "inbound": hits.inbound, "dns": hits.dns })
}

fn add_hits(value: &mut Value, hits: &Hits) {
    value["redirected"] = redirected(hits);
    value["excluded"] = json!(hits.excluded);
    value["invalidDropped"] = json!(hits.invalid_dropped);
}

fn listening(listening: &Listening) -> Value {
    let mut value = json!({
        "name": listening.name,
        "protocol": if listening.name == "dns" { "udp" } else { "tcp" },
        "port": listening.port,
        "family": name(listening.family),
        "listens": match listening.who {
            Who::Sidecar => "sidecar",
            Who::Other { .. } => "other",
            Who::Elsewhere(_) => "elsewhere",
            Who::Nobody => "nobody",
            Who::Unknown => "unknown",
        },
    });
    match &listening.who {
        Who::Other { address, uid, process } => {
            value["address"] = json!(address.to_string());
            value["uid"] = json!(uid);
            value["process"] = json!(process);
        }
        Who::Elsewhere(address) => value["address"] = json!(address.to_string()),
        _ => {}
    }
    value
}

fn resolvers(resolvers: &Resolvers) -> Value {
    json!({
        "file": resolvers.file,
        "asCaptured": resolvers.as_captured(),
        "current": resolvers.current.as_ref().ok(),
        "error": resolvers.current.as_ref().err(),
        "captured": resolvers.captured,
        "notCaptured": resolvers.not_captured,
        "gone": resolvers.gone,
    })
}

fn difference(difference: &Difference) -> Value {
    json!({
        "kind": difference.kind.name(),
        "family": difference.family.map(name),
        "variant": difference.variant,
        "table": difference.table,
        "chain": difference.chain,
        "set": difference.set,
        "rule": difference.rule,
    })
}

fn ahead(ahead: &Ahead) -> Value {
    json!({
        "whose": ahead.whose,
        "family": name(ahead.family),
        "hook": ahead.hook,
        "place": ahead.place,
        "rule": ahead.rule,
        "traffic": ahead.traffic,
        "takes": if ahead.all { "all" } else { "part" },
        "certain": !ahead.unsure,
        "packets": ahead.packets,
        "fix": ahead.fix,
    })
}

/// Where rules come back from.
pub(super) fn saved(saved: &Saved) -> Value {
    let lines = saved.lines.as_ref();
    json!({
        "file": saved.file,
        "firstLine": lines.ok().map(|(first, _)| first),
        "lastLine": lines.ok().map(|(_, last)| last),
        "error": lines.err(),
    })
}

/// What was found, and what to do.
pub(super) fn finding(finding: &Finding) -> Value {
    json!({ "what": finding.what, "fix": finding.fix })
}
