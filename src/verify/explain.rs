//! Failures explained by what the rules look like. Pure.

use std::collections::BTreeMap;

use super::check::{Id, Method, Outcome, Status};
use super::judge::{Bench, FIREWALL, LOST, Next};
use crate::plan::Family;

/// What the rules of a family look like, where somebody looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rules {
    /// None of them is there.
    NotInstalled,
    /// These are missing.
    Missing(Vec<String>),
    /// All are there, and these of somebody else's among them.
    Foreign(Vec<String>),
    /// All are there, and these with them that should not be.
    Extra(Vec<String>),
    /// All are there, but not where they should be, or these of somebody else's come first.
    Displaced(Vec<String>),
    /// None of them is about these DNS servers of the host.
    Outdated(Vec<String>),
    /// All are there as wanted, and a foreign one drops what they redirect as it comes in.
    Shut {
        /// The foreign rule, and its chain.
        rule: String,
        /// The line that lets it in.
        line: String,
    },
    /// As wanted.
    AsWanted,
}

impl Bench<'_> {
    /// Lets failures say what the rules say. `about` tells what they look like to the checks of an ID; a thousand of
    /// them ask once.
    pub fn explain_all(&self, outcomes: &mut [Outcome], about: impl Fn(Id, Family) -> Rules) {
        let mut known: BTreeMap<(Id, Family), Rules> = BTreeMap::new();
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.status == Status::Fail) {
            let (id, family) = (outcome.check.id, outcome.check.family);
            let rules = known.entry((id, family)).or_insert_with(|| about(id, family));
            self.explain(outcome, rules);
        }
    }

    /// Lets a failure say what the rules say.
    pub fn explain(&self, outcome: &mut Outcome, rules: &Rules) {
        const SHOWN: usize = 3;
        let list = |what: &str, rules: &[String]| {
            let shown =
                rules.iter().take(SHOWN).map(|rule| format!("'{rule}'")).collect::<Vec<_>>().join(", ");
            let more = rules.len().saturating_sub(SHOWN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{what}: {shown}{more}")
        };
        let (cause, next) = match rules {
            Rules::NotInstalled => {
                (format!("no redirection is installed for {} here", outcome.check.family), Next::Install)
            }
            // An address that is missing and a port that nobody or somebody else has are no matter of rules.
            _ if ["cannot be bound", "is redirected to port", "and nobody listens on port"]
                .iter()
                .any(|words| outcome.happened.contains(words)) =>
            {
                return;
            }
            Rules::Missing(missing) => (list("rules are missing", missing), Next::Install),
            Rules::Extra(extra) => {
                (list("rules are there that this configuration does not want", extra), Next::Install)
            }
            Rules::Foreign(foreign) => {
                (list("foreign rules are in the redirection's chains", foreign), Next::Install)
            }
            Rules::Displaced(ahead) => {
                let cause = "all rules are there, but foreign rules stand before them";
                let cause = if ahead.is_empty() { cause.to_owned() } else { list(cause, ahead) };
                (cause, Next::Status)
            }
            Rules::Outdated(servers) => {
                let cause = format!(
                    "no rule knows of the DNS server {}; resolv.conf has changed since the rules were made, or they \
                     have",
                    servers.join(", ")
                );
                (cause, Next::Install)
            }
            Rules::Shut { rule, line } if outcome.cause.as_deref() == Some(FIREWALL) => {
                (format!("the foreign rule {rule} drops what is redirected"), Next::Run(line.clone()))
            }
            Rules::AsWanted if outcome.happened == LOST && self.method == Method::Counters => {
                let cause = "all rules are there as wanted, so the DNS server answers from another address than it \
                             was asked at; one that listens on every address has to take care of that";
                let port = self.config.redirect.dns.port;
                (cause.to_owned(), Next::Run(format!("ss -lnptu 'sport = :{port}'")))
            }
            Rules::AsWanted if outcome.next.as_ref() == Some(&self.install) => {
                let cause = "all rules are there as wanted, so something else takes the packets before them";
                (cause.to_owned(), Next::Status)
            }
            Rules::Shut { .. } | Rules::AsWanted => return,
        };
        outcome.next = Some(self.command(next, outcome.check.family));
        outcome.cause = Some(cause);
    }
}
