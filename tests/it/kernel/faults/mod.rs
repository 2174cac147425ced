//! Whatever goes wrong, the machine ends as it was before or as it was meant to be, never in between.

mod blind;
mod borrowed;
mod damaged;
mod environment;
mod hangs;
mod kills;
mod leftovers;
mod locks;
mod names;
mod native;
mod passing;
mod records;
mod refusals;
mod rooms;
mod scarce;
mod silent;
mod sweep;
mod switch;
mod tools;
mod unreadable;
mod users;
mod waits;
mod xtables;

use crate::support::firewall;
use crate::support::snapshot::Snapshot;
use crate::support::wrappers::{Call, Fault, Wrappers};
use crate::support::{Backend, Family, Lab, Run, Variant};

/// What is there before, and what is meant to be there then.
const FIRST: [&str; 3] = ["--redirect-dns", "--exclude-outbound-ports", "7001"];
const SECOND: [&str; 4] =
    ["--redirect-all-dns-traffic", "--exclude-inbound-ports", "7002", "--drop-invalid-packets"];

/// Where a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// With other people's rules alone.
    Clean,
    /// With another configuration installed.
    Installed,
}

impl Start {
    const BOTH: [Self; 2] = [Self::Clean, Self::Installed];

    /// Brings the machine there, wherever it is.
    #[track_caller]
    fn prepare(self, lab: &Lab, backend: impl Into<Backend>) {
        let backend = backend.into();
        lab.uninstall(backend, &[]).succeeds();
        if self == Self::Installed {
            lab.install(backend, &FIRST).succeeds();
        }
    }
}

/// Somebody else's rules, so that tables are there and can be harmed.
fn their_rules(variant: Variant) {
    for family in Family::BOTH {
        let text = "*nat\n[3:180] -A OUTPUT -p tcp -m tcp --dport 4000 -j RETURN\n[1:60] -A PREROUTING -p udp -j ACCEPT\nCOMMIT\n\
            *raw\n[2:120] -A OUTPUT -p udp -m udp --dport 4789 -j CT --notrack\nCOMMIT\n\
            *mangle\n[5:300] -A PREROUTING -p tcp -m tcp --dport 4001 -j ACCEPT\nCOMMIT\n";
        firewall::restore(variant, family, text);
    }
}

/// An install of the second configuration with wrapped tools.
fn install_second(lab: &Lab, tools: &Wrappers, more: &[&str]) -> Run {
    lab.program()
        .args(["install", "--kuma-dp-user", "kuma-dp", "--sleep-between-retries", "1ms"])
        .args(tools.flags())
        .args(SECOND)
        .args(more)
        .run()
}

/// The calls that such an install makes when nothing goes wrong.
fn calls(lab: &Lab, variant: Variant, start: Start) -> Vec<Call> {
    start.prepare(lab, variant);
    let tools = Wrappers::new(variant);
    install_second(lab, &tools, &[]).succeeds();
    let calls = tools.calls();
    assert!(calls.iter().any(|(tool, _)| tool == "ip6tables-restore"), "{calls:?}");
    calls
}

/// The machine is exactly as it was before, or has exactly the rules that were wanted.
#[track_caller]
fn assert_not_between(run: &Run, before: &Snapshot, wanted: &Snapshot) {
    let now = Snapshot::take();
    if run.code == Some(0) {
        now.without_counters().assert_unchanged_since(wanted);
    } else {
        assert!(run.code.is_some(), "died: {run}");
        now.assert_put_back_since(before);
    }
}

/// What the machine looks like once the second configuration is there.
fn wanted(lab: &Lab, variant: Variant) -> Snapshot {
    lab.install(variant, &SECOND).succeeds();
    Snapshot::take().without_counters()
}

/// A fault for each call, one at a time.
fn at_each_call(lab: &Lab, variant: Variant, fault: &Fault, check: impl Fn(&Wrappers, Start, &Call)) {
    for start in Start::BOTH {
        for call in calls(lab, variant, start) {
            start.prepare(lab, variant);
            let tools = Wrappers::new(variant).at(&call, fault);
            check(&tools, start, &call);
        }
    }
}
