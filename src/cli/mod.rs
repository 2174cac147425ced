//! What can be typed, and what each command does with it.

mod advice;
mod completions;
mod config;
mod demo;
mod flags;
mod install;
pub mod log;
mod man;
mod read;
mod retired;
mod status;
mod verify;

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

use crate::apply::confirm;
use crate::exit::{Exit, Failure};

/// Why a run ends early.
#[derive(Debug)]
pub enum Stop {
    /// An error that is still to be printed.
    Failed(Failure),
    /// Everything has been said; only the exit code is left.
    Said(u8),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The whole command line.
///
/// The arguments of a command are made only when it is the one that is run (`defer`): five commands take every
/// setting as a flag, and to make them all costs more time than an installation takes otherwise.
pub fn command() -> Command {
    let root = Command::new("tproxy")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Redirects a host's traffic through a service-mesh sidecar")
        .long_about(
            "Redirects a host's traffic through a service-mesh sidecar, without a gap and without touching \
             anybody else's firewall rules. It takes the flags, files and variables of 'kumactl install \
             transparent-proxy'.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        // Help is read, and a line of more columns is hard to.
        .max_term_width(WIDTH)
        .after_help(EXIT_CODES)
        .subcommand(install::install_command())
        .subcommand(install::uninstall_command())
        .subcommand(install::confirm_command())
        .subcommand(status::command())
        .subcommand(verify::command())
        .subcommand(demo::command())
        .subcommand(config::command())
        .subcommand(completions::command())
        .subcommand(man::command());
    kumactls_globals(root)
}

/// How many columns help has at most.
const WIDTH: usize = 100;

const EXIT_CODES: &str = "\
Exit codes:
  0  done, or nothing to do
  1  failed; the host is as it was before, or on trial still goes back to that
  2  wrong use of the command, or a wrong configuration
  3  the host cannot do it: a tool, a kernel feature, a user or root is missing
  4  another process holds a lock
  5  failed, and something is left that should not be, or missing; the message says what
  10  status: nothing is installed
  11  status: something is not as wanted, or redirected traffic is lost
  12  verify: packets do not go where they should

Results go to standard output, everything else to standard error. TPROXY_LOG=debug prints more, TPROXY_LOG=error less.";

/// Flags that kumactl accepts in front of and behind every command and that do nothing for this one.
fn kumactls_globals(root: Command) -> Command {
    let hidden =
        |name: &'static str| Arg::new(name).long(name).global(true).hide(true).action(ArgAction::Append);
    root.arg(hidden("log-level").allow_hyphen_values(true))
        .arg(hidden("context").allow_hyphen_values(true))
        .arg(hidden("api-timeout").allow_hyphen_values(true))
        .arg(hidden("no-config").num_args(0..=1).require_equals(true).default_missing_value("true"))
}

/// Does what a command line asks for.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Result<(), Stop> {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(mut error) => {
            if let Some(failure) = advice::failure(&error) {
                return Err(failure.into());
            }
            advice::improve(&mut error);
            // Help and version are results, everything else is wrong use; clap knows which stream is whose. A
            // stream that is closed must not turn into a panic.
            let _ = error.print();
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            return Err(Stop::Said(code as u8));
        }
    };
    match matches.subcommand() {
        Some(("install", matches)) => install::install(matches)?,
        Some(("uninstall", matches)) => install::uninstall(matches)?,
        Some(("confirm", matches)) => confirm::confirm(flags::format(matches))?,
        Some(("status", matches)) => status::run(matches)?,
        Some(("verify", matches)) => verify::verify(matches)?,
        Some(("demo", _)) => demo::run()?,
        Some(("config", matches)) => config::run(matches)?,
        Some(("completions", matches)) => completions::run(matches)?,
        Some(("man", matches)) => man::run(matches)?,
        _ => return Err(Failure::new(Exit::Usage, "no command given; see 'tproxy --help'").into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
