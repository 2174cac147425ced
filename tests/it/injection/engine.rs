//! Tries the injections of a scenario, and reports every promise that was broken.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::support::injector::{self, Injection};
use crate::support::lab::everywhere;
use crate::support::snapshot::Snapshot;
use crate::support::state::State;
use crate::support::{Backend, Lab, Run};

use super::fault;
use super::law::{self, Goal, Marks, Seen};
use super::scenario::{self, Act, Scenario};

/// How many broken promises of one kind are shown whole.
const SHOWN: usize = 3;

/// How many are tried of a scenario where nobody asked for more.
const FEW: usize = 5;

/// Which injections to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// So many of those that can tell something.
    Few(usize),
    /// One of so many of them.
    Part(usize),
    /// Every call, and every fault at it.
    Every,
    /// This one.
    One(Injection),
}

impl Choice {
    /// From `TPROXY_INJECT`.
    fn from_environment() -> Self {
        let Ok(text) = env::var("TPROXY_INJECT") else { return Self::Few(FEW) };
        match text.as_str() {
            "all" => return Self::Part(1),
            "every" => return Self::Every,
            _ => {}
        }
        let part = text.strip_prefix("1/").and_then(|of| of.parse().ok()).map(Self::Part);
        let choice = part.or_else(|| fault::read(&text).map(Self::One));
        choice.unwrap_or_else(|| {
            panic!("TPROXY_INJECT is all, every, 1/10, or as in program:sendto:3:ENOMEM: {text}")
        })
    }
}

/// From `TPROXY_INJECT_SEED`, else another one each time; the few that nobody asked for are always the same.
fn seed(choice: &Choice) -> u64 {
    match env::var("TPROXY_INJECT_SEED") {
        Ok(text) => text.parse().expect("TPROXY_INJECT_SEED is a number"),
        Err(_) if matches!(choice, Choice::Few(_)) => 1,
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs(),
    }
}

/// What came of a scenario.
#[derive(Debug, Default, Clone)]
pub struct Report {
    /// How many injections there are.
    pub whole: usize,
    pub tried: usize,
    /// Calls that were not made this time.
    pub missed: usize,
    /// Crashes that changed nothing.
    pub crashes: Vec<String>,
    /// What is broken, and by which injection; and the first of them whole.
    pub broken: BTreeMap<String, Vec<String>>,
    details: String,
}

/// Tries them and fails where a promise was broken.
#[track_caller]
pub fn run(lab: &Lab, scenario: &Scenario) {
    let (choice, began) = (Choice::from_environment(), Instant::now());
    let seed = seed(&choice);
    let report = try_all(lab, scenario, &choice, seed);
    let suspected = report.suspected();
    let repeated = match choice {
        Choice::One(_) => report.clone(),
        _ => try_again(scenario, &suspected, seed),
    };
    let summary = format!(
        "{}: {} of {} injections in {:.1} s, seed {seed}; {} not reached, {} crashed with nothing changed, {} broke a \
         promise, {} of them again",
        scenario.name,
        report.tried,
        report.whole,
        began.elapsed().as_secs_f32(),
        report.missed,
        report.crashes.len(),
        suspected.len(),
        repeated.suspected().len(),
    );
    println!("{summary}");
    // What tests print that pass is not always shown.
    if let Some(path) = env::var_os("TPROXY_INJECT_REPORT") {
        let file = File::options().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(format!("{summary}\n").as_bytes())).expect("a report");
    }
    for crash in &report.crashes {
        println!("  crashed: {crash}");
    }
    if repeated.broken.is_empty() && !report.broken.is_empty() {
        println!("  broken once, and not again: {}", report.text(scenario.name, seed));
    }
    assert!(repeated.broken.is_empty(), "{}", repeated.text(scenario.name, seed));
}

/// What breaks a promise again on another machine: who is first in a race, or how busy this machine is, is no fault.
fn try_again(scenario: &Scenario, suspected: &[String], seed: u64) -> Report {
    let mut repeated = Report::default();
    for injection in suspected.iter().filter_map(|text| fault::read(text)) {
        let scenario = *scenario;
        let again = Lab::elsewhere(move |lab| try_all(lab, &scenario, &Choice::One(injection), seed));
        repeated.tried += again.tried;
        repeated.details += &again.details;
        for (what, injections) in again.broken {
            repeated.broken.entry(what).or_default().extend(injections);
        }
    }
    repeated
}

impl Report {
    /// By which injections something was broken.
    fn suspected(&self) -> Vec<String> {
        let mut all: Vec<String> = self.broken.values().flatten().cloned().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn text(&self, name: &str, seed: u64) -> String {
        let mut text = format!("seed {seed}\n");
        for (what, injections) in &self.broken {
            let _ = writeln!(text, "{} x {what}", injections.len());
            for injection in injections {
                let _ =
                    writeln!(text, "    TPROXY_INJECT={injection} cargo test --test it injection::{name}");
            }
        }
        text + &self.details
    }
}

/// Tries them on a machine that is furnished for it.
pub fn try_all(lab: &Lab, scenario: &Scenario, choice: &Choice, seed: u64) -> Report {
    scenario.furnish(lab);
    let theirs = Snapshot::take().without_counters();
    let marks = marks(lab, scenario);
    reset(lab, scenario, &marks).expect("a machine to begin on");
    let recorded = supervised(lab, scenario, None);
    let mut report = Report::default();
    let all = match choice {
        Choice::Every => fault::every(&recorded.outcome.calls),
        _ => fault::telling(&recorded.outcome.calls),
    };
    report.whole = all.len();
    let chosen = match choice {
        Choice::Few(count) => fault::some(all, *count, seed),
        Choice::Part(of) => {
            let count = all.len().div_ceil((*of).max(1));
            fault::some(all, count, seed)
        }
        Choice::Every => all,
        Choice::One(one) => vec![*one],
    };
    reset(lab, scenario, &marks).unwrap_or_else(|error| panic!("it cannot be undone: {error}"));
    for injection in chosen {
        report.tried += 1;
        try_one(lab, scenario, &marks, &theirs, injection, &mut report);
    }
    report
}

struct Supervised {
    outcome: injector::Outcome,
    then: State,
    after: State,
}

/// Runs the command to the end of all that it starts; a trial, to the end of its time.
fn supervised(lab: &Lab, scenario: &Scenario, injection: Option<Injection>) -> Supervised {
    let mut then = State::default();
    let outcome = injector::run(&scenario.command(lab), injection, |_: &Run| {
        then = State::take();
        if scenario.goal() == Goal::Trial {
            scenario::let_time_pass();
        }
    });
    Supervised { outcome, then, after: State::take() }
}

/// What is left by an uninstall that does not know that `::6` is ours.
const LO_ALONE: &str = "after an uninstall [\"addresses lo\"] is not as it was";

/// Which of others' rules are missing, or in another order.
fn missing(theirs: &Snapshot, now: &Snapshot) -> Option<String> {
    for (variant, family) in everywhere() {
        let now = now.rules(variant, family);
        for (table, chains) in &theirs.rules(variant, family).tables {
            for chain in chains.keys() {
                let mut there = now.chain(table, chain).into_iter();
                let of_theirs = theirs.rules(variant, family).chain(table, chain);
                if let Some(rule) = of_theirs.into_iter().find(|rule| !there.any(|there| there == *rule)) {
                    return Some(format!("{} {} {table}: {rule}", family.tool(), variant.name()));
                }
            }
        }
    }
    None
}

/// What the machine looks like before, and as is wanted.
fn marks(lab: &Lab, scenario: &Scenario) -> Marks {
    scenario.begin(lab).unwrap_or_else(|error| panic!("the machine cannot be prepared: {error}"));
    let before = State::take();
    let mut instead = None;
    if let Act::Install(Backend::Iptables(_), flags) = scenario.act
        && !flags.contains(&"--confirm")
    {
        instead = scenario::wanted_by(lab, Backend::Nftables, flags).ok();
        scenario.begin(lab).unwrap_or_else(|error| panic!("the machine cannot be prepared: {error}"));
    }
    let run = scenario.command(lab).run();
    assert_eq!(run.code, Some(0), "{run}");
    settle(scenario);
    let (wanted, in_words) = (State::take(), Snapshot::take().without_counters());
    assert!(!before.differences(&wanted).is_empty(), "{} changes nothing", scenario.name);
    Marks { before, wanted, in_words, instead }
}

/// Waits until who waited for a confirmation has heard of it.
fn settle(scenario: &Scenario) {
    if scenario.goal() == Goal::Confirmed {
        while scenario::file("pending").is_some() {
            std::thread::yield_now();
        }
    }
}

/// Brings the machine back to where it begins, if it is not there; what went wrong if the program could not do it.
fn reset(lab: &Lab, scenario: &Scenario, marks: &Marks) -> Result<(), String> {
    let soft = scenario.begin(lab);
    let differ = State::take().differences(&marks.before);
    if soft.is_ok() && differ.is_empty() {
        return Ok(());
    }
    let now = Snapshot::take();
    scenario.begin_anew(lab);
    let left = State::take().differences(&marks.before);
    assert!(left.is_empty(), "the machine cannot be prepared: {left:?} differs");
    Err(soft.err().unwrap_or_else(|| format!("after an uninstall {differ:?} is not as it was\n{now}")))
}

fn try_one(
    lab: &Lab,
    scenario: &Scenario,
    marks: &Marks,
    theirs: &Snapshot,
    injection: Injection,
    report: &mut Report,
) {
    let Supervised { outcome, then, after } = supervised(lab, scenario, Some(injection));
    if !outcome.reached {
        report.missed += 1;
    }
    let is = |mark: &State| after.differences(mark).is_empty();
    let is_known = is(&marks.before) || is(&marks.wanted) && scenario.goal() != Goal::Trial;
    let (mut foreign, mut in_words) = (None, false);
    let mut text = String::new();
    if !is_known {
        let now = Snapshot::take().without_counters();
        foreign = missing(theirs, &now);
        in_words = now.says_the_same_rules(&marks.in_words);
        text = now.to_string();
        for part in after.differences(&marks.wanted).iter().filter(|part| part.starts_with("file ")) {
            for (which, state) in [("wanted", &marks.wanted), ("found", &after)] {
                let bytes = state.0.get(part).map(|bytes| String::from_utf8_lossy(bytes)).unwrap_or_default();
                let _ = writeln!(text, "## {which} {part}: {bytes}");
            }
        }
    }
    let again = (!is_known).then(|| {
        let run = scenario.command(lab).run();
        settle(scenario);
        (run, State::take(), Snapshot::take().without_counters())
    });
    let again_in_words =
        again.as_ref().is_some_and(|(_, _, words)| words.says_the_same_rules(&marks.in_words));
    let seen = Seen {
        injection,
        run: &outcome.run,
        then: &then,
        after: &after,
        hung: outcome.hung,
        foreign,
        in_words,
        again: again.as_ref().map(|(run, state, _)| (run, state)),
        again_in_words,
    };
    let mut broken = law::broken(marks, scenario.goal(), &seen);
    if law::crashed(&seen) {
        report.crashes.push(format!("{} ({})", fault::text(&injection), law::ending(&outcome.run)));
    }
    if !is(&marks.before) || again.is_some() {
        let error = reset(lab, scenario, marks).err();
        let error = error.filter(|error| !(law::remembers_nothing(&outcome.run) && error.contains(LO_ALONE)));
        broken.extend(error.map(|error| format!("cannot be uninstalled: {error}")));
    }
    for what in broken {
        let kind = kind_of(what.lines().next().unwrap_or_default());
        let found = report.broken.entry(kind.clone()).or_default();
        found.push(fault::text(&injection));
        if found.len() <= SHOWN {
            let again = again.as_ref().map(|(run, ..)| run.to_string()).unwrap_or_default();
            let _ = writeln!(
                report.details,
                "==== {}\n{what}\n{}---- afterwards\n{text}---- again\n{again}",
                fault::text(&injection),
                outcome.run
            );
        }
    }
}

/// What is broken, without the name that files have for their network namespace.
fn kind_of(what: &str) -> String {
    let mut kind = String::new();
    for (place, piece) in what.split("/run/tproxy/").enumerate() {
        let end = piece.find('.').filter(|_| place > 0);
        let piece = end.map_or(piece.to_owned(), |end| format!("/run/tproxy/*{}", &piece[end..]));
        kind.push_str(&piece);
    }
    kind
}
