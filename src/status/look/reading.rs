//! What of the rules is read by programs of iptables: what may be ours. Everything else is asked of the kernel.

use std::path::{Path, PathBuf};

use crate::apply::look::{self, Record};
use crate::apply::store::State;
use crate::backend::iptables::legacy;
use crate::backend::iptables::observe::{self, Observation, Ours};
use crate::backend::iptables::situation::{Place, Situation};
use crate::backend::iptables::tools::{Tools, Variant};
use crate::config::Executables;
use crate::exit::{Exit, Failure};
use crate::host;
use crate::plan::Family;
use crate::text::escape;

use super::super::model::{Compared, Finding};
use super::super::source;
use super::Look;

/// So many programs are run at the most.
pub(super) const CHILDREN: usize = 4;

/// What is to be done about a program that was stuck.
const BY_HAND: &str = "run that program by hand, to see why it does not end";

/// A place whose rules were not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    place: Place,
    why: Why,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    /// There are no programs for it.
    WithoutProgram,
    /// Its program did not tell.
    Failed(Failure),
    /// There were too many others to run.
    TooMany,
    /// There were, with the one that looks up the sidecar's user.
    TooManyWithUser,
}

impl Unread {
    /// Why the variant's program did not tell.
    pub fn failed_in(&self, variant: Variant) -> Option<&Failure> {
        match &self.why {
            Why::Failed(failure) if self.place.0 == variant => Some(failure),
            _ => None,
        }
    }

    fn what(&self) -> String {
        let (variant, family) = self.place;
        match &self.why {
            Why::WithoutProgram => format!(
                "there are {family} rules of the {variant} variant, but no {variant} iptables to read them"
            ),
            Why::Failed(failure) => {
                format!("the {family} rules of the {variant} variant were not read ({failure})")
            }
            Why::TooMany | Why::TooManyWithUser => format!(
                "the {family} rules of the {variant} variant were not read, to run {CHILDREN} programs at most"
            ),
        }
    }

    fn fix(&self) -> String {
        let (variant, _) = self.place;
        match &self.why {
            Why::Failed(failure) => failure.hint.as_deref().unwrap_or(BY_HAND).to_owned(),
            Why::WithoutProgram => format!("install the {variant} variant of iptables"),
            Why::TooMany => {
                "name programs in --iptables-executables whose names or links say 'nft' or 'legacy', so \
                             that none has to be asked what it is"
                    .to_owned()
            }
            Why::TooManyWithUser => {
                "give the sidecar's UID with --kuma-dp-user, so that no program has to look it up".to_owned()
            }
        }
    }

    /// When nothing of ours was found elsewhere.
    pub fn failure(&self) -> Failure {
        let message = format!("{}, so whether anything is installed is not known", self.what());
        Failure::new(Exit::Host, message).hint(self.fix())
    }
}

/// Where only a program can tell what is there; and legacy rules of others, which the kernel tells.
///
/// # Errors
/// The kernel does not list its tables.
pub fn places(record: &Record) -> Result<(Vec<Place>, Observation), Failure> {
    let mut places = Vec::new();
    let mut others = Observation::new();
    let legacy = look::legacy(&Family::BOTH, legacy::read);
    for place in observe::with_tables_of_ours()? {
        if look::ours(place, record, &legacy)? != Ours::No {
            places.push(place);
        } else if let (Variant::Legacy, Some(tables)) = (place.0, legacy.get(&place.1)) {
            others.insert(place, tables.saved(true));
        }
    }
    Ok((places, others))
}

/// The programs for these places; without any, none is looked for.
///
/// # Errors
/// A named program cannot be used.
pub fn tools(places: &[Place], named: &Executables, known: Option<Variant>) -> Result<Tools, Failure> {
    if places.is_empty() {
        return Ok(Tools::default());
    }
    Tools::find_to_read(named, std::env::var_os("PATH").as_ref(), known)
}

/// What is to be said where a record names other programs than those that read these places: it makes nobody run them.
pub fn unnamed_programs(places: &[Place], tools: &Tools, state: &State) -> Option<Finding> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let used = places.iter().filter_map(|(variant, family)| tools.of(*variant).programs(*family));
    let used: Vec<PathBuf> = used.map(|programs| real(&programs.save)).collect();
    let named = source::programs(&state.config);
    let unused = |(name, path): &(&str, PathBuf)| name.ends_with("-save") && !used.contains(&real(path));
    if places.is_empty() || !named.iter().any(unused) {
        return None;
    }
    let what = "the installation named programs of iptables that were not run, because a record alone makes nobody run one";
    tracing::info!("{what}");
    let named: Vec<String> = named.iter().map(|(name, path)| format!("{name}:{}", path.display())).collect();
    let flag = format!("--iptables-executables {}", escape(&named.join(",")));
    Some(Finding::new(what, format!("add '{flag}' to have the rules read by them")))
}

impl Look {
    /// Reads what only programs can, and tells where they could not.
    pub(super) fn read(&mut self) -> Result<(Situation, Vec<Unread>), Failure> {
        let readable = self.places.iter().filter(|(v, f)| self.tools.of(*v).programs(*f).is_some()).count();
        let mut left = CHILDREN.saturating_sub(self.tools.asked);
        let mut why = Why::TooMany;
        let user = self.config.kuma_dp_user.as_ref();
        if host::sidecar_user_takes_a_program(user, self.config.cni_mode) {
            self.user_unasked = readable >= left && !self.must_ask_for_user();
            if !self.user_unasked {
                left = left.saturating_sub(1);
                why = Why::TooManyWithUser;
            }
        }
        let mut seen = observe::observe_sparingly(&self.tools, &self.places, left)?;
        seen.observation.append(&mut self.others);
        let without = self.places.iter().filter(|(v, f)| self.tools.of(*v).programs(*f).is_none());
        let without = without.map(|&place| Unread { place, why: Why::WithoutProgram });
        let left_out = seen.left_out.into_iter().map(|place| Unread { place, why: why.clone() });
        let failed =
            seen.unread.into_iter().map(|(place, failure)| Unread { place, why: Why::Failed(failure) });
        let unread = without.chain(left_out).chain(failed).collect();
        Ok((Situation::new(seen.observation, &self.recorded()), unread))
    }

    /// Whether nothing else tells the sidecar's UID: not the record, which is about another user, and not the rules,
    /// with which a configuration of this command's is compared.
    fn must_ask_for_user(&self) -> bool {
        self.compared == Compared::Given && !self.is_recorded_user()
    }

    /// Whether the recorded UID is that of the configuration's user.
    pub(super) fn is_recorded_user(&self) -> bool {
        let recorded = self.state.as_ref().and_then(|state| source::read(&state.config));
        recorded.is_some_and(|recorded| {
            (&recorded.kuma_dp_user, recorded.cni_mode) == (&self.config.kuma_dp_user, self.config.cni_mode)
        })
    }

    /// What was not read may be ours, or ahead of ours. `variant` is that of the rules, if they are there through
    /// iptables.
    pub(super) fn say_what_is_unread(&mut self, unread: &[Unread], variant: Option<Variant>) {
        for unread in unread {
            let what = unread.what();
            // Of the nft variant only what is ours has to be read.
            if Some(unread.place.0) == variant || unread.place.0 == Variant::Nft {
                self.problems.push(Finding::new(format!("{what}, so they cannot be compared"), unread.fix()));
            } else {
                self.notes.push(Finding::new(format!("{what}, so some may be ahead of ours"), unread.fix()));
            }
        }
    }
}
