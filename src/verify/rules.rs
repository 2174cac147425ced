//! Looks at the rules: for the causes of failures, for what they counted, and for what they were made from. Whatever
//! backend keeps them, it is read and compared by `tproxy status`, so the two commands never say different things.

use std::net::IpAddr;

use super::check::Id;
use super::explain::Rules;
use super::witness::Counted;
use crate::backend::Backend;
use crate::config::Config;
use crate::exit::Failure;
use crate::plan::Family;
use crate::present::once;
use crate::status::doors::What;
use crate::status::look::compared_with;
use crate::status::model::{Ahead, Difference, DifferenceKind, Finding, Report, Verdict};

/// What is there, compared with what is wanted.
#[derive(Debug)]
pub struct Look(Report);

/// Reads the rules and compares them with a configuration.
///
/// # Errors
/// They cannot be read.
pub fn look(config: &Config) -> Result<Look, Failure> {
    compared_with(config).map(Look)
}

impl Look {
    /// Whether all rules are there as wanted, with nothing ahead of them.
    pub fn is_sound(&self) -> bool {
        let report = &self.0;
        !report.families.is_empty() && report.differences.is_empty() && report.ahead.is_empty()
    }

    /// Whether there are none.
    pub fn is_not_installed(&self) -> bool {
        self.0.verdict == Verdict::NotInstalled
    }

    /// Whether they are in an nftables table of our own.
    pub fn is_native(&self) -> bool {
        self.0.backend == Some(Backend::Nftables.name())
    }

    /// What the rules have counted so far.
    pub fn counted(&self) -> Counted {
        let families = self.0.families.iter().map(|report| (report.family, report.hits));
        Counted { families: families.collect(), all: self.0.hits }
    }

    /// What is wrong with the installation as a whole, or can be where no probe goes, each with what to do about it.
    pub fn complaints(&self) -> Vec<String> {
        const SHOWN: usize = 3;
        let report = &self.0;
        let ahead = report.ahead.iter().take(SHOWN).map(Ahead::finding);
        let found = once(report.problems.iter().cloned().chain(ahead)).into_iter();
        let found = found.map(|Finding { what, fix }| match fix {
            Some(fix) => format!("{what}; {fix}"),
            None => what,
        });
        let more = report.ahead.len().saturating_sub(SHOWN);
        let more = (more > 0).then(|| {
            format!("{more} more rules of others come before the redirection; 'tproxy status' names them")
        });
        let differ = report.verdict != Verdict::NotInstalled && !report.differences.is_empty();
        let differ = differ.then(|| {
            "the rules are not all as wanted, whatever probes see; 'tproxy status' lists them".to_owned()
        });
        found.chain(more).chain(differ).collect()
    }

    /// What the rules look like that checks are about.
    pub fn about(&self, id: Id, family: Family) -> Rules {
        let report = &self.0;
        let there = report.families.iter().any(|report| report.family == family);
        if report.verdict == Verdict::NotInstalled || !there {
            return Rules::NotInstalled;
        }
        let of_kind = |kind| {
            let all = report.differences.iter().filter(move |found| found.kind == kind);
            let all = all.filter(|found| found.family.is_none_or(|of| of == family));
            let lines: Vec<String> = all.filter_map(line).collect();
            (!lines.is_empty()).then_some(lines)
        };
        let ahead = report.ahead.iter().filter(|ahead| ahead.family == family);
        let ahead: Vec<String> = ahead.map(|ahead| escaped(&ahead.rule)).collect();
        // Zones do not decide where a question goes.
        let zone = |found: &&Difference| found.table == "raw" || found.chain.starts_with("zones_");
        let missing = report.differences.iter().filter(|found| found.kind == DifferenceKind::Missing);
        if id == Id::Dns && !ahead.is_empty() && { missing }.all(|found| zone(&found)) {
            return Rules::Displaced(ahead);
        }
        let misplaced = of_kind(DifferenceKind::Reordered).is_some() || !ahead.is_empty();
        let any = of_kind(DifferenceKind::Missing).map(Rules::Missing);
        any.or_else(|| self.forgotten(id, family).map(Rules::Outdated))
            .or_else(|| of_kind(DifferenceKind::Foreign).map(Rules::Foreign))
            .or_else(|| of_kind(DifferenceKind::Extra).map(Rules::Extra))
            .or_else(|| misplaced.then_some(Rules::Displaced(ahead)))
            .or_else(|| self.shut(id, family))
            .unwrap_or(Rules::AsWanted)
    }

    /// The foreign rule that drops what checks are about as it comes in, and the line that lets it in.
    fn shut(&self, id: Id, family: Family) -> Option<Rules> {
        let what = match id {
            Id::Inbound => What::Inbound,
            Id::Outbound => What::Outbound,
            Id::Dns => What::Dns,
            _ => return None,
        };
        let found = self.0.shut.iter().find(|shut| shut.what == what && shut.families.contains(&family))?;
        let (rule, place) = &found.by;
        Some(Rules::Shut { rule: format!("'{rule}' in {place}"), line: found.line.clone() })
    }

    /// The DNS servers that a check about DNS is about and no rule is.
    fn forgotten(&self, id: Id, family: Family) -> Option<Vec<String>> {
        let resolvers = self.0.resolvers.as_ref().filter(|_| id == Id::Dns)?;
        let own = |addr: &&IpAddr| addr.is_ipv4() == (family == Family::V4);
        let servers: Vec<String> =
            resolvers.not_captured.iter().filter(own).map(ToString::to_string).collect();
        (!servers.is_empty()).then_some(servers)
    }
}

/// A difference as its backend would say the rule; `None` for what is no rule.
fn line(found: &Difference) -> Option<String> {
    let rule = match &found.variant {
        Some(_) if found.rule.is_empty() => return None,
        Some(_) => format!("-t {} -A {} {}", found.table, found.chain, bare(&found.rule)),
        None => match (&found.set, found.chain.as_str(), bare_native(&found.rule)) {
            (Some(set), _, "") => format!("set {set}"),
            (Some(set), _, element) => format!("set {set}: {element}"),
            (None, "", rule) => rule.to_owned(),
            (None, chain, "") => format!("chain {chain}"),
            (None, chain, rule) => format!("{chain}: {rule}"),
        },
    };
    Some(escaped(&rule))
}

/// A rule without its comment, which says at length what the rule says.
fn bare(args: &str) -> String {
    let Some((before, after)) = args.split_once("-m comment --comment ") else { return args.to_owned() };
    let rest = match after.strip_prefix('"') {
        Some(quoted) => quoted.split_once("\" ").map_or("", |(_, rest)| rest),
        None => after.split_once(' ').map_or("", |(_, rest)| rest),
    };
    format!("{before}{rest}")
}

/// The same in nft's language, where the comment comes last.
fn bare_native(rule: &str) -> &str {
    rule.split_once(" comment \"").map_or(rule, |(rule, _)| rule)
}

fn escaped(text: &str) -> String {
    crate::text::escape(text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::model::Resolvers;

    fn difference(kind: DifferenceKind, family: Option<Family>, chain: &str, rule: &str) -> Difference {
        let variant = family.map(|_| "nft".to_owned());
        let (chain, rule) = (chain.to_owned(), rule.to_owned());
        Difference { kind, variant, family, table: "nat".to_owned(), chain, set: None, rule }
    }

    /// Of a host on which both families are redirected.
    fn both() -> Report {
        let families = Family::BOTH.map(|family| crate::status::model::FamilyReport {
            family,
            rules: 9,
            hits: crate::status::model::Hits::default(),
        });
        Report { verdict: Verdict::Installed, families: families.into(), ..Report::nothing() }
    }

    #[test]
    fn what_is_missing_counts_more_than_what_is_too_much() {
        let mut report = both();
        let four = Some(Family::V4);
        report.differences.push(difference(DifferenceKind::Extra, four, "OUTPUT", "-j RETURN"));
        report.differences.push(difference(DifferenceKind::Missing, four, "OUTPUT", "-p tcp -j X"));
        let look = Look(report);
        assert_eq!(
            look.about(Id::Outbound, Family::V4),
            Rules::Missing(vec!["-t nat -A OUTPUT -p tcp -j X".to_owned()])
        );
        assert_eq!(look.about(Id::Outbound, Family::V6), Rules::AsWanted);
        assert!(!look.is_sound());
        assert_eq!(Look(Report::nothing()).about(Id::Own, Family::V4), Rules::NotInstalled);
    }

    #[test]
    fn what_is_of_no_family_is_of_both() {
        let mut report = both();
        let rule = "tcp dport 80 counter return comment \"why, at length\"";
        report.differences.push(difference(DifferenceKind::Foreign, None, "outbound", rule));
        let said = Rules::Foreign(vec!["outbound: tcp dport 80 counter return".to_owned()]);
        let look = Look(report);
        assert!(Family::BOTH.into_iter().all(|family| look.about(Id::Inbound, family) == said));
    }

    #[test]
    fn servers_that_came_later_are_named() {
        let mut report = both();
        let current = Ok(vec!["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()]);
        report.resolvers = Some(Resolvers::compare("f".into(), current, Vec::new(), &[Family::V4]));
        let look = Look(report);
        assert_eq!(look.about(Id::Dns, Family::V4), Rules::Outdated(vec!["10.0.0.9".to_owned()]));
        assert_eq!(look.about(Id::Dns, Family::V6), Rules::AsWanted);
        assert_eq!(look.about(Id::Outbound, Family::V4), Rules::AsWanted);
    }

    #[test]
    fn comments_are_left_out() {
        assert_eq!(bare("-p tcp -m comment --comment \"a b\" -j X"), "-p tcp -j X");
        assert_eq!(bare("-m comment --comment a -p tcp -j X"), "-p tcp -j X");
        assert_eq!(bare("-p tcp -j X"), "-p tcp -j X");
        assert_eq!(bare("-p tcp -m comment --comment"), "-p tcp -m comment --comment");
    }
}
