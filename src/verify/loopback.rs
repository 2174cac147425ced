//! A host whose loopback interface is down: nothing that is redirected on it can arrive. Pure.

use super::check::{Check, Goal, Id, Outcome, Status};
use crate::sidecar::Channel;

/// Why nothing is sent.
pub fn is_down(name: &str) -> String {
    format!("the loopback interface {name} is down")
}

/// What that means for a check, without a packet.
pub fn judge(check: Check, name: &str) -> Outcome {
    let over_loopback = matches!(check.goal, Goal::Port(Channel::Outbound) | Goal::Dns)
        || matches!(check.id, Id::Own | Id::Localhost | Id::Passthrough);
    let (status, cause) = if over_loopback {
        let cause =
            format!("{name} is down, and what stays on this host, or is redirected on it, goes over {name}");
        (Status::Fail, Some(cause))
    } else {
        (Status::NotTested, None)
    };
    let next = cause.as_ref().map(|_| format!("ip link set {name} up"));
    Outcome { check, status, happened: is_down(name), evidence: Vec::new(), cause, next }
}

#[cfg(test)]
mod tests {
    use super::super::check::Probe;
    use super::*;
    use crate::plan::Family;

    #[test]
    fn what_goes_over_it_fails_and_nothing_passes() {
        let outcome = |id, goal| {
            let (target, expected) = (String::new(), String::new());
            let probe = Probe::Nothing(String::new());
            judge(Check { id, family: Family::V4, target, probe, goal, expected }, "lo")
        };
        for (id, goal) in [
            (Id::Outbound, Goal::Port(Channel::Outbound)),
            (Id::Own, Goal::Port(Channel::Inbound)),
            (Id::Dns, Goal::Dns),
            (Id::Localhost, Goal::Past),
            (Id::Passthrough, Goal::Past),
        ] {
            let outcome = outcome(id, goal);
            assert_eq!(outcome.status, Status::Fail, "{id:?}");
            assert_eq!(outcome.next.as_deref(), Some("ip link set lo up"));
        }
        for (id, goal) in [(Id::Inbound, Goal::Port(Channel::Inbound)), (Id::Exclusion, Goal::Past)] {
            assert_eq!(outcome(id, goal).status, Status::NotTested, "{id:?}");
        }
    }
}
