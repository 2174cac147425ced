//! A sidecar that listens, but not where redirected traffic comes: that is no matter of rules or firewalls. Pure.

use super::check::{Evidence, Goal, Id, Outcome, Status};
use crate::sidecar::Channel;
use crate::status::model::{Listening, Who};

/// Lets checks fail with the address at which alone somebody listens.
pub fn explain(outcomes: &mut [Outcome], unheard: &[Listening]) {
    for outcome in outcomes {
        let (name, comes) = match outcome.check.goal {
            Goal::Port(Channel::Outbound) => ("outbound", "the loopback address"),
            // What this host sends to itself comes to the loopback address, whatever port it is for.
            Goal::Port(Channel::Inbound) if outcome.check.id == Id::Inbound => {
                ("inbound", "the addresses of this host's interfaces")
            }
            Goal::Dns => ("dns", "the loopback address"),
            Goal::Port(Channel::Inbound) | Goal::Past => continue,
        };
        let here = |of: &&Listening| (of.name, of.family) == (name, outcome.check.family);
        let Some(Listening { port, who: Who::Elsewhere(address), .. }) = unheard.iter().find(here) else {
            continue;
        };
        // Where connection tracking says that it came there, nobody was there to take it.
        let came = outcome.evidence.contains(&Evidence::Conntrack)
            && outcome.happened.starts_with("is redirected there");
        let refused = outcome.status == Status::Fail && outcome.happened.starts_with("was refused");
        if came || refused {
            outcome.status = Status::Fail;
            outcome.happened = format!("found nobody: port {port} is listened on at {address} alone");
            outcome.cause = Some(format!(
                "redirected, it comes to {comes}; let the sidecar listen there, or on all addresses"
            ));
            outcome.next = Some(format!("ss -lnptu 'sport = :{port}'"));
        }
    }
}
