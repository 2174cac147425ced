//! What of the rules is read by programs of iptables: what may be ours, and legacy rules, which may be ahead of ours and
//! which no other way leads to. Everything else is asked of the kernel.

use crate::apply::look::may_be_ours;
use crate::backend::iptables::observe;
use crate::backend::iptables::situation::{Place, Recorded, Situation};
use crate::backend::iptables::tools::{Tools, Variant};
use crate::config::Executables;
use crate::exit::{Exit, Failure};

use super::super::model::Finding;
use super::Look;

/// So many programs are run at the most.
const CHILDREN: usize = 4;

/// A place whose rules were not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread {
    place: Place,
    /// There are no programs for it; else there were too many others to run.
    without_program: bool,
}

impl Unread {
    fn what(self) -> String {
        let (variant, family) = self.place;
        if self.without_program {
            format!(
                "there are {family} rules of the {variant} variant, but no {variant} iptables to read them"
            )
        } else {
            format!(
                "the {family} rules of the {variant} variant were not read, to run {CHILDREN} programs at most"
            )
        }
    }

    fn fix(self) -> String {
        let (variant, _) = self.place;
        if self.without_program {
            format!("install the {variant} variant of iptables")
        } else {
            "name programs in --iptables-executables whose names or links say 'nft' or 'legacy', so that none has to \
             be asked what it is"
                .to_owned()
        }
    }

    /// When nothing of ours was found elsewhere.
    pub fn failure(self) -> Failure {
        let message = format!("{}, so whether anything is installed cannot be told", self.what());
        Failure::new(Exit::Host, message).hint(self.fix())
    }
}

/// Where only a program can tell what is there.
///
/// # Errors
/// The kernel does not list its tables.
pub fn places(recorded: &Recorded) -> Result<Vec<Place>, Failure> {
    let mut places = Vec::new();
    for (variant, family) in observe::with_tables_of_ours()? {
        if may_be_ours(variant, family, recorded)? {
            places.push((variant, family));
        }
    }
    Ok(places)
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

impl Look {
    /// Reads what only programs can, and tells where they could not.
    pub(super) fn read(&self) -> Result<(Situation, Vec<Unread>), Failure> {
        let left = CHILDREN.saturating_sub(self.tools.asked);
        let (seen, left_out) = observe::observe_sparingly(&self.tools, &self.places, left)?;
        let without = self.places.iter().filter(|(v, f)| self.tools.of(*v).programs(*f).is_none());
        let without = without.map(|&place| Unread { place, without_program: true });
        let left_out = left_out.into_iter().map(|place| Unread { place, without_program: false });
        Ok((Situation::new(seen, &self.recorded()), without.chain(left_out).collect()))
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
