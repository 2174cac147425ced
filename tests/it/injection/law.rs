//! What is promised of a run in which something fails, whatever it is. Pure: what was seen is judged.
//!
//! | how it ended | then |
//! |---|---|
//! | 0 | all is as wanted, or what is missing is said; who was killed, or had no memory, is no reason to leave anything out; a trial whose waiting process was asked to end may have gone back already |
//! | 1, 2, 3, 4, 12 | rules, addresses and files are as before |
//! | 5 | what is left is listed |
//! | a signal or another code | only what was sent; a crash only while nothing has been changed |
//! | any | others' rules are untouched; the same command again ends with 0 and all is as wanted; a trial goes back |

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::support::Run;
use crate::support::injector::{Fault, Injection, Role};
use crate::support::snapshot::Snapshot;
use crate::support::state::State;

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// What is done stays.
    Stays,
    /// It is there until its time is over.
    Trial,
    /// What was on trial stays.
    Confirmed,
    /// It is gone.
    Removed,
}

/// What the machine is to be compared with.
pub struct Marks {
    pub before: State,
    /// While a trial lasts, or at the end.
    pub wanted: State,
    pub in_words: Snapshot,
    /// The same by nftables, where a run may take that instead.
    pub instead: Option<State>,
}

/// What was seen of one run.
pub struct Seen<'a> {
    pub injection: Injection,
    pub run: &'a Run,
    /// When the program had ended.
    pub then: &'a State,
    /// When all that it had started had ended, too, and the time of a trial was over.
    pub after: &'a State,
    /// Something did not end by itself.
    pub hung: bool,
    /// Which of others' rules were missing by then.
    pub foreign: Option<String>,
    /// Whether the rules are as wanted in words, if not byte by byte: programs say the same in more than one way.
    pub in_words: bool,
    /// The same command again, without a fault, and what was there then; not run where the machine is exactly as before
    /// or as wanted.
    pub again: Option<(&'a Run, &'a State)>,
    /// Whether the rules were as wanted in words then.
    pub again_in_words: bool,
}

/// Promises that were not kept.
pub fn broken(marks: &Marks, goal: Goal, seen: &Seen<'_>) -> Vec<String> {
    let mut broken = Vec::new();
    if seen.hung {
        broken.push("something did not end by itself".to_owned());
    }
    if let Some(harm) = &seen.foreign {
        broken.push(format!("others' rules were changed: {harm}"));
    }
    broken.extend(at_its_end(marks, goal, seen));
    if goal == Goal::Trial && goes_back(seen) {
        let mut left = seen.after.differences(&marks.before);
        // Killed before the process was made that waits, the program changed nothing. Nobody is left to remove the file
        // that tells of the trial, whole or half-written; who reads it finds the trial abandoned, and the next run
        // replaces it.
        let is_file = |part: &String| part.ends_with(".pending") || part.ends_with(".pending.new");
        let unchanged = seen.then.differences(&marks.before).iter().all(is_file);
        if seen.run.signal == Some(Signal::SIGKILL as i32) && unchanged {
            left.retain(|part| !is_file(part));
        }
        if !left.is_empty() {
            broken.push(format!("the trial did not go back: {left:?}"));
        }
    }
    if let Some((run, state)) = seen.again {
        let mut differ = state.differences(&marks.wanted);
        differ.retain(|part| !(seen.again_in_words && is_rules(part)));
        // Who waited was killed when all was there. Where nothing changes there is nothing to confirm.
        if goal == Goal::Trial && !goes_back(seen) && run.printed("nothing was written") {
            differ.retain(|part| !part.ends_with(".pending"));
        }
        if run.code != Some(0) {
            broken.push(format!("the same command again ended with {}", ending(run)));
        } else if differ.iter().any(|part| !(remembers_nothing(seen.run) && is_record(part))) {
            broken.push(format!("the same command again did not repair {differ:?}"));
        }
    }
    broken
}

/// A run that could write no record said what follows from that: a later one does not know that `::6` is ours.
pub fn remembers_nothing(run: &Run) -> bool {
    run.stderr.contains("an uninstall leaves it")
}

fn is_record(part: &str) -> bool {
    part.strip_prefix("file /run/tproxy/").is_some_and(|name| name.split('.').next_back() == Some("json"))
}

/// A trial goes back unless the process that waits was killed.
fn goes_back(seen: &Seen<'_>) -> bool {
    !(seen.injection.role == Role::Fork && seen.injection.fault == Fault::Signal(Signal::SIGKILL))
}

fn at_its_end(marks: &Marks, goal: Goal, seen: &Seen<'_>) -> Option<String> {
    let Seen { run, then, after, .. } = *seen;
    let mut unwanted = then.differences(&marks.wanted);
    if seen.in_words {
        unwanted.retain(|part| !is_rules(part));
    }
    // Where a trial began and failed, the process that waits may be the last to go.
    let left = if goal == Goal::Trial { after } else { then }.differences(&marks.before);
    match (run.code, run.signal) {
        (Some(0), _) if unwanted.is_empty() || was_asked_to_go_back(marks, goal, seen) => None,
        (Some(0), _) => not_said(marks, seen, &unwanted),
        (Some(1..=4 | 12), _) if left.is_empty() => None,
        (Some(1), _) if went_back_already(marks, goal, seen) => None,
        (Some(code @ (1..=4 | 12)), _) => Some(format!("ended with {code}, and {left:?} is not as before")),
        (Some(5), _) => {
            // Of an installation that was to be removed, what was removed is not left.
            let left = if goal == Goal::Removed { unwanted } else { left };
            let unlisted: Vec<&String> = left.iter().filter(|part| !lists(run, part)).collect();
            (!unlisted.is_empty()).then(|| format!("ended with 5, and does not list {unlisted:?}"))
        }
        (None, Some(signal)) if was_sent(seen, signal) => {
            // Where it does not hold signals back, it may die of it: before it changed anything, or when all is done.
            (signal == Signal::SIGTERM as i32 && !left.is_empty() && !unwanted.is_empty())
                .then(|| format!("died of SIGTERM, and {left:?} is not as before"))
        }
        _ if left.is_empty() => None,
        _ => Some(format!("ended with {} half-way: {left:?}", ending(run))),
    }
}

/// A crash that changed nothing is no broken promise, but worth to know.
pub fn crashed(seen: &Seen<'_>) -> bool {
    match (seen.run.code, seen.run.signal) {
        (Some(code), _) => !matches!(code, 0..=5 | 12),
        (None, Some(signal)) => !was_sent(seen, signal),
        (None, None) => true,
    }
}

/// With a trial, the one who waits can have gone back before the run ended.
fn went_back_already(marks: &Marks, goal: Goal, seen: &Seen<'_>) -> bool {
    goal == Goal::Trial && seen.after.differences(&marks.before).is_empty()
}

/// The one who waits goes back at once when it is asked to end: also while the run that is done prints that.
fn was_asked_to_go_back(marks: &Marks, goal: Goal, seen: &Seen<'_>) -> bool {
    let asked = seen.injection.role == Role::Fork && seen.injection.fault == Fault::Signal(Signal::SIGTERM);
    asked && went_back_already(marks, goal, seen)
}

fn was_sent(seen: &Seen<'_>, signal: i32) -> bool {
    match seen.injection.fault {
        Fault::Signal(sent) => seen.injection.role == Role::Program && sent as i32 == signal,
        Fault::SignalProgram(sent) => sent as i32 == signal,
        Fault::Error(_) => false,
    }
}

/// A run that says it is done, and has not done all: what is missing has to be said.
fn not_said(marks: &Marks, seen: &Seen<'_>, unwanted: &[String]) -> Option<String> {
    let run = seen.run;
    if let Some(instead) = &marks.instead
        && !seen.then.differences(instead).iter().any(|part| is_rules(part))
        && run.stderr.contains("nftables is used")
    {
        return None;
    }
    // A program that was killed or found no memory says nothing of what the host can do.
    let passing = seen.injection.role != Role::Program
        && matches!(seen.injection.fault, Fault::Signal(_) | Fault::Error(Errno::ENOMEM));
    if passing && unwanted.iter().any(|part| is_rules(part)) {
        return Some(format!("ended with 0 and left out {unwanted:?} for what passes"));
    }
    // The record of an installation tells what was left out of it.
    let rules_too = unwanted.iter().any(|part| is_rules(part));
    let unsaid = |part: &&String| !(rules_too && part.contains("/run/tproxy/") || lists(run, part));
    let unsaid: Vec<&String> = unwanted.iter().filter(unsaid).collect();
    (!unsaid.is_empty()).then(|| format!("ended with 0, and {unsaid:?} is not as wanted, which is not said"))
}

fn is_rules(part: &str) -> bool {
    part.starts_with("nft ") || part.starts_with("legacy ")
}

/// Whether a run says something of a part.
fn lists(run: &Run, part: &str) -> bool {
    let said = |words: &[&str]| words.iter().any(|word| run.stderr.contains(word));
    match part {
        _ if part.starts_with("nft inet") => said(&["inet kuma_mesh", "nftables"]),
        _ if part.starts_with("nft ip6 ") || part.starts_with("legacy ip6 ") => said(&["IPv6"]),
        _ if part.starts_with("nft ip ") || part.starts_with("legacy ip ") => {
            said(&["IPv4", "comment", "zone", "INVALID", "LOG"])
        }
        _ if part.starts_with("addresses ") => said(&["::6", "IPv6 traffic is not redirected"]),
        _ if part.contains("direct.xml") => said(&["direct.xml"]),
        _ => said(&["/run/tproxy", "record"]),
    }
}

/// How a run ended, in words.
pub fn ending(run: &Run) -> String {
    match (run.code, run.signal) {
        (Some(code), _) => format!("{code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "nothing".to_owned(),
    }
}
