//! What is there: where rules live now, and the rules themselves.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crate::exit::{Exit, Failure};
use crate::passing::Passing;
use crate::plan::{Family, Table};
use crate::sys::netlink;
use crate::sys::rights::{self, Right};
use crate::sys::run::{self, Command, Output, RunError};

use super::legacy;
use super::piecewise;
use super::refusal::Refusal;
use super::save::{Saved, incompatible};
use super::tools::{Programs, Tools, Variant};
use super::whole;

/// How long a save program may take.
pub(super) const SAVE_DEADLINE: Duration = Duration::from_secs(10);

/// Rules by variant and family. What is not in it has no rules, or cannot be asked.
pub type Observation = BTreeMap<(Variant, Family), Saved>;

/// Variants and families whose programs did not tell what is there, and why not.
pub type Unread = Vec<((Variant, Family), Failure)>;

/// Whether there are rules of ours at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ours {
    /// There are none: it is not read.
    No,
    /// Only its program can tell. Where that cannot, it counts as without rules.
    Perhaps,
    /// There are some: it has to be read.
    Yes,
}

/// The tables that the save programs print and that there are, by variant and family. Nothing is created by looking.
#[derive(Debug, Clone, Default)]
pub struct Listed(BTreeMap<(Variant, Family), Vec<String>>);

impl Listed {
    /// Asks the kernel.
    ///
    /// # Errors
    /// It does not list its tables.
    pub fn read() -> Result<Self, Failure> {
        let mut listed: BTreeMap<(Variant, Family), Vec<String>> = BTreeMap::new();
        for (family, table) in netlink::nft_tables().map_err(|error| not_listed("tables", &error))? {
            listed.entry((Variant::Nft, family)).or_default().push(table);
        }
        for family in Family::BOTH {
            listed.insert((Variant::Legacy, family), legacy_names(family)?);
        }
        for names in listed.values_mut() {
            names.retain(|name| TABLES.contains(&name.as_str()));
        }
        listed.retain(|_, names| !names.is_empty());
        Ok(Self(listed))
    }

    /// The tables of a variant and family.
    pub fn tables(&self, variant: Variant, family: Family) -> &[String] {
        self.0.get(&(variant, family)).map_or(&[], Vec::as_slice)
    }

    /// Where there are any.
    pub fn places(&self) -> impl Iterator<Item = (Variant, Family)> {
        self.0.keys().copied()
    }
}

/// What a look may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// As many processes as it takes.
    Thorough,
    /// One process more where a save program leaves something out, and not one for each chain; but what rules counted
    /// too.
    Sparing,
}

/// Reads all rules of both variants and families, with as few processes as it takes: a variant without tables in
/// this network namespace is not asked. Nothing is created by looking.
///
/// # Errors
/// A save program is missing for a variant and family that has tables, or failed.
pub fn observe(tools: &Tools) -> Result<Observation, Failure> {
    let all = observe_places(tools, &with_tables(&Variant::BOTH, &TABLES)?, Effort::Thorough);
    all.into_iter().map(|(place, saved)| Ok((place, saved?))).collect()
}

/// The same as far as it can be read.
///
/// # Errors
/// The kernel does not list its tables.
pub fn observe_readable(tools: &Tools) -> Result<Observation, Failure> {
    Ok(sorted(observe_places(tools, &with_tables(&Variant::BOTH, &TABLES)?, Effort::Thorough)).0)
}

/// The same of those variants and families alone that have tables in which rules of ours can be. What else there is
/// counts as without rules.
///
/// # Errors
/// As those of [`observe`], and those of `ours`.
pub fn observe_some(
    tools: &Tools,
    listed: &Listed,
    ours: impl Fn(Variant, Family) -> Result<Ours, Failure>,
) -> Result<(Observation, Unread), Failure> {
    let mut places = Vec::new();
    let mut known = Vec::new();
    for (variant, family) in listed.places() {
        match ours(variant, family)? {
            Ours::No => continue,
            Ours::Perhaps => {}
            Ours::Yes => known.push((variant, family)),
        }
        places.push((variant, family));
    }
    let (observation, mut unread) = sorted(observe_places(tools, &places, Effort::Thorough));
    // A program that only crashed may know better in a moment.
    match unread.iter().position(|(place, failure)| known.contains(place) || failure.passing) {
        Some(at) => Err(unread.swap_remove(at).1),
        None => Ok((observation, unread)),
    }
}

/// What was seen with no more than so many processes.
#[derive(Debug)]
pub struct Sparingly {
    /// Rules.
    pub observation: Observation,
    /// Places for which there were not enough.
    pub left_out: Vec<(Variant, Family)>,
    /// Places whose programs did not tell.
    pub unread: Unread,
}

/// The same with the packets that each rule met so far, of these places alone, by as many processes as `most` at the
/// most.
///
/// # Errors
/// The kernel does not list its rules.
pub fn observe_sparingly(
    tools: &Tools,
    places: &[(Variant, Family)],
    most: usize,
) -> Result<Sparingly, Failure> {
    let readable = |(variant, family): &(Variant, Family)| tools.of(*variant).programs(*family).is_some();
    let mut places: Vec<_> = places.iter().copied().filter(readable).collect();
    let left_out = places.split_off(places.len().min(most));
    // What a save program would leave out of its output can be asked for at once.
    let mut listed = Vec::new();
    for &(variant, family) in &places {
        if variant == Variant::Nft && piecewise::has_native_rules(family)? {
            listed.push((variant, family));
        }
    }
    if places.len() + listed.len() <= most {
        listed.clear();
    }
    places.retain(|place| !listed.contains(place));
    let mut read = observe_places(tools, &places, Effort::Sparing);
    for (variant, family) in listed {
        if let Some(programs) = tools.of(variant).programs(family) {
            let saved = piecewise::read(programs, family, &Table::ALL, Effort::Sparing);
            read.push(((variant, family), saved));
        }
    }
    let (observation, unread) = sorted(read);
    Ok(Sparingly { observation, left_out, unread })
}

/// What was read, and what was not.
fn sorted(read: Vec<((Variant, Family), Result<Saved, Failure>)>) -> (Observation, Unread) {
    let (mut observation, mut unread) = (Observation::new(), Unread::new());
    for (place, saved) in read {
        match saved {
            Ok(saved) => drop(observation.insert(place, saved)),
            Err(failure) => unread.push((place, failure)),
        }
    }
    (observation, unread)
}

/// Where there are tables that can hold rules of ours.
///
/// # Errors
/// The kernel does not list its tables.
pub fn with_tables_of_ours() -> Result<Vec<(Variant, Family)>, Failure> {
    with_tables(&Variant::BOTH, &Table::ALL.map(Table::name))
}

/// The rules of one variant alone.
///
/// # Errors
/// As those of [`observe`].
pub fn observe_variant(tools: &Tools, variant: Variant) -> Result<Observation, Failure> {
    let all = observe_places(tools, &with_tables(&[variant], &TABLES)?, Effort::Thorough);
    all.into_iter().map(|(place, saved)| Ok((place, saved?))).collect()
}

/// Where there are tables, but no program to read them.
///
/// # Errors
/// The kernel does not list its tables.
pub fn unreadable(tools: &Tools) -> Result<Vec<(Variant, Family)>, Failure> {
    let mut places = Vec::new();
    for variant in Variant::BOTH {
        for family in Family::BOTH {
            if tools.of(variant).programs(family).is_none() && has_tables(variant, family, &TABLES)? {
                places.push((variant, family));
            }
        }
    }
    Ok(places)
}

fn with_tables(variants: &[Variant], tables: &[&str]) -> Result<Vec<(Variant, Family)>, Failure> {
    let mut places = Vec::new();
    for &variant in variants {
        for family in Family::BOTH {
            if has_tables(variant, family, tables)? {
                places.push((variant, family));
            }
        }
    }
    Ok(places)
}

fn observe_places(
    tools: &Tools,
    places: &[(Variant, Family)],
    effort: Effort,
) -> Vec<((Variant, Family), Result<Saved, Failure>)> {
    let args: &[&str] = if effort == Effort::Sparing { &["-c"] } else { &[] };
    let mut all = Vec::new();
    let mut asked = Vec::new();
    for &(variant, family) in places {
        if let Some(programs) = tools.of(variant).programs(family) {
            let command = Command::new(&programs.save, args.iter().copied(), SAVE_DEADLINE);
            asked.push(((variant, family), programs, command));
        } else {
            // Tables of a variant that no program here can read: nothing of ours is in them, or it was put there by
            // another machine's tools (an init container's) that are not ours to replace.
            all.push(((variant, family), Ok(Saved::default())));
        }
    }
    // All are started before the first is waited for.
    let started: Vec<_> =
        asked.iter().map(|(place, programs, command)| (*place, *programs, run::start(command))).collect();
    for (place, programs, started) in started {
        let output = started.and_then(run::Started::finish);
        let output = output.map_err(|error| not_run(&error));
        all.push((place, output.and_then(|output| read(programs, place, &output, effort))));
    }
    all
}

/// A program that did not come to its end.
pub(super) fn not_run(error: &RunError) -> Failure {
    let failure = match error.remedy() {
        Some(remedy) if error.is_passing() => Failure::new(Exit::Failed, error.to_string()).hint(remedy),
        Some(remedy) => Failure::new(Exit::Host, error.to_string()).hint(remedy),
        None => Failure::new(Exit::Failed, error.to_string()),
    };
    failure.passing(error.is_passing())
}

/// The kernel does not list what it has in `nf_tables`.
pub fn not_listed(what: &str, error: &io::Error) -> Failure {
    let passing = error.is_passing();
    let exit = if passing { Exit::Failed } else { Exit::Host };
    let failure = Failure::new(exit, format!("the kernel does not list its nftables {what}: {error}"));
    match error.kind() {
        io::ErrorKind::PermissionDenied => failure.hint(rights::remedy(&[Right::NetAdmin])),
        _ => failure.passing(passing),
    }
}

/// What the programs of a variant lack to do anything at all; they hardly say so. The legacy ones open a raw socket.
pub fn lacks_rights(variant: Variant) -> Option<String> {
    let legacy = || rights::remedy_if_lacking(&[Right::NetAdmin, Right::NetRaw]);
    (variant == Variant::Legacy).then(legacy).flatten()
}

fn warn_of_unreadable((variant, family): (Variant, Family)) {
    tracing::warn!("there are {family} tables of the {variant} variant, but no program to read them");
}

/// What a save program printed.
fn read(
    programs: &Programs,
    (variant, family): (Variant, Family),
    output: &Output,
    effort: Effort,
) -> Result<Saved, Failure> {
    if !output.success() {
        let words = Refusal::read(&String::from_utf8_lossy(&output.stderr), "").words;
        let message = format!("{} failed with {}: {words}", programs.save.display(), output.ending());
        let by_hand = || "run that command by hand; it has to work before this one can".to_owned();
        return Err(Failure::new(if output.is_passing() { Exit::Failed } else { Exit::Host }, message)
            .passing(output.is_passing())
            .hint(lacks_rights(variant).unwrap_or_else(by_hand)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    if programs.presumed && generator(&text).is_some_and(|is| is != variant) {
        warn_of_unreadable((variant, family));
        return Ok(Saved::default());
    }
    whole::is_said_to_be(programs, &said)?;
    let mut saved = Saved::parse(&text);
    let mut left_out: Vec<_> = incompatible(&text).into_iter().chain(incompatible(&said)).collect();
    left_out.sort_unstable();
    left_out.dedup();
    if !left_out.is_empty() {
        saved.tables.extend(piecewise::read(programs, family, &left_out, effort)?.tables);
    }
    whole::check(programs, (variant, family), &text, &saved)?;
    Ok(saved)
}

/// Whose rules a save program says it printed: `# Generated by iptables-nft-save v1.8.9 (nf_tables) on …`, the first
/// versions `xtables-save`; of the legacy variant `iptables-save v1.8.9`.
fn generator(text: &str) -> Option<Variant> {
    let said = text.lines().find_map(|line| line.strip_prefix("# Generated by "))?;
    let nft = ["nft", "nf_tables", "xtables"].iter().any(|word| said.contains(word));
    Some(if nft { Variant::Nft } else { Variant::Legacy })
}

/// The tables that the save programs print.
const TABLES: [&str; 5] = ["filter", "mangle", "nat", "raw", "security"];

fn legacy_names(family: Family) -> Result<Vec<String>, Failure> {
    legacy::names(family).map_err(|error| Failure::new(Exit::Failed, error.to_string()).passing(true))
}

/// Whether a variant has tables of a family here; asked in ways that create none.
fn has_tables(variant: Variant, family: Family, tables: &[&str]) -> Result<bool, Failure> {
    match variant {
        Variant::Nft => {
            let names = netlink::nft_table_names(family).map_err(|error| not_listed("tables", &error))?;
            Ok(names.iter().any(|name| tables.contains(&name.as_str())))
        }
        Variant::Legacy => {
            let names = legacy_names(family)?;
            Ok(names.iter().any(|name| tables.contains(&name.as_str())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn save_programs_say_what_they_are() {
        for (line, is) in [
            (
                "# Generated by iptables-nft-save v1.8.9 (nf_tables) on Sat Nov 21 12:14:21 2026",
                Some(Variant::Nft),
            ),
            ("# Generated by iptables-save v1.8.7 (nf_tables) on Sat", Some(Variant::Nft)),
            ("# Generated by xtables-save v1.8.2 on Sat", Some(Variant::Nft)),
            ("# Generated by iptables-save v1.8.9 on Sat", Some(Variant::Legacy)),
            ("*nat", None),
        ] {
            assert_eq!(generator(&format!("# Warning: x\n{line}\n")), is, "{line}");
        }
    }
}
