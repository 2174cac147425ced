//! What is said of such rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::plan::Family;
use crate::rules::model::Span;
use crate::rules::show;
use crate::rules::walk::Finding;

use super::Met;

/// Whom a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// A user.
    User(u32),
    /// A group.
    Group(u32),
    /// A control group.
    Cgroup,
    /// All whom it does not name.
    Others,
}

/// Who sends what.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// Of which family.
    pub family: Family,
    /// Who.
    pub named: Named,
    /// The sidecar's user.
    pub sidecar: u32,
    /// Where to, if a rule names that.
    pub to: Option<&'a str>,
    /// The same for `--exclude-outbound-ips`.
    pub option: Option<&'a str>,
    /// Protocol and ports for `--exclude-outbound-ports-for-uids`.
    pub ports: &'a str,
}

impl Who<'_> {
    fn name(&self) -> String {
        match self.named {
            Named::User(uid) => format!("UID {uid}"),
            Named::Group(gid) => format!("GID {gid}"),
            Named::Cgroup => "a control group".to_owned(),
            Named::Others => "the users whom no rule names".to_owned(),
        }
    }

    fn to(&self) -> String {
        self.to.map_or_else(|| "other hosts".to_owned(), str::to_owned)
    }

    fn sidecar(&self) -> String {
        match self.named {
            Named::Group(_) => format!("the sidecar's UID {}, unless it is of that group,", self.sidecar),
            Named::Cgroup => {
                format!("the sidecar's UID {}, unless it is in that control group,", self.sidecar)
            }
            _ => format!("the sidecar's UID {}", self.sidecar),
        }
    }

    /// An exclusion that makes the rule hold again.
    fn exclusion(&self) -> String {
        let by_user = match self.named {
            Named::User(uid) => Some(format!("--exclude-outbound-ports-for-uids {}:{uid}", self.ports)),
            _ => None,
        };
        match (by_user, self.option) {
            (Some(user), Some(net)) => format!("{user}, or --exclude-outbound-ips {net},"),
            (Some(user), None) => user,
            (None, Some(net)) => format!("--exclude-outbound-ips {net}"),
            (None, None) => "--exclude-outbound-ports-for-uids with the users concerned".to_owned(),
        }
    }

    /// Who was forbidden gets out through the sidecar.
    pub fn gets_out(&self, by: &Finding<'_>, sure: bool) -> Met {
        let may = if sure { "gets" } else { "may get" };
        Met {
            family: self.family,
            what: format!(
                "{} keeps {} from {}; behind the sidecar {} {may} there, because {} is not kept from it",
                rule(by),
                self.name(),
                self.to(),
                if self.named == Named::Others { "whoever that is" } else { "it" },
                self.sidecar()
            ),
            fix: format!("install with {} to leave that traffic to the rule", self.exclusion()),
            dead: false,
            clients: None,
        }
    }

    /// Who was allowed is cut off. `on_the_way`: on the way to the sidecar, and not behind it.
    pub fn cut_off(&self, by: &Finding<'_>, sure: bool, on_the_way: bool) -> Met {
        let drops = if sure { "drops" } else { "may drop" };
        let why = if on_the_way {
            "it sees them go to the sidecar".to_owned()
        } else {
            format!("behind the sidecar they are those of UID {}", self.sidecar)
        };
        Met {
            family: self.family,
            what: format!(
                "{} {drops} redirected connections of {} to {}, which pass as long as they are not redirected: {why}",
                rule(by),
                self.name(),
                self.to()
            ),
            fix: format!(
                "install with {} to leave that traffic alone, or let UID {} through in that chain",
                self.exclusion(),
                self.sidecar
            ),
            dead: sure,
            clients: None,
        }
    }

    /// Marks, by which routing rules go, are given to one of both alone.
    pub fn routed(&self, by: &Finding<'_>, not_any_more: bool) -> Met {
        let what = if not_any_more {
            format!(
                "{} marks what {} sends to {}, and routing rules go by marks; behind the sidecar it leaves without that \
                 mark, perhaps by another route",
                rule(by),
                self.name(),
                self.to()
            )
        } else {
            format!(
                "{} marks what the sidecar's UID {} sends to {}, and routing rules go by marks; so behind the sidecar the \
                 connections of {} may leave by another route",
                rule(by),
                self.sidecar,
                self.to(),
                self.name()
            )
        };
        let fix = format!("install with {} to leave that traffic to the rule", self.exclusion());
        Met { family: self.family, what, fix, dead: false, clients: None }
    }

    /// Who was led elsewhere is not any more.
    pub fn not_led(&self, by: &Finding<'_>) -> Met {
        Met {
            family: self.family,
            what: format!(
                "{} leads elsewhere what {} sends to {}; redirected, it leaves as the sidecar's and is not led there",
                rule(by),
                self.name(),
                self.to()
            ),
            fix: format!("install with {} to leave that traffic to the rule", self.exclusion()),
            dead: false,
            clients: None,
        }
    }
}

/// There were too many.
pub fn not_all(family: Family) -> Met {
    Met {
        family,
        what: format!("there are too many {family} rules by user to try all of them"),
        fix:
            "look at the others by hand: whatever a rule says of a user, redirected traffic is the sidecar's"
                .to_owned(),
        dead: false,
        clients: None,
    }
}

/// A rule and its chain.
pub fn rule(by: &Finding<'_>) -> String {
    format!("'{}' in {}", show::name(by.rule), show::place(by.chain))
}

/// Addresses as one network, if they are one; else the first and the last.
pub fn networks(span: &Span) -> String {
    let (first, last) = (*span.start(), *span.end());
    let four = u32::try_from(last).is_ok();
    let addr = |number: u128| match u32::try_from(number) {
        Ok(short) if four => IpAddr::V4(Ipv4Addr::from(short)),
        _ => IpAddr::V6(Ipv6Addr::from(number)),
    };
    let rest = first ^ last;
    let is_network = rest & rest.wrapping_add(1) == 0 && first & rest == 0;
    let bits: u32 = if four { 32 } else { 128 };
    let host = u128::BITS - rest.leading_zeros();
    let net =
        u8::try_from(bits.saturating_sub(host)).ok().and_then(|length| IpNet::new(addr(first), length).ok());
    match net {
        _ if first == last => addr(first).to_string(),
        Some(net) if is_network => net.to_string(),
        _ => format!("{}-{}", addr(first), addr(last)),
    }
}
