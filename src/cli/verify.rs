//! `tproxy verify`.

use clap::{ArgMatches, Command};

use super::flags;
use crate::apply::Format;
use crate::apply::facts;
use crate::exit::{Exit, Failure};
use crate::host;
use crate::present;
use crate::stdout::print;
use crate::verify::turn::{self, Turn};
use crate::verify::{self, Budget, Wanted};

/// Its part of the command line.
pub fn command() -> Command {
    Command::new("verify").about("Prove with packets that traffic goes through the sidecar").defer(arguments)
}

fn arguments(command: Command) -> Command {
    let command = command.long_about(
            "Prove with packets that traffic goes through the sidecar: connections and DNS questions of an ordinary \
             user, of the sidecar's user and from outside, IPv4 and IPv6, and everything that the configuration \
             leaves alone. While the sidecar is not running, tproxy listens on its ports; when it is, connection \
             tracking tells where packets go, and the rules' counters whether it was they that sent them there. What \
             each verdict rests on is in the JSON ('-o json'), as \"evidence\".\n\n\
             No packet leaves this host. A pair of interfaces is made for a moment, with addresses of the \
             documentation ranges, and gone at the end, also when tproxy is killed.\n\n\
             It takes every configuration flag, file and variable of 'tproxy install'. Given none, it uses the \
             configuration that the installation recorded. The exit code is 0 when everything that could be tested \
             is as it should be, and 12 when something is not.",
        );
    let command = flags::add(command).override_usage("tproxy verify [OPTIONS]").mut_args(|arg| {
        let idle = ["dry-run", "verbose", "wait", "wait-interval", "max-retries", "sleep-between-retries"];
        let more = ["store-firewalld"];
        let hide = idle.iter().chain(&more).any(|name| arg.get_id() == *name);
        if hide { arg.hide(true) } else { arg }
    });
    command.arg(flags::output_arg())
}

/// Runs it.
pub fn verify(matches: &ArgMatches) -> Result<(), Failure> {
    let resolved = flags::resolve(matches, false)?.resolved;
    if !host::is_root() {
        return Err(
            Failure::new(Exit::Host, "only root can send packets as other users").hint("run it with sudo")
        );
    }
    // On a file system that does not answer this waits, and nobody then waits for this process.
    verify::files_must_answer(&resolved)?;
    let _turn = Turn::take(turn::PATIENCE)?;
    let budget = Budget::begin();
    let Wanted { config, written } = verify::wanted(&resolved, &budget)?;
    let facts = facts::collect(&config, &host::interfaces()?)?;
    let report = verify::run(&config, &facts, written.as_ref(), &budget)?;
    print(&match flags::format(matches) {
        Format::Json => present::verify_json(&report),
        Format::Text => present::verify_text(&report),
    })?;
    if !report.failed() {
        return Ok(());
    }
    let failed = report.count(verify::Status::Fail);
    let message = format!("{failed} of {} checks failed", report.outcomes.len());
    Err(Failure { hint: report.next(), ..Failure::new(Exit::VerifyFailed, message) })
}
