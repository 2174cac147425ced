//! What is there and whose it is, for every variant and family; and from it, what has to change. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{Family, Table};

use super::observe::Observation;
use super::owned::{Ownership, RecordedRule, SharedRule};
use super::save::Saved;
use super::tools::{Tools, Variant};
use super::transition::{self, TableChange};
use super::typed::{self, TypedRule};
use super::wanted::Wanted;

/// One variant's rules of one family.
pub type Place = (Variant, Family);

/// What each place needs; places that need nothing are not in it.
pub type Changes = BTreeMap<Place, Vec<TableChange>>;

/// Lines of a script that take out rules which the programs do not find by their words, although they print them.
pub type Unfound = BTreeMap<Place, Vec<String>>;

/// Rules without comment by family, as the state file records them.
pub type Recorded = BTreeMap<Family, Vec<RecordedRule>>;

/// What is there and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    observation: Observation,
    ownership: BTreeMap<Place, Ownership>,
}

impl Situation {
    /// Tells ours from theirs.
    pub fn new(observation: Observation, recorded: &Recorded) -> Self {
        let ownership = observation
            .iter()
            .map(|(&(variant, family), saved)| {
                let recorded = recorded.get(&family).map(Vec::as_slice).unwrap_or_default();
                ((variant, family), Ownership::of(saved, recorded))
            })
            .collect();
        Self { observation, ownership }
    }

    /// All that was read.
    pub fn into_observation(self) -> Observation {
        self.observation
    }

    /// Whether the rules of both are the same, whoever they belong to.
    pub fn same_rules(&self, other: &Self) -> bool {
        self.observation == other.observation
    }

    /// Whether anything is ours.
    pub fn is_installed(&self) -> bool {
        self.ownership.values().any(|own| !own.is_empty())
    }

    /// The variants in which something is ours.
    pub fn installed(&self) -> BTreeSet<Variant> {
        let ours = self.ownership.iter().filter(|(_, own)| !own.is_empty());
        ours.map(|((variant, _), _)| *variant).collect()
    }

    /// Whose rules are whose, by place.
    pub fn ownership(&self) -> impl Iterator<Item = (Place, &Ownership)> {
        self.ownership.iter().map(|(place, own)| (*place, own))
    }

    /// Everything that was read at a place.
    pub fn saved(&self, place: Place) -> Option<&Saved> {
        self.observation.get(&place)
    }

    /// The rules of ours at a place that can be read as data.
    pub fn own_rules(&self, place: Place) -> Vec<TypedRule> {
        match (self.observation.get(&place), self.ownership.get(&place)) {
            (Some(saved), Some(own)) => typed::own_rules(saved, own),
            _ => Vec::new(),
        }
    }

    /// The rules of ours of a family that have a say in where datagrams go.
    pub fn datagram_rules(&self, family: Family) -> Vec<TypedRule> {
        let places = self.ownership.iter().filter(|((_, of), _)| *of == family);
        let rules = places.filter_map(|(place, own)| {
            let about_them = |words: &str| words.contains("-p udp");
            Some(typed::own_rules_with(self.observation.get(place)?, own, about_them))
        });
        rules.flatten().collect()
    }

    /// Whether any of our chains of a family has a rule: only they redirect connections.
    pub fn redirects(&self, family: Family) -> bool {
        let places = self.ownership.iter().filter(|((_, of), _)| *of == family);
        places.into_iter().any(|(place, own)| {
            let nat = self.observation.get(place).and_then(|saved| saved.table(Table::Nat.name()));
            own.chains.iter().any(|name| {
                nat.and_then(|nat| nat.chain(name.name())).is_some_and(|chain| !chain.rules.is_empty())
            })
        })
    }

    /// How many rules are ours, by family.
    pub fn own_rule_counts(&self) -> BTreeMap<Family, usize> {
        let mut counts = BTreeMap::new();
        for ((_, family), wanted) in self.as_wanted() {
            if wanted.rule_count() > 0 {
                *counts.entry(family).or_default() += wanted.rule_count();
            }
        }
        counts
    }

    /// Rules that look like ours but carry no comment, by place.
    pub fn unclaimed(&self) -> Vec<(Place, &SharedRule)> {
        self.ownership()
            .flat_map(|(place, own)| own.unclaimed.iter().map(move |rule| (place, rule)))
            .collect()
    }

    /// Rules beside them of which nobody knows whose they are, by place.
    pub fn doubtful(&self) -> Vec<(Place, &SharedRule)> {
        self.ownership().flat_map(|(place, own)| own.doubtful.iter().map(move |rule| (place, rule))).collect()
    }

    /// Other people's rules that lead to our chains, by place.
    pub fn jumps(&self) -> Vec<(Place, &SharedRule)> {
        self.ownership().flat_map(|(place, own)| own.jumps.iter().map(move |rule| (place, rule))).collect()
    }

    /// Makes rules that look like ours ours.
    pub fn adopt(&mut self) {
        self.ownership.values_mut().for_each(Ownership::adopt);
    }

    /// Makes other people's jumps to our chains removable.
    pub fn seize_jumps(&mut self) {
        self.ownership.values_mut().for_each(Ownership::seize_jumps);
    }

    /// Whether Docker's embedded DNS server is set up: its chain is in the IPv4 nat table.
    pub fn has_docker_dns(&self, variant: Variant) -> bool {
        let saved = self.observation.get(&(variant, Family::V4));
        saved
            .and_then(|saved| saved.table(Table::Nat.name()))
            .is_some_and(|nat| nat.chain("DOCKER_OUTPUT").is_some())
    }

    /// The variant to use, and why: the one where the host's rules are, nft where that decides nothing.
    pub fn choose(&self, tools: &Tools) -> Option<(Variant, &'static str)> {
        if let Some(named) = tools.named {
            return Some((named, "the configuration names its programs"));
        }
        let usable = |variant: Variant| tools.of(variant).v4.is_some();
        let used = |variant| {
            Family::BOTH.iter().any(|&f| self.observation.get(&(variant, f)).is_some_and(Saved::has_content))
        };
        let whose = |variant| {
            let ours = Family::BOTH.iter().any(|&family| !self.own_rules((variant, family)).is_empty());
            if ours { "it is what is installed" } else { "the host's rules are there" }
        };
        match (usable(Variant::Nft), usable(Variant::Legacy)) {
            (false, false) => None,
            (true, false) => Some((Variant::Nft, "the only variant that was found")),
            (false, true) => Some((Variant::Legacy, "the only variant that was found")),
            (true, true) => Some(match (used(Variant::Nft), used(Variant::Legacy)) {
                (false, true) => (Variant::Legacy, whose(Variant::Legacy)),
                (true, true)
                    if self.has_docker_dns(Variant::Legacy) && !self.has_docker_dns(Variant::Nft) =>
                {
                    (Variant::Legacy, "Docker's rules are there")
                }
                (true, true) => (Variant::Nft, "both variants have rules"),
                (true, false) => (Variant::Nft, whose(Variant::Nft)),
                (false, false) => (Variant::Nft, "neither variant has rules yet"),
            }),
        }
    }

    /// What has to change for each place to be as wanted; a place that is not in `wanted` loses all that is ours.
    pub fn changes(&self, wanted: &BTreeMap<Place, Wanted>) -> Changes {
        self.changes_with(wanted, &Unfound::new())
    }

    /// The same, with rules that the programs do not find by their words.
    pub fn changes_with(&self, wanted: &BTreeMap<Place, Wanted>, unfound: &Unfound) -> Changes {
        let (nothing, empty, nobody) = (Wanted::nothing(), Saved::default(), Ownership::default());
        let mut places: Vec<Place> = self.observation.keys().chain(wanted.keys()).copied().collect();
        places.sort_unstable();
        places.dedup();
        places
            .into_iter()
            .map(|place| {
                let saved = self.observation.get(&place).unwrap_or(&empty);
                let own = self.ownership.get(&place).unwrap_or(&nobody);
                let wanted = wanted.get(&place).unwrap_or(&nothing);
                let unfound = unfound.get(&place).map(Vec::as_slice).unwrap_or_default();
                (place, transition::changes_by_number(saved, own, wanted, unfound))
            })
            .filter(|(_, changes)| !changes.is_empty())
            .collect()
    }

    /// What the state file records of wanted rules without comments.
    pub fn records(&self, place: Place, wanted: &Wanted) -> Vec<RecordedRule> {
        let (empty, nobody) = (Saved::default(), Ownership::default());
        let saved = self.observation.get(&place).unwrap_or(&empty);
        wanted.recorded(saved, self.ownership.get(&place).unwrap_or(&nobody))
    }

    /// What is ours now, as something to come back to.
    pub fn as_wanted(&self) -> BTreeMap<Place, Wanted> {
        self.observation
            .iter()
            .filter_map(|(place, saved)| Some((*place, Wanted::before(saved, self.ownership.get(place)?))))
            .collect()
    }
}
