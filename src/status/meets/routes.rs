//! Routing rules by user (`ip rule … uidrange`): the sidecar sends by its own user's routes what applications sent.

use std::collections::BTreeSet;

use crate::config::Config;
use crate::config::values::{PortRange, Protocol, UidRange};
use crate::plan::Family;
use crate::sys::netlink::rules::{self, UserRule};

use super::Met;

/// Sentences about the rules of these families, each once.
pub fn judge(config: &Config, sidecar: u32, families: &[Family]) -> Vec<Met> {
    if !config.redirect.outbound.enabled {
        return Vec::new();
    }
    let of = |&family: &Family| {
        let all: BTreeSet<UserRule> = rules::by_user(family).unwrap_or_default().into_iter().collect();
        all.into_iter().filter_map(move |rule| met(config, sidecar, family, &rule))
    };
    families.iter().flat_map(of).collect()
}

fn met(config: &Config, sidecar: u32, family: Family, rule: &UserRule) -> Option<Met> {
    let UserRule { priority, first, last, table, refuses } = *rule;
    let range = UidRange { first, last };
    let what = if refuses { "no route at all".to_owned() } else { format!("the routes of table {table}") };
    let said = format!("the routing rule 'uidrange {first}-{last}' of priority {priority}");
    if (first..=last).contains(&sidecar) {
        // It is about everybody, or was written for the sidecar.
        let meant = first == last && !refuses;
        if meant || first == 0 && last >= u32::MAX - 1 {
            return None;
        }
        return Some(Met {
            family,
            what: format!(
                "{said} gives the sidecar's UID {sidecar} {what}; behind the sidecar, whatever applications of other users \
                 send {} too",
                if refuses { "is refused" } else { "leaves by them" }
            ),
            fix: format!("take UID {sidecar} out of that range, or run the sidecar as a user outside of it"),
            dead: refuses,
            clients: None,
        });
    }
    if is_excluded(config, range) {
        return None;
    }
    let uids = if first == last { format!("UID {first}") } else { format!("UIDs {first} to {last}") };
    Some(Met {
        family,
        what: format!(
            "{said} gives {uids} {what}; behind the sidecar, their connections leave by those of the sidecar's UID {sidecar}, \
             to wherever it may go"
        ),
        fix: format!(
            "install with --exclude-outbound-ports-for-uids tcp:*:{range} to leave them to that rule"
        ),
        dead: false,
        clients: None,
    })
}

/// Whether nothing that these users send over TCP is redirected.
fn is_excluded(config: &Config, range: UidRange) -> bool {
    let whole = |ports: &PortRange| ports.first.get() == 1 && ports.last.get() == u16::MAX;
    config.redirect.outbound.exclude_ports_for_uids.iter().any(|exclusion| {
        exclusion.uids.first <= range.first
            && range.last <= exclusion.uids.last
            && exclusion.protocols.contains(&Protocol::Tcp)
            && exclusion.ports.iter().any(whole)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(flag: &str, rule: UserRule) -> Option<Met> {
        let mut config = Config::default();
        if !flag.is_empty() {
            config.redirect.outbound.exclude_ports_for_uids = vec![flag.parse().unwrap()];
        }
        met(&config, 5678, Family::V4, &rule)
    }

    #[test]
    fn users_with_routes_of_their_own_are_named_unless_excluded() {
        let rule = UserRule { priority: 5, first: 5702, last: 5702, table: 77, refuses: false };
        let met = said("", rule).unwrap();
        assert!(met.what.contains("UID 5702") && met.what.contains("table 77") && !met.dead, "{met:?}");
        assert!(met.fix.contains("tcp:*:5702"));
        assert_eq!(said("tcp:*:5700-5800", rule), None);
        assert!(said("tcp:80:5700-5800", rule).is_some());
        assert!(said("udp:*:5700-5800", rule).is_some());
    }

    #[test]
    fn a_sidecar_among_them_takes_others_along() {
        let rule = UserRule { priority: 5, first: 5000, last: 6000, table: 77, refuses: false };
        let met = said("", rule).unwrap();
        assert!(met.what.contains("leaves by them too") && !met.dead, "{met:?}");
        assert!(said("", UserRule { refuses: true, ..rule }).unwrap().dead);
        assert_eq!(said("", UserRule { first: 5678, last: 5678, ..rule }), None);
        assert!(said("", UserRule { first: 5678, last: 5678, refuses: true, ..rule }).unwrap().dead);
        assert_eq!(said("", UserRule { first: 0, last: u32::MAX - 1, ..rule }), None);
    }
}
