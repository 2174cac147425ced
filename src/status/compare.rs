//! From what would have to change to what differs. The changes are those that an install would make, so status and
//! install can never disagree. Pure.

use crate::backend::iptables::situation::{Changes, Place, Situation};
use crate::backend::iptables::transition::{DiffLine, TableChange};
use crate::plan::{OwnChain, Table};

use super::model::{Difference, DifferenceKind};

/// Every difference, place by place and table by table.
pub fn differences(situation: &Situation, changes: &Changes) -> Vec<Difference> {
    let mut found = Vec::new();
    for (&place, tables) in changes {
        for change in tables {
            table_differences(situation, place, change, &mut found);
        }
    }
    found
}

fn table_differences(situation: &Situation, place: Place, change: &TableChange, found: &mut Vec<Difference>) {
    let difference = |kind, line: &DiffLine| Difference {
        kind,
        variant: Some(place.0.to_string()),
        family: Some(place.1),
        table: change.table.name().to_owned(),
        chain: line.chain.clone(),
        set: None,
        rule: line.args.clone(),
    };
    let before = found.len();
    for line in &change.diff {
        let kind = if line.added {
            DifferenceKind::Missing
        } else if is_foreign(situation, place, change.table, line) {
            DifferenceKind::Foreign
        } else {
            DifferenceKind::Extra
        };
        found.push(difference(kind, line));
    }
    // What is in the wrong place because something between is missing is not worth a second line.
    found.extend(change.moved.iter().map(|line| difference(DifferenceKind::Reordered, line)));
    if found.len() == before {
        // A table that has to be written differs, whatever it is in.
        found.push(Difference {
            kind: DifferenceKind::Reordered,
            variant: Some(place.0.to_string()),
            family: Some(place.1),
            table: change.table.name().to_owned(),
            chain: String::new(),
            set: None,
            rule: String::new(),
        });
    }
}

fn is_foreign(situation: &Situation, place: Place, table: Table, line: &DiffLine) -> bool {
    let Some(chain) = OwnChain::named(&line.chain).filter(|_| table == Table::Nat) else { return false };
    situation.ownership().any(|(of, own)| {
        of == place && own.intruders.iter().any(|(name, rule)| *name == chain && rule.args == line.args)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::backend::iptables::save::Saved;
    use crate::backend::iptables::tools::Variant;
    use crate::backend::iptables::wanted::Wanted;
    use crate::config::Config;
    use crate::host::{HostFacts, Ipv6Support};
    use crate::plan::{Family, family_plan};

    const PLACE: Place = (Variant::Nft, Family::V4);

    /// What `iptables-save` prints of an installation with the defaults, as it should be.
    const INSTALLED: &str = include_str!("../../tests/golden/status/installed.save");

    /// Each difference of these rules as `kind chain rule`, comments left out.
    fn found(saved: &str) -> Vec<String> {
        let facts = HostFacts {
            sidecar_uid: 5678,
            loopback: "lo".into(),
            ipv6: Ipv6Support::Unavailable("not asked".into()),
            resolvers: Vec::new(),
            docker_dns: false,
            translated: crate::host::Translated::default(),
        };
        let wanted = Wanted::plan(&family_plan(&Config::default(), &facts, Family::V4), true);
        let situation = Situation::new([(PLACE, Saved::parse(saved))].into(), &BTreeMap::new());
        let changes = situation.changes(&[(PLACE, wanted)].into());
        let all = differences(&situation, &changes);
        all.iter()
            .map(|d| {
                let rule = match d.rule.split_once("\" ") {
                    Some((comment, rule)) if comment.starts_with("-m comment") => rule,
                    _ => &d.rule,
                };
                format!("{} {} {rule}", d.kind.name(), d.chain).trim_end().to_owned()
            })
            .collect()
    }

    /// The lines that hold a text, taken out.
    fn without(text: &str) -> String {
        let kept: Vec<_> = INSTALLED.lines().filter(|line| !line.contains(text)).collect();
        kept.join("\n") + "\n"
    }

    #[test]
    fn what_is_as_wanted_has_no_difference() {
        assert_eq!(found(INSTALLED), [""; 0]);
    }

    #[test]
    fn what_is_missing_is_named_rule_by_rule() {
        assert_eq!(found(&without("-A OUTPUT")), ["missing OUTPUT -p tcp -j KUMA_MESH_OUTBOUND"]);
        assert_eq!(
            found(&without("KUMA_MESH_INBOUND_REDIRECT -p")),
            ["missing KUMA_MESH_INBOUND_REDIRECT -p tcp -j REDIRECT --to-ports 15006"]
        );
    }

    #[test]
    fn extra_and_foreign_rules_are_told_apart() {
        let tagged =
            "-A PREROUTING -p tcp -m comment --comment kuma/mesh/transparent/proxy -j RETURN\nCOMMIT";
        let foreign = "-A KUMA_MESH_INBOUND -p tcp -j ACCEPT\nCOMMIT";
        assert_eq!(
            found(&INSTALLED.replace("COMMIT", tagged)),
            ["extra PREROUTING -p tcp -m comment --comment kuma/mesh/transparent/proxy -j RETURN"]
        );
        assert_eq!(
            found(&INSTALLED.replace("COMMIT", foreign)),
            ["foreign KUMA_MESH_INBOUND -p tcp -j ACCEPT"]
        );
    }

    #[test]
    fn only_what_moved_is_reordered() {
        let line = INSTALLED.lines().find(|line| line.contains("-d 127.0.0.1/32 -m")).expect("a rule");
        let moved = without("-A KUMA_MESH_OUTBOUND -d 127.0.0.1/32").replacen(
            "-A KUMA_MESH_OUTBOUND ",
            &format!("{line}\n-A KUMA_MESH_OUTBOUND "),
            1,
        );
        assert_ne!(moved, INSTALLED);
        assert_eq!(found(&moved), ["reordered KUMA_MESH_OUTBOUND -d 127.0.0.1/32 -j RETURN"]);
    }
}
