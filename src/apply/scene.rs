//! What is there, what shall be there, and what lies between, whatever way rules take into the kernel. Pure.

use std::collections::BTreeMap;

use crate::backend::Backend;
use crate::backend::iptables::landed;
use crate::backend::iptables::observe::Unread;
use crate::backend::iptables::situation::{Changes, Place, Situation, Unfound};
use crate::backend::iptables::tools::{Tools, Variant};
use crate::backend::iptables::typed::TypedRule;
use crate::backend::iptables::wanted::Wanted;
use crate::backend::nftables::change::{Change, Wanted as WantedTable};
use crate::backend::nftables::decode::Observed;
use crate::backend::nftables::foreign;
use crate::backend::nftables::lower;
use crate::backend::nftables::model::Table;
use crate::config::values::BackendChoice;
use crate::plan::{Family, FamilyPlan, Plan};
use crate::present::RuleCounts;

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scene {
    /// In the tables that everybody shares.
    pub iptables: Situation,
    /// Our own table.
    pub native: Option<Observed>,
    /// The kernel's generation of `nf_tables` when it was so, unless it has none.
    pub generation: Option<u32>,
    /// Families of which there are legacy tables.
    pub legacy: Vec<Family>,
    /// Docker's embedded DNS server, wherever its chain is.
    pub docker_dns: bool,
    /// Where there may be more, and why that is not known.
    pub unread: Unread,
}

/// What shall be there. What is not in it shall go, if it is ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Goal {
    /// In the tables that everybody shares.
    pub iptables: BTreeMap<Place, Wanted>,
    /// Our own table.
    pub native: Option<WantedTable>,
}

/// What lies between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps {
    /// In the tables that everybody shares.
    pub iptables: Changes,
    /// Our own table.
    pub native: Change,
}

impl Scene {
    /// Whether the rules of both are the same, whoever they belong to.
    pub fn same_rules(&self, other: &Self) -> bool {
        self.iptables.same_rules(&other.iptables) && self.table() == other.table()
    }

    /// Our own table.
    pub fn table(&self) -> Option<&Table> {
        self.native.as_ref().map(|observed| &observed.table)
    }

    /// Whether there is a table of our own, and not only one of its name.
    pub fn has_own_table(&self) -> bool {
        self.table().is_some_and(foreign::is_installation)
    }

    /// By what way to go, and why. `None`: there is none.
    pub fn choose(&self, choice: BackendChoice, tools: &Tools) -> Option<(Backend, &'static str)> {
        let iptables = || self.iptables.choose(tools).map(|(variant, why)| (Backend::Iptables(variant), why));
        match choice {
            BackendChoice::Nftables => Some((Backend::Nftables, "it was asked for")),
            BackendChoice::Iptables => iptables(),
            BackendChoice::Auto if self.has_own_table() => {
                Some((Backend::Nftables, "it is what is installed"))
            }
            BackendChoice::Auto => iptables().or(Some((Backend::Nftables, "no iptables was found"))),
        }
    }

    /// Whether Docker's embedded DNS server is where rules of this backend would meet it.
    pub fn has_docker_dns(&self, backend: Backend) -> bool {
        match backend {
            Backend::Iptables(variant) => self.iptables.has_docker_dns(variant),
            Backend::Nftables => {
                self.docker_dns || Variant::BOTH.iter().any(|&v| self.iptables.has_docker_dns(v))
            }
        }
    }

    /// What has to change.
    pub fn steps(&self, goal: &Goal) -> Steps {
        self.steps_with(goal, &Unfound::new())
    }

    /// The same, with rules that the programs do not find by their words.
    pub fn steps_with(&self, goal: &Goal, unfound: &Unfound) -> Steps {
        let native = Change::to(self.native.as_ref(), goal.native.as_ref(), false);
        Steps { iptables: self.iptables.changes_with(&goal.iptables, unfound), native }
    }

    /// What is ours now, as something to come back to.
    pub fn as_goal(&self) -> Goal {
        Goal { iptables: self.iptables.as_wanted(), native: self.native.clone().map(WantedTable::Former) }
    }

    /// The families whose traffic rules of ours redirect now.
    pub fn redirected(&self) -> Vec<Family> {
        let native = self.table().filter(|table| foreign::is_installation(table));
        redirected(|family| self.iptables.redirects(family), native)
    }

    /// By what ways something of ours is there.
    pub fn installed(&self) -> Vec<Backend> {
        let iptables = self.iptables.installed().into_iter().map(Backend::Iptables);
        iptables.chain(self.native.is_some().then_some(Backend::Nftables)).collect()
    }

    /// How many rules are ours.
    pub fn own_rules(&self) -> RuleCounts {
        RuleCounts { families: self.iptables.own_rule_counts(), native: self.table().map(Table::rule_count) }
    }
}

impl Goal {
    /// What a plan is in the kernel; `commented` says of which family rules carry their reason.
    pub fn of(plan: &Plan, backend: Backend, commented: impl Fn(Family) -> bool) -> Self {
        match backend {
            Backend::Iptables(variant) => {
                let wanted = |plan: &FamilyPlan| Wanted::plan(plan, commented(plan.family));
                let places = plan.families.iter().map(|plan| ((variant, plan.family), wanted(plan)));
                Self { iptables: places.collect(), native: None }
            }
            Backend::Nftables => {
                let native = lower::table(plan, commented(Family::V4));
                Self { iptables: BTreeMap::new(), native: Some(WantedTable::New(native)) }
            }
        }
    }

    /// Whether all rules came to the places that programs were told, as far as the kernel tells.
    pub fn has_landed(&self) -> bool {
        let nft = self.iptables.iter().filter(|((variant, _), _)| *variant == Variant::Nft);
        nft.into_iter().all(|((_, family), wanted)| landed::all(*family, wanted))
    }

    /// The families whose traffic it redirects.
    pub fn redirected(&self) -> Vec<Family> {
        let over_iptables =
            |family| self.iptables.iter().any(|((_, of), wanted)| *of == family && wanted.redirects());
        redirected(over_iptables, self.native.as_ref().map(WantedTable::table))
    }

    /// The rules over iptables of a family that have a say in where datagrams go.
    pub fn datagram_rules(&self, family: Family) -> Vec<TypedRule> {
        let places = self.iptables.iter().filter(|((_, of), _)| *of == family);
        places.flat_map(|(_, wanted)| wanted.datagram_rules()).collect()
    }

    /// How many rules that is.
    pub fn rules(&self) -> RuleCounts {
        RuleCounts {
            families: self
                .iptables
                .iter()
                .map(|((_, family), wanted)| (*family, wanted.rule_count()))
                .collect(),
            native: self.native.as_ref().map(|wanted| wanted.table().rule_count()),
        }
    }
}

fn redirected(over_iptables: impl Fn(Family) -> bool, native: Option<&Table>) -> Vec<Family> {
    let natively = |of| native.is_some_and(|table| !table.lets_pass(of));
    Family::BOTH.into_iter().filter(|&family| over_iptables(family) || natively(family)).collect()
}

impl Steps {
    /// Whether all is as wanted.
    pub fn is_empty(&self) -> bool {
        self.iptables.is_empty() && self.native.is_nothing()
    }
}
