//! `tproxy status --watch`: a line whenever something changes the firewall, until a signal ends it.
//!
//! Of nftables the kernel tells by itself. Of legacy tables it does not, so they are read every two seconds, where
//! there are any. A run of tproxy ends with its record, after its last change; while the record says that a run is
//! under way, it is read again and again.

use std::io::{self, Write as _};
use std::time::{Duration, Instant, SystemTime};

use crate::apply::Format;
use crate::apply::store::{Phase, State, Store};
use crate::backend::iptables::observe::{self, Observation};
use crate::backend::iptables::tools::{Tools, Variant};
use crate::exit::{Exit, Failure};
use crate::present;
use crate::sys;
use crate::sys::netlink::events::{Events, Stopped, Transaction};
use crate::sys::rights::{self, Right};
use crate::sys::signal;

use super::change::{self, Summary};
use super::model::Report;
use super::{StatusRequest, look};

/// Between two looks at the legacy tables.
const POLL: Duration = Duration::from_secs(2);
/// Between two looks at the record of a run that has not ended.
const POLL_RECORD: Duration = Duration::from_millis(200);

/// Prints how things stand, and from then on what changes.
///
/// # Errors
/// The host cannot be looked at, or the result cannot be printed.
pub fn watch(request: &StatusRequest) -> Result<(), Failure> {
    let failed =
        |what: &str, error: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("{what}: {error}"));
    signal::install().map_err(|error| failed("cannot listen for signals", &error))?;
    look::check_root()?;
    // Before the first look, so that nothing happens unseen between the two.
    let events = Events::open().map_err(|error| {
        let failure = failed("the kernel does not tell of changes", &error);
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        if !denied {
            return failure;
        }
        Failure { exit: Exit::Host, ..failure }.hint(rights::remedy(&[Right::NetAdmin]))
    })?;
    let named = &request.resolved.config.iptables_executables;
    let tools = Tools::find_to_read(named, std::env::var_os("PATH").as_ref(), None)?;
    let record = Store::unlocked()?.load()?;
    let report = look::report(&request.resolved)?;
    let legacy = legacy_rules(&tools).unwrap_or_default();
    let said = present::in_short(&report);
    let mut watch = Watch { request, tools, record, legacy, said, ended: false };
    watch.state(&report)?;
    watch.run(events)
}

struct Watch<'a> {
    request: &'a StatusRequest,
    tools: Tools,
    /// From just before the last look.
    record: Option<State>,
    legacy: Observation,
    /// How things stood when that was printed last.
    said: String,
    /// Nobody reads any more.
    ended: bool,
}

impl Watch<'_> {
    fn run(&mut self, mut events: Option<Events>) -> Result<(), Failure> {
        let mut next_poll = Instant::now() + POLL;
        while !self.ended {
            let mut rest = next_poll.saturating_duration_since(Instant::now());
            if self.is_unfinished() {
                rest = rest.min(POLL_RECORD);
            }
            let waited = match &mut events {
                Some(events) => events.wait(rest),
                None => signal::sleep(rest).map(|()| Vec::new()).map_err(Stopped::Interrupted),
            };
            match waited {
                Ok(transactions) => self.tell(&transactions)?,
                Err(Stopped::Interrupted(_)) => return Ok(()),
                Err(Stopped::Io(error)) => {
                    return Err(Failure::new(Exit::Failed, format!("watching failed: {error}")));
                }
            }
            if self.is_unfinished() && self.load() != self.record {
                self.look_again()?;
            }
            if Instant::now() >= next_poll {
                self.poll_legacy()?;
                next_poll = Instant::now() + POLL;
            }
        }
        Ok(())
    }

    /// The record as it is now; as it was, where it cannot be read now.
    fn load(&self) -> Option<State> {
        // It may be in a directory that was not there at the beginning.
        Store::unlocked().and_then(|store| store.load()).unwrap_or_else(|failure| {
            tracing::debug!("{failure}");
            self.record.clone()
        })
    }

    /// Whether a run was under way when things were looked at last, so that the end of it may change how they stand
    /// without another change of rules.
    fn is_unfinished(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.phase == Phase::Changing)
    }

    fn tell(&mut self, transactions: &[Transaction]) -> Result<(), Failure> {
        let mut concerned = false;
        for transaction in transactions {
            let mut summary = change::of_transaction(transaction);
            summary.command =
                summary.pid.and_then(|pid| sys::process_command(pid, summary.program.as_deref()));
            concerned |= summary.concerns_us();
            self.change(&summary)?;
        }
        if concerned { self.look_again() } else { Ok(()) }
    }

    fn poll_legacy(&mut self) -> Result<(), Failure> {
        let now = match legacy_rules(&self.tools) {
            Ok(now) => now,
            Err(failure) => {
                tracing::warn!("{failure}");
                return Ok(());
            }
        };
        let Some(summary) = change::between(&self.legacy, &now) else { return Ok(()) };
        self.legacy = now;
        self.change(&summary)?;
        self.look_again()
    }

    /// Says how things stand when they stand otherwise than before.
    fn look_again(&mut self) -> Result<(), Failure> {
        // Before the look: what is recorded meanwhile is found to be new the next time.
        self.record = self.load();
        match look::report(&self.request.resolved) {
            Ok(report) => {
                let now = present::in_short(&report);
                if now == self.said {
                    return Ok(());
                }
                self.said = now;
                self.state(&report)
            }
            // What cannot be read now may be readable after the next change.
            Err(failure) => {
                tracing::warn!("{failure}");
                Ok(())
            }
        }
    }

    fn change(&mut self, summary: &Summary) -> Result<(), Failure> {
        self.print(&match self.request.format {
            Format::Text => present::change_text(now(), summary),
            Format::Json => present::change_json(now(), summary),
        })
    }

    fn state(&mut self, report: &Report) -> Result<(), Failure> {
        self.print(&match self.request.format {
            Format::Text => present::state_text(now(), report),
            Format::Json => present::state_json(now(), report),
        })
    }

    /// Whole lines, at once. A reader that went away ends the watch.
    fn print(&mut self, line: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.ended = true,
            Err(error) => {
                return Err(Failure::new(Exit::Failed, format!("cannot write the result: {error}")));
            }
            Ok(()) => {}
        }
        Ok(())
    }
}

fn legacy_rules(tools: &Tools) -> Result<Observation, Failure> {
    observe::observe_variant(tools, Variant::Legacy)
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
