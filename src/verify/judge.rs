//! From where a probe arrived to a verdict, with the likely cause and the next step. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::check::{Check, Evidence, Goal, Id, Method, Outcome, Probe, Reached, Status, Way};
use super::unrouted::no_route;
use crate::config::Config;
use crate::plan::Family;
use crate::sidecar::Channel;
use crate::status::listen::place;

/// The users who have ports, by family: a sidecar may listen for one alone.
pub type Holders = BTreeMap<(Family, u16), Vec<u32>>;

/// What verdicts depend on, beside the probe.
#[derive(Debug, Clone)]
pub struct Bench<'a> {
    /// What is wanted.
    pub config: &'a Config,
    /// How it was seen.
    pub method: Method,
    /// The users who have the sidecar's ports.
    pub holders: Holders,
    /// The sidecar's user.
    pub sidecar: u32,
    /// Whether our rules are in an nftables table, which iptables does not show.
    pub native: bool,
    /// The command that installs what is wanted.
    pub install: String,
}

/// The next step after a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Install again.
    Install,
    /// Look at what is installed and what is ahead of it.
    Status,
    /// Look at which rules count packets.
    Count,
    /// Another command.
    Run(String),
}

/// A verdict: how it came out, what happened, and for a failure the likely cause and the next step.
type Verdict = (Status, String, Option<(String, Next)>);

impl Bench<'_> {
    /// What to make of where a probe arrived.
    pub fn judge(&self, check: Check, reached: &Reached) -> Outcome {
        let (status, happened, advice) = self.verdict(&check, reached);
        let (cause, next) = advice.unzip();
        let next = next.map(|next| self.command(next, check.family));
        let evidence = self.evidence(reached).into_iter().collect();
        Outcome { check, status, happened, evidence, cause, next }
    }

    fn evidence(&self, reached: &Reached) -> Option<Evidence> {
        match reached {
            Reached::Port(..)
            | Reached::Dns { .. }
            | Reached::Destination { .. }
            | Reached::LedOn { .. }
            | Reached::Apart => Some(Evidence::Listener),
            // The connection came about, and not with the sidecar: tproxy has its ports, and they were not reached.
            Reached::Somebody if self.method == Method::Listeners => Some(Evidence::Listener),
            // Or the sidecar has them, and no redirection there is known.
            Reached::Tracked { .. } | Reached::Astray(_) | Reached::Somebody | Reached::Program { .. } => {
                Some(Evidence::Conntrack)
            }
            Reached::Refused
            | Reached::Nowhere
            | Reached::Held { .. }
            | Reached::Unsent(_)
            | Reached::NoRoute(..)
            | Reached::Unknown(_) => None,
        }
    }

    pub(super) fn command(&self, next: Next, family: Family) -> String {
        match next {
            Next::Install => self.install.clone(),
            Next::Status => "tproxy status".to_owned(),
            Next::Count if self.native => "nft list ruleset".to_owned(),
            Next::Count if family == Family::V4 => "iptables-save -c".to_owned(),
            Next::Count => "ip6tables-save -c".to_owned(),
            Next::Run(command) => command,
        }
    }

    fn port(&self, channel: Channel) -> u16 {
        let redirect = &self.config.redirect;
        match channel {
            Channel::Outbound => redirect.outbound.port.get(),
            Channel::Inbound => redirect.inbound.port.get(),
        }
    }

    fn verdict(&self, check: &Check, reached: &Reached) -> Verdict {
        let pass = |happened: &str| (Status::Pass, happened.to_owned(), None);
        let wanted = match check.goal {
            Goal::Port(channel) => Some(self.port(channel)),
            Goal::Dns => Some(self.config.redirect.dns.port.get()),
            Goal::Past => None,
        };
        match (check.goal, reached) {
            (_, Reached::Unknown(why)) => (Status::NotTested, why.clone(), None),
            (_, Reached::Held { port, address, uid }) => self.of_a_stranger(*port, address, *uid),
            (_, Reached::NoRoute(to, uid, why)) => {
                let look = Next::Run(format!("ip route get {to} uid {uid}"));
                fail(no_route(*to, *uid, why), NO_ROUTE, look)
            }
            (Goal::Port(channel), Reached::Port(at, original)) if *at == channel => {
                match (original, destination(&check.probe)) {
                    (Some(told), Some(sent)) if *told == sent => pass("it did"),
                    (told, _) => {
                        let told = told.map_or_else(|| "nowhere".to_owned(), |told| told.to_string());
                        let cause = "another NAT rule changed the destination first, or it is not tracked";
                        fail(format!("arrived there, but was said to go to {told}"), cause, Next::Status)
                    }
                }
            }
            (Goal::Port(_), Reached::Tracked { port, .. }) if Some(*port) == wanted => {
                self.held(check.family, *port)
            }
            (Goal::Dns, Reached::Tracked { port, answered }) if Some(*port) == wanted => {
                answered_too(self.held(check.family, *port), *answered)
            }
            // What tproxy listens on instead of a sidecar refuses nobody.
            (Goal::Port(_), Reached::Refused) if self.method == Method::Counters => match wanted {
                Some(port) if self.users(check.family, port).is_empty() => {
                    let happened =
                        format!("was refused, and nobody listens on port {port} for {}", check.family);
                    fail(happened, NOBODY, listeners(port))
                }
                _ => self.failed(check, reached, wanted),
            },
            (Goal::Dns, Reached::Dns { answered: true }) => pass("it did"),
            (Goal::Dns, Reached::Dns { answered: false })
            | (
                Goal::Past,
                Reached::Destination { answered: false }
                | Reached::LedOn { answered: false, .. }
                | Reached::Program { answered: false },
            ) => lost(),
            (Goal::Past, Reached::Tracked { port, answered }) if self.is_led_on(check, *port) => {
                match answered {
                    Some(false) => lost(),
                    Some(true) => pass(
                        "it did not come to the sidecar: another rule leads it on, and an answer comes back",
                    ),
                    None => (
                        Status::NotTested,
                        format!(
                            "it did not come to the sidecar: another rule leads it on to port {port}, where no socket \
                             was found, so whether answers come back was not seen"
                        ),
                        None,
                    ),
                }
            }
            (Goal::Past, Reached::LedOn { to, answered: true }) => {
                pass(&format!("another rule leads it on to {to}, and the answer came back"))
            }
            (Goal::Past, Reached::Destination { answered: true }) => pass("it arrived where it was sent"),
            (Goal::Past, Reached::Program { answered: true }) => {
                pass("a program that is not the sidecar is there, and an answer of it comes back")
            }
            (Goal::Past, Reached::Apart) => apart(),
            // The sidecar's own port is left alone: who listens there got it without a redirection.
            (Goal::Past, Reached::Port(channel, _))
                if destination(&check.probe).is_some_and(|sent| sent.port() == self.port(*channel)) =>
            {
                pass("it arrived where it was sent")
            }
            (Goal::Past, Reached::Somebody) => pass("a program that is not the sidecar took it"),
            _ => self.failed(check, reached, wanted),
        }
    }

    fn failed(&self, check: &Check, reached: &Reached, wanted: Option<u16>) -> Verdict {
        let advice = match (check.id, &check.probe) {
            (Id::Resolver, Probe::Datagram { uid, .. }) => {
                let cause = "it asks the sidecar, which asks it: questions go round without end";
                let cure = format!("{} --exclude-outbound-ports-for-uids udp:53:{uid}", self.install);
                (cause.to_owned(), Next::Run(cure))
            }
            _ => advice(check, reached),
        };
        (Status::Fail, self.happened(check, reached, wanted), Some(advice))
    }

    /// A port of the sidecar's that somebody else has, whose own traffic is redirected.
    fn of_a_stranger(&self, port: u16, address: &IpAddr, uid: u32) -> Verdict {
        let (sidecar, at) = (self.sidecar, place(address));
        let happened = format!(
            "was not sent: UID {uid} has port {port}{at}, which is not the sidecar's UID {sidecar}, and what UID {uid} \
             passes on comes back to it without end"
        );
        let cause = format!(
            "if that is the sidecar: run it as UID {sidecar}, or install with --kuma-dp-user {uid}; else another \
             program took the port"
        );
        (Status::Fail, happened, Some((cause, listeners(port))))
    }

    fn happened(&self, check: &Check, reached: &Reached, wanted: Option<u16>) -> String {
        match reached {
            Reached::Port(channel, _) => format!("was redirected to {}", self.name(self.port(*channel))),
            Reached::Dns { .. } => {
                format!("was redirected to {}", self.name(self.config.redirect.dns.port.get()))
            }
            Reached::Tracked { port, .. } => format!("was redirected to {}", self.name(*port)),
            Reached::Astray(to) => format!("would have gone to {to} instead, and was kept on this host"),
            Reached::LedOn { to, .. } => format!("another rule led it on to {to}"),
            Reached::Held { port, uid, .. } => format!("was not sent: UID {uid} has port {port}"),
            Reached::Destination { .. } | Reached::Apart | Reached::Program { .. } => {
                "went straight to where it was sent".to_owned()
            }
            Reached::Somebody => "was taken by a program that is not the sidecar".to_owned(),
            Reached::Refused => match wanted {
                Some(port) => {
                    format!("was refused, as if nobody listened on port {port} or a firewall rejected it")
                }
                None => "was refused, by a firewall or by a port that nobody listens on".to_owned(),
            },
            Reached::Nowhere => match check.probe {
                Probe::Datagram { .. } | Probe::Again { .. } => {
                    "arrived neither there nor at the sidecar".to_owned()
                }
                _ => "was not answered in time".to_owned(),
            },
            Reached::Unsent(error) if is_bound(&check.probe) => {
                format!("was turned off its way before it left: {error}")
            }
            Reached::Unsent(error) => format!("could not be sent: {error}"),
            Reached::NoRoute(to, uid, why) => no_route(*to, *uid, why),
            Reached::Unknown(why) => why.clone(),
        }
    }

    /// What a port is called.
    fn name(&self, port: u16) -> String {
        let redirect = &self.config.redirect;
        let named = [
            ("outbound", redirect.outbound.port),
            ("inbound", redirect.inbound.port),
            ("DNS", redirect.dns.port),
        ];
        match named.iter().find(|(_, of)| of.get() == port) {
            Some((name, _)) => format!("the {name} port {port}"),
            None => format!("port {port}"),
        }
    }

    /// Whether a DNS server is behind another port of this host, as Docker's is.
    fn is_led_on(&self, check: &Check, port: u16) -> bool {
        let redirect = &self.config.redirect;
        let own = [redirect.outbound.port, redirect.inbound.port, redirect.dns.port];
        check.id == Id::DnsSidecar && own.iter().all(|own| own.get() != port)
    }

    /// Who listens on a port.
    fn users(&self, family: Family, port: u16) -> &[u32] {
        self.holders.get(&(family, port)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Redirected, as connection tracking says; but to whom?
    fn held(&self, family: Family, port: u16) -> Verdict {
        let holders = self.users(family, port);
        let sidecar = self.sidecar;
        if holders.contains(&sidecar) {
            let happened =
                format!("is redirected there, as connection tracking says; UID {sidecar} listens there");
            return (Status::Pass, happened, None);
        }
        let look = listeners(port);
        match holders.first() {
            Some(other) => fail(
                format!(
                    "is redirected to port {port}, which UID {other} has and not the sidecar's UID {sidecar}"
                ),
                "another program took the port, or the sidecar runs as another user, whose own traffic would be \
                 redirected back to it",
                look,
            ),
            None => {
                fail(format!("is redirected to port {port}, where nobody listens for {family}"), NOBODY, look)
            }
        }
    }
}

const NOBODY: &str = "the sidecar is not up, or listens on another port, or not for this family";

/// Who listens there.
fn listeners(port: u16) -> Next {
    Next::Run(format!("ss -lnptu 'sport = :{port}'"))
}

fn fail(happened: String, cause: &str, next: Next) -> Verdict {
    (Status::Fail, happened, Some((cause.to_owned(), next)))
}

/// Redirected to the sidecar, but do its answers come back?
fn answered_too(held: Verdict, answered: Option<bool>) -> Verdict {
    match (held, answered) {
        ((Status::Pass, happened, _), Some(true)) => {
            (Status::Pass, format!("{happened}, and an answer from there comes back"), None)
        }
        ((Status::Pass, ..), Some(false)) => lost(),
        ((Status::Pass, happened, _), None) => {
            let why = "but it does not answer what is no question, so whether answers come back was not seen";
            (Status::NotTested, format!("{happened}, {why}"), None)
        }
        (held, _) => held,
    }
}

pub(super) const LOST: &str = "arrived there, but its answer got lost";

/// As above, of an answer.
pub(super) const LOST_BY_FIREWALL: &str = "a firewall drops the answer, perhaps because it is tracked apart from the \
    question: rules for conntrack zones are missing, or a foreign rule sets another zone";

fn lost() -> Verdict {
    fail(LOST.to_owned(), LOST_BY_FIREWALL, Next::Install)
}

fn apart() -> Verdict {
    let happened = "arrived there, but its answer is no answer to connection tracking, and a firewall that lets only \
                    answers in drops it";
    let cause = "it is tracked apart from the question: rules for conntrack zones are missing, or a foreign rule sets another zone";
    fail(happened.to_owned(), cause, Next::Install)
}

/// Where a TCP probe was sent.
fn destination(probe: &Probe) -> Option<std::net::SocketAddr> {
    match probe {
        Probe::Connect { to, .. }
        | Probe::Arrive { to, .. }
        | Probe::Passthrough { to, .. }
        | Probe::Guest { to, .. } => Some(*to),
        _ => None,
    }
}

fn is_bound(probe: &Probe) -> bool {
    matches!(probe, Probe::Connect { way: Way::Device, .. })
}

/// The likely cause and the next step, as far as the probe alone tells.
fn advice(check: &Check, reached: &Reached) -> (String, Next) {
    let (cause, next) = match (check.id, reached) {
        (Id::Passthrough, Reached::Unsent(_)) if check.family == Family::V6 => (
            "the address ::6 is not on the loopback interface; the sidecar needs it for what it passes on",
            Next::Install,
        ),
        (Id::Passthrough, Reached::Port(..) | Reached::Tracked { .. }) => (
            "the rule that leaves the sidecar's source address alone is missing, so what it passes on comes back to \
             it for ever",
            Next::Install,
        ),
        (Id::Sidecar | Id::Own, Reached::Port(Channel::Outbound, _)) => {
            ("the rules are about another user than the sidecar's", Next::Install)
        }
        (Id::DnsSidecar, Reached::Dns { .. } | Reached::Tracked { .. }) => (
            "the sidecar's question is taken for the app's, because the conntrack zones that keep them apart are \
             missing, or a rule ahead redirects it",
            Next::Install,
        ),
        (_, Reached::Astray(_)) => ("a foreign NAT rule takes it before ours", Next::Status),
        (_, Reached::Nowhere | Reached::Refused) => (FIREWALL, Next::Count),
        (_, Reached::Unsent(_)) if !is_bound(&check.probe) => (FIREWALL, Next::Count),
        (_, Reached::Destination { .. } | Reached::Apart | Reached::Somebody | Reached::Program { .. }) => {
            ("no rule redirects it, or a rule ahead of ours takes it first", Next::Status)
        }
        _ => {
            ("a rule redirects it that should not, or the rule that leaves it alone is missing", Next::Status)
        }
    };
    (cause.to_owned(), next)
}

/// Of what the kernel has no way for.
pub(super) const NO_ROUTE: &str = "this host has no route, or no source address, to any DNS server of resolv.conf; the kernel \
    looks for both before the rules that redirect";

/// Where nothing else is known.
pub(super) const FIREWALL: &str = "a firewall is in the way: a rule, or the policy, of INPUT or OUTPUT drops or rejects it; \
    it has to let the sidecar's ports and user through";
