//! Others at the place of ours: who comes first today, and whether that lasts. A chain that is made again, and a rule
//! that is put into a chain again, can come first from then on, as when the program that makes it is restarted.

use crate::backend::Backend;
use crate::backend::iptables::situation::Situation;
use crate::backend::iptables::tools::Variant;
use crate::backend::nftables::lower::{NAT_FIRST, NAT_LAST};
use crate::config::Config;
use crate::plan::Family;
use crate::sys::netlink::ruleset::order::Turn;
use crate::sys::netlink::ruleset::{ChainType, HookedChain, Ruleset};

use super::super::model::{Ahead, Finding};
use super::native::{self, IPTABLES, Stand};
use super::{Ours, Traffic, rules};

/// Where rules of ours stand or will stand.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// What is wanted.
    pub config: &'a Config,
    /// By what way they come into the kernel.
    pub backend: Backend,
    /// The families that are redirected.
    pub families: &'a [Family],
}

impl Place<'_> {
    fn priority(&self, traffic: Traffic) -> i32 {
        let own = |first: bool| if first { NAT_FIRST } else { NAT_LAST };
        let redirect = &self.config.redirect;
        match (self.backend, traffic) {
            (Backend::Iptables(_), _) => IPTABLES,
            (Backend::Nftables, Traffic::Dns) => NAT_FIRST,
            (Backend::Nftables, Traffic::Outbound) => {
                own(redirect.outbound.insert_redirect_instead_of_append)
            }
            (Backend::Nftables, Traffic::Inbound) => own(redirect.inbound.insert_redirect_instead_of_append),
        }
    }

    fn comes_first(&self, traffic: Traffic) -> bool {
        let redirect = &self.config.redirect;
        match traffic {
            Traffic::Dns => true,
            Traffic::Outbound => redirect.outbound.insert_redirect_instead_of_append,
            Traffic::Inbound => redirect.inbound.insert_redirect_instead_of_append,
        }
    }

    fn stand(&self, traffic: Traffic) -> Stand {
        match self.backend {
            Backend::Iptables(variant) => {
                Stand { compat: variant == Variant::Legacy, ..Stand::iptables(variant) }
            }
            Backend::Nftables => Stand::own_table(self.priority(traffic)),
        }
    }

    /// What is redirected.
    fn redirected(&self, ours: &Ours) -> impl Iterator<Item = (Family, Traffic)> {
        let traffics = Traffic::ALL.into_iter().filter(|traffic| traffic.is_ours(ours)).collect::<Vec<_>>();
        self.families
            .iter()
            .flat_map(move |family| traffics.clone().into_iter().map(|traffic| (*family, traffic)))
    }

    fn ties(&self, ruleset: &Ruleset, ours: &Ours) -> Vec<(Ahead, Turn)> {
        let of = |(family, traffic)| native::ties(ruleset, family, traffic, ours, self.stand(traffic));
        self.redirected(ours).flat_map(of).collect()
    }

    /// Who comes first whatever happens.
    fn certain(&self, ruleset: &Ruleset, before: [&Situation; 2], ours: &Ours) -> Vec<Ahead> {
        let of = |(family, traffic): (Family, Traffic)| {
            let mut found = Vec::new();
            for before in before {
                found.extend(rules::untracked(before, family, traffic, ours));
                found.extend(match self.backend {
                    Backend::Nftables if self.priority(traffic) < IPTABLES => Vec::new(),
                    Backend::Nftables => rules::legacy(before, family, traffic, ours),
                    Backend::Iptables(variant) => {
                        rules::other_variant(before, (variant, family), traffic, ours)
                    }
                });
            }
            // What a program told is not told again as the kernel has it.
            let stand = self.stand(traffic);
            let untold = |of: &Situation| of.saved((Variant::Nft, family)).is_none();
            let compat = stand.own_table || before.iter().all(|of| untold(of));
            found.extend(native::earlier(ruleset, family, traffic, ours, Stand { compat, ..stand }));
            found
        };
        self.redirected(ours).flat_map(of).collect()
    }
}

/// The chains of others that have a place of ours, or an earlier one.
pub fn chains_at<'a>(place: &'a Place<'a>) -> impl Fn(&HookedChain) -> bool + 'a {
    let priorities = Traffic::ALL.map(|traffic| (traffic.hook(), place.priority(traffic)));
    move |chain| {
        let hook = if chain.hook == 0 { "prerouting" } else { "output" };
        let is_before = |(at, ours): &(&str, i32)| *at == hook && chain.priority <= *ours;
        native::may_be_ahead(chain)
            && (chain.kind == ChainType::Untracked || priorities.iter().any(is_before))
    }
}

/// What an installation says of others.
#[derive(Debug, Default)]
pub struct Found {
    /// Sentences.
    pub said: Vec<Finding>,
    /// Whether any of them comes first for sure.
    pub first: bool,
}

/// What an installation says: who comes first now, and who may after a restart. `before`: rules of iptables as they were
/// before it; `legacy`: those that no program was asked for.
pub fn install_findings(
    place: &Place<'_>,
    ruleset: &Ruleset,
    before: &Situation,
    legacy: &Situation,
    ours: &Ours,
) -> Found {
    let certain = place.certain(ruleset, [before, legacy], ours);
    let mut first = certain.iter().any(|ahead| !ahead.unsure);
    let mut said: Vec<Finding> = certain.iter().map(Ahead::finding).collect();
    for tie in place.ties(ruleset, ours) {
        first |= tie.1 == Turn::Before;
        said.push(tied(tie));
    }
    if let Backend::Iptables(variant) = place.backend {
        for (family, traffic) in place.redirected(ours) {
            let comes_first = place.comes_first(traffic);
            for ahead in rules::in_the_chain(before, (variant, family), traffic, ours) {
                first |= !comes_first;
                said.push(if comes_first { put_again(&ahead) } else { stands_before(&ahead, traffic) });
            }
        }
    }
    Found { said, first }
}

/// What is to be said of an installation although it comes first.
pub fn status_notes(
    place: &Place<'_>,
    ruleset: &Ruleset,
    situation: &Situation,
    ours: &Ours,
) -> Vec<Finding> {
    let ties = place.ties(ruleset, ours).into_iter().filter(|(_, turn)| *turn == Turn::After);
    let mut found: Vec<Finding> = ties.map(tied).collect();
    if let Backend::Iptables(variant) = place.backend {
        for (family, traffic) in place.redirected(ours) {
            let behind = rules::behind(situation, (variant, family), traffic, ours);
            found.extend(behind.iter().map(put_again));
        }
    }
    found
}

fn what(ahead: &Ahead) -> String {
    let Ahead { family, place, rule, traffic, all, .. } = ahead;
    let part = if *all { "" } else { "part of " };
    let traffic = match *traffic {
        "outbound" => "outgoing TCP",
        "inbound" => "incoming TCP",
        _ => "DNS questions",
    };
    format!("{place}, '{rule}', which is about {part}{family} {traffic}")
}

fn tied((ahead, turn): (Ahead, Turn)) -> Finding {
    let about = what(&ahead);
    let again = "of equal priorities, the chain that was made last comes first";
    match turn {
        Turn::Before => Finding::new(format!("{about}, comes before the redirection: {again}"), ahead.fix),
        Turn::Unknown => Finding::new(
            format!(
                "{about}, may come before the redirection: {again}, and this kernel does not tell which was"
            ),
            ahead.fix,
        ),
        Turn::After => Finding::new(
            format!(
                "{about}, comes after the redirection today. Made again, as by a restart of the program that it belongs \
                 to, it comes first: {again}"
            ),
            "give that chain a later priority, or exclude that traffic",
        ),
    }
}

fn stands_before(ahead: &Ahead, traffic: Traffic) -> Finding {
    let flag = match traffic {
        Traffic::Inbound => "--redirect-inbound-insert-instead-of-append",
        Traffic::Outbound | Traffic::Dns => "--redirect-outbound-insert-instead-of-append",
    };
    let fix = format!("install with {flag} to come first, or exclude that traffic");
    Finding { fix: Some(fix), ..ahead.finding() }
}

fn put_again(ahead: &Ahead) -> Finding {
    Finding::new(
        format!(
            "{}, stands behind ours today. Inserted again, as by a restart of firewalld or of the program that it belongs \
             to, it can come first",
            what(ahead)
        ),
        "'tproxy status' tells whether it does",
    )
}
