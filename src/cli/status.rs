//! `tproxy status`.

use clap::{ArgMatches, Command};

use super::{Stop, flags};
use crate::exit::Exit;
use crate::status::{StatusRequest, status};

const DETAILS: &str = "\
Say what is installed, whether it is what is wanted, and who takes traffic first. Reads only; needs root.

The rules are compared with the configuration given by flags, files and variables, which are those of \
'tproxy install'. Given none, they are compared with the one that the installation recorded; without a record, as \
after an installation by kumactl, with one read off the rules themselves.";

const EXIT_CODES: &str = "\
Exit codes:
  0   installed, as wanted
  10  not installed
  11  something is not as wanted, takes traffic before our rules see it, or the sidecar does not
      listen, so that redirected traffic is lost
  3   cannot read the rules, for example because only root can see them";

/// The command.
pub fn command() -> Command {
    Command::new("status").about("Say what is installed and whether it is what is wanted").defer(arguments)
}

fn arguments(command: Command) -> Command {
    let command =
        command.long_about(DETAILS).after_help(EXIT_CODES).override_usage("tproxy status [OPTIONS]");
    let command = flags::add(command).mut_args(|arg| {
        let idle = ["dry-run", "verbose", "wait", "wait-interval", "max-retries", "sleep-between-retries"];
        let more = ["store-firewalld"];
        let hide = idle.iter().chain(&more).any(|name| arg.get_id() == *name);
        if hide { arg.hide(true) } else { arg }
    });
    command.arg(flags::output_arg()).arg(
        flags::plain_switch(
            "watch",
            "Go on and print a line whenever something changes the firewall, with the program that did it",
        )
        .help_heading("Output"),
    )
}

/// Runs it.
pub fn run(matches: &ArgMatches) -> Result<(), Stop> {
    let wanted = flags::resolve(matches, false)?;
    let request = StatusRequest {
        resolved: wanted.resolved,
        format: flags::format(matches),
        watch: flags::is_on(matches, "watch"),
    };
    match status(&request)? {
        Exit::Done => Ok(()),
        other => Err(Stop::Said(other as u8)),
    }
}
