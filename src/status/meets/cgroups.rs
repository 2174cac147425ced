//! Filters on control groups (`IPAddressAllow=`, `IPAddressDeny=` of systemd's units): they see redirected connections go
//! to the loopback address, and on the sidecar's they judge what all applications send. Pure but for
//! the types of what was read.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::plan::Family;
use crate::rules::nft::number_of;
use crate::sys::cgroup::{Filter, Filtered, Lists};
use crate::text::escape;

use super::{Met, localhost_of};

/// What filters do to the redirected connections of others, and to the sidecar. `sidecar`: its processes.
pub fn judge(found: &[Filtered], sidecar: &BTreeSet<u32>, families: &[Family]) -> Vec<Met> {
    let mut all = Vec::new();
    for group in found {
        let has_sidecar = !group.processes.is_disjoint(sidecar);
        let has_others = !group.processes.is_subset(sidecar);
        for filter in group.programs.iter().filter(|filter| !only_counts(filter)) {
            let place = format!("the control group {}", escape(&group.path));
            for &family in families {
                all.extend(has_sidecar.then(|| of_sidecar(filter, &place, family)).flatten());
                all.extend((has_others && !has_sidecar).then(|| of_others(filter, &place, family)).flatten());
            }
        }
    }
    all
}

/// Whether it is a program of systemd's without lists, for accounting; or one of which nothing is known.
fn only_counts(filter: &Filter) -> bool {
    filter.lists.is_none() && (filter.name.is_empty() || filter.name.starts_with("sd_fw_"))
}

/// What a filter denies of a family, and whether that is all but what it allows.
fn denied(lists: &Lists, family: Family) -> (Vec<IpNet>, bool) {
    let denied: Vec<IpNet> = lists.denied.iter().copied().filter(|net| family.holds(*net)).collect();
    let all = denied.iter().any(|net| net.prefix_len() == 0);
    (denied, all)
}

fn elsewhere(lists: &Lists, family: Family) -> Vec<IpNet> {
    let allowed = lists.allowed.iter().copied().filter(|net| family.holds(*net));
    allowed.filter(|net| !net.addr().is_loopback()).collect()
}

fn of_others(filter: &Filter, place: &str, family: Family) -> Option<Met> {
    let localhost: IpAddr = localhost_of(family);
    let fix = "install with --exclude-outbound-ports-for-uids for the users of these processes, or let their filter allow the \
               loopback address as well (IPAddressAllow=localhost)";
    let Some(lists) = &filter.lists else {
        let what = format!(
            "the program {} filters what {place} sends; it sees redirected connections go to {localhost} and not to where \
             they were meant to go",
            escape(&filter.name)
        );
        return Some(Met { family, what, fix: fix.to_owned(), dead: false, clients: None });
    };
    let (_, all) = denied(lists, family);
    let reached = !all || !elsewhere(lists, family).is_empty();
    // Who may go nowhere, or no farther than this host, is kept there: the filter of what arrives sees the meant address.
    (!lists.pass(localhost) && reached).then(|| Met {
        family,
        what: format!(
            "a filter (IPAddressDeny=) on {place} drops redirected {family} connections of its processes, because they go to \
             {localhost}, which it does not allow"
        ),
        fix: fix.to_owned(),
        dead: true,
        clients: None,
    })
}

fn of_sidecar(filter: &Filter, place: &str, family: Family) -> Option<Met> {
    let fix = "take the sidecar out of that control group, or let its filter allow what applications need \
               (IPAddressAllow=)";
    let Some(lists) = &filter.lists else {
        let what = format!(
            "the program {} filters what {place} sends, where the sidecar is: it judges what all applications send",
            escape(&filter.name)
        );
        return Some(Met { family, what, fix: fix.to_owned(), dead: false, clients: None });
    };
    let (mut denied, all) = denied(lists, family);
    denied.sort_by_key(|net| number_of(net.addr()));
    let first = denied.first()?;
    let what = if all {
        let allowed: Vec<String> = elsewhere(lists, family).iter().take(4).map(ToString::to_string).collect();
        let but = if allowed.is_empty() {
            "all".to_owned()
        } else {
            format!("all but what goes to {}", allowed.join(", "))
        };
        format!(
            "a filter (IPAddressDeny=) on {place}, where the sidecar is, drops {but} of the {family} traffic of all applications"
        )
    } else {
        format!(
            "a filter (IPAddressDeny=) on {place}, where the sidecar is, drops what applications send to {first}"
        )
    };
    Some(Met { family, what, fix: fix.to_owned(), dead: all, clients: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(allowed: &[&str], denied: &[&str], sidecar: u32) -> Vec<Met> {
        let nets = |all: &[&str]| all.iter().map(|net| net.parse().unwrap()).collect();
        let lists = Lists { allowed: nets(allowed), denied: nets(denied) };
        by(Filter { name: "sd_fw_egress".into(), lists: Some(lists) }, sidecar)
    }

    fn by(filter: Filter, sidecar: u32) -> Vec<Met> {
        let group = Filtered { path: "/a.service".into(), programs: vec![filter], processes: [7].into() };
        judge(&[group], &[sidecar].into(), &[Family::V4])
    }

    #[test]
    fn who_may_go_to_some_networks_only_is_cut_off() {
        let any = ["0.0.0.0/0", "::/0"];
        let met = said(&["10.0.0.0/8"], &any, 1);
        assert!(met.len() == 1 && met[0].dead && met[0].what.contains("/a.service"), "{met:?}");
        // Who may go nowhere, as systemd's own services, or to the loopback address as well, meets no difference.
        assert_eq!(said(&[], &any, 1), []);
        assert_eq!(said(&["127.0.0.0/8"], &any, 1), []);
        assert_eq!(said(&["127.0.0.0/8", "10.0.0.0/8"], &any, 1), []);
        assert_eq!(said(&[], &["10.0.0.0/8"], 1), []);
    }

    #[test]
    fn a_filter_on_the_sidecar_judges_everybody() {
        let met = said(&["127.0.0.0/8", "10.0.0.0/8"], &["0.0.0.0/0"], 7);
        assert!(met.len() == 1 && met[0].dead && met[0].what.contains("10.0.0.0/8"), "{met:?}");
        let met = said(&[], &["10.0.0.0/8"], 7);
        assert!(met.len() == 1 && !met[0].dead && met[0].what.contains("10.0.0.0/8"), "{met:?}");
    }

    #[test]
    fn what_only_counts_is_no_filter_and_others_are_named() {
        let filter = |name: &str| Filter { name: name.into(), lists: None };
        assert_eq!(by(filter("sd_fw_egress"), 1), []);
        assert_eq!(by(filter(""), 1), []);
        for (sidecar, word) in [(1, "127.0.0.1"), (7, "all applications")] {
            let met = by(filter("theirs"), sidecar);
            assert!(met.len() == 1 && !met[0].dead && met[0].what.contains(word), "{met:?}");
        }
    }
}
