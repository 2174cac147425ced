//! Putting a configuration together: defaults, then files in their order, then variables, then flags.
//!
//! Everything that is wrong is collected; a run that refuses to start says all of it at once.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;

use super::origin::{Origin, Sources, invalid_value};
use super::settings::{self, CHAIN_NAMES, IGNORED_ALTERNATES, PREFIX, SETTINGS, Setting};
use super::text::{nearest, quoted, switch};
use super::values::InvalidValue;
use super::{Config, checks, document, files};

/// A configuration file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// As messages name it.
    pub name: String,
    /// What it holds.
    pub text: String,
    /// Whether it is what an installation recorded. That names no program to run: only its user does.
    pub recorded: bool,
}

/// One flag as it was typed.
#[derive(Debug, Clone)]
pub struct Flag {
    /// What it sets.
    pub setting: &'static Setting,
    /// Its name without dashes, which may be an older name of the setting's flag.
    pub name: &'static str,
    /// Its value.
    pub text: String,
}

/// Everything that was said, in the order in which it counts.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// Files; later ones count more.
    pub files: Vec<File>,
    /// The environment, or the part of it that `is_variable` picks.
    pub variables: Vec<(String, String)>,
    /// Flags in the order of the command line.
    pub flags: Vec<Flag>,
    /// Whether the sources name lines of files. Lines are always looked up for what is worth a message; for every
    /// value it takes time that only somebody who will look at them should spend.
    pub lines: bool,
}

/// A configuration that passed every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The values.
    pub config: Config,
    /// Where each came from.
    pub sources: Sources,
    /// What most likely was not meant so.
    pub warnings: Vec<String>,
    /// What is good to know.
    pub notes: Vec<String>,
    /// The names of the files, in their order.
    pub files: Vec<String>,
}

/// Everything that is wrong, one sentence each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

/// How many problems are listed, located in their file and explained by a suggestion; the rest is counted. Of warnings
/// as many.
pub const LISTED: usize = 50;

/// How many bytes of files are read again to find lines: of problems, and of values as many. A file of half of that has
/// two lines found, and one of any size the first.
const LOOKED_UP: usize = 512 << 10;

/// The same of values, where their lines were asked for.
const ASKED_FOR: usize = 32 << 20;

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return f.write_str(only);
        }
        write!(f, "{} problems in the configuration:", self.0.len())?;
        for problem in self.0.iter().take(LISTED) {
            write!(f, "\n  {problem}")?;
        }
        match self.0.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// Whether a variable of the environment is for us.
pub fn is_variable(name: &str) -> bool {
    name.starts_with(PREFIX)
        || SETTINGS.iter().any(|setting| setting.alternate == Some(name))
        || IGNORED_ALTERNATES.iter().any(|(ignored, _)| *ignored == name)
}

/// Puts the layers together and checks the result.
pub fn resolve(layers: &Layers) -> Result<Resolved, Problems> {
    let (resolved, problems) = resolve_anyway(layers);
    if problems.0.is_empty() { Ok(resolved) } else { Err(problems) }
}

/// The same for a run that nothing may stop: a setting with a problem keeps the value that it had before.
pub fn resolve_anyway(layers: &Layers) -> (Resolved, Problems) {
    let mut work = run(layers, layers.lines);
    let silent = work.problems.is_empty() && work.warnings.is_empty() && work.notes.is_empty();
    if !silent && !layers.lines {
        work = run(layers, true);
    }
    let Work { config, sources, problems, warnings, notes, .. } = work;
    let files = layers.files.iter().map(|file| file.name.clone()).collect();
    (Resolved { config, sources, warnings, notes, files }, Problems(problems))
}

fn run(layers: &Layers, lines: bool) -> Work {
    let values = if layers.lines { ASKED_FOR } else { LOOKED_UP };
    let room = |bytes| Cell::new(Room { bytes, used: false });
    let mut work = Work { lines, of_problems: room(LOOKED_UP), of_values: room(values), ..Work::default() };
    for file in &layers.files {
        files::apply(&mut work, file);
    }
    work.variables(&layers.variables);
    work.flags(&layers.flags);
    checks::run(&mut work);
    let mut said = BTreeSet::new();
    work.problems.retain(|problem| said.insert(problem.clone()));
    work
}

/// A resolution under way.
#[derive(Default)]
pub(super) struct Work {
    pub config: Config,
    pub sources: Sources,
    pub problems: Vec<String>,
    pub warnings: Vec<String>,
    pub notes: Vec<String>,
    /// Keys of settings with a problem: checks between settings leave them out, or they would report it twice.
    pub unsettled: BTreeSet<&'static str>,
    /// Whether to look up lines.
    pub lines: bool,
    /// How much may be read to find the lines of problems.
    of_problems: Cell<Room>,
    /// The same of values.
    of_values: Cell<Room>,
}

/// How many bytes may still be read to find lines; a first time is always possible.
#[derive(Clone, Copy, Default)]
struct Room {
    bytes: usize,
    used: bool,
}

impl Work {
    /// Whether another problem would be listed, so that its place and a suggestion are worth looking up.
    pub fn lists(&self) -> bool {
        self.problems.len() < LISTED
    }

    /// Whether places in files are still worth looking up.
    pub fn locates(&self) -> bool {
        self.lines && self.lists()
    }

    /// The line of a problem's place. The text is read up to there for each, so that there is an end to it.
    pub fn spot_of_problem(&self, text: &str, path: &[usize]) -> Option<document::Spot> {
        self.locates().then(|| Self::look_up(&self.of_problems, text, path)).flatten()
    }

    /// The line of a value's place.
    pub fn spot_of_value(&self, text: &str, path: &[usize]) -> Option<document::Spot> {
        self.lines.then(|| Self::look_up(&self.of_values, text, path)).flatten()
    }

    fn look_up(room: &Cell<Room>, text: &str, path: &[usize]) -> Option<document::Spot> {
        let Room { bytes, used } = room.get();
        if used && bytes < text.len() {
            return None;
        }
        room.set(Room { bytes: bytes.saturating_sub(text.len()), used: true });
        document::spot_of(text, path)
    }

    /// Reads items into a setting. `origin` tells where an item stands; without one, where the value stands.
    pub fn assign(
        &mut self,
        setting: &'static Setting,
        items: &[super::field::Item],
        yaml: bool,
        origin: impl Fn(&Self, Option<&[usize]>) -> Origin,
    ) {
        let wrong = setting.field.set(&mut self.config, items, yaml);
        if wrong.is_empty() {
            let programs = matches!(setting.field, super::field::Field::Programs(_));
            for item in items.iter().filter(|_| programs) {
                let name = item.text.split(':').next().unwrap_or_default().trim();
                let place = origin(self, Some(&item.path));
                self.sources.set(format!("{}.{name}", setting.key), place);
            }
            let place = origin(self, None);
            self.sources.set(setting.key, place);
            return;
        }
        self.unsettled.insert(setting.key);
        for (index, why) in wrong {
            let Some(item) = items.get(index) else { continue };
            let naming = origin(self, Some(&item.path)).naming(setting.key);
            self.problems.push(invalid_value(item, &naming, why));
        }
    }

    fn variables(&mut self, variables: &[(String, String)]) {
        let value = |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        for setting in SETTINGS {
            let name = setting.variable();
            let found = match (value(&name), setting.alternate) {
                (Some(text), _) => Some((name, text)),
                (None, Some(alternate)) => {
                    value(alternate).filter(|text| !text.is_empty()).map(|text| (alternate.to_owned(), text))
                }
                (None, None) => None,
            };
            if let Some((name, text)) = found {
                let items = setting.field.cut_variable(text);
                self.assign(setting, &items, false, |_, _| Origin::Variable(name.clone()));
            }
        }
        for (name, instead) in IGNORED_ALTERNATES {
            if value(name).is_some_and(|text| !text.is_empty()) && value(instead).is_none() {
                self.warnings.push(format!("the variable {name} is not used; set {instead} if it is meant"));
            }
        }
        let known = SETTINGS.iter().map(Setting::variable).collect::<Vec<_>>();
        for (name, text) in variables {
            let Some(bare) = name.strip_prefix(PREFIX) else { continue };
            if bare.starts_with("EBPF_") {
                self.ebpf(&format!("the variable {name}"), bare == "EBPF_ENABLED", text);
            } else if CHAIN_NAMES.contains(&bare) {
                self.warnings
                    .push(format!("the variable {name} is not used; the names of the chains are fixed"));
            } else if !known.contains(name) {
                let listed = self.warnings.len() < LISTED;
                let meant = listed.then(|| nearest(name, known.iter().map(String::as_str))).flatten();
                let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
                self.warnings.push(format!("the variable {name} is not known and not used{meant}"));
            }
        }
    }

    /// Refuses eBPF where it is wanted, and passes over its other settings.
    pub fn ebpf(&mut self, naming: &str, is_switch: bool, text: &str) {
        if is_switch && switch(text) != Some(false) {
            let InvalidValue(why) = settings::ebpf_refusal();
            self.problems.push(format!("invalid value {} for {naming}: {why}", quoted(text)));
        } else if is_switch {
            self.notes.push(format!("{naming} is not used: {}", settings::ebpf_refusal()));
        }
    }

    fn flags(&mut self, flags: &[Flag]) {
        for setting in SETTINGS {
            let given = flags.iter().filter(|flag| flag.setting.key == setting.key).collect::<Vec<_>>();
            let Some(last) = given.last() else { continue };
            let texts = given.iter().map(|flag| flag.text.as_str()).collect::<Vec<_>>();
            if given.len() > 1 && setting.field.last_flag_wins() {
                self.warnings.push(format!(
                    "--{} is given {} times and only the last one, {}, counts; write all ports into one, with commas",
                    last.name,
                    given.len(),
                    quoted(&last.text),
                ));
            }
            let items = setting.field.cut_flags(&texts);
            self.assign(setting, &items, false, |_, _| Origin::Flag(format!("--{}", last.name)));
        }
        let on = |key: &str| {
            let given = flags.iter().rfind(|flag| flag.setting.key == key);
            given.is_some_and(|flag| switch(&flag.text) == Some(true))
        };
        if on("redirect.dns.enabled") && on("redirect.dns.captureAll") {
            self.problems.push(
                "only one of '--redirect-dns' or '--redirect-all-dns-traffic' should be specified; the second \
                 redirects what the first does and more"
                    .into(),
            );
        }
    }
}
