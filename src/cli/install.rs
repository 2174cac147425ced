//! `tproxy install` and `tproxy uninstall`.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::flags;
use crate::apply::{self, InstallRequest, Trial, UninstallRequest};
use crate::config::{Written, duration};
use crate::exit::{Exit, Failure};

const LAYERS: &str = "\
Values come from the defaults, then the files of --config in their order, then variables of the environment that \
begin with KUMA_TRANSPARENT_PROXY_, then flags; each overrides the ones before. 'tproxy config show --sources' prints \
the result and where each value came from. Switches can be given a value after '=', such as --verbose=false.";

/// Short: help that is wrapped for a narrow terminal would break it so that it fails when it is copied.
const EXAMPLE: &str = "\
Example:
  tproxy install --kuma-dp-user kuma-dp --redirect-dns --keep-ssh";

/// `tproxy install`.
pub fn install_command() -> Command {
    Command::new("install").about("Redirect this host's traffic through the sidecar").defer(install_arguments)
}

fn install_arguments(command: Command) -> Command {
    let command = command
        .long_about(
            "Redirect this host's traffic through the sidecar: TCP that arrives to its inbound port, TCP that local \
             processes send to its outbound port, and, if asked for, DNS questions. What the sidecar's own user \
             sends is left alone. An earlier installation, also one by kumactl, is replaced without a moment in \
             which nothing is redirected. A second run with the same configuration changes nothing.\n\n\
             SSH (TCP port 22) is redirected like every other port unless it is excluded, as in \
             --exclude-inbound-ports 22.",
        )
        .after_help(EXAMPLE)
        .after_long_help(format!(
            "{LAYERS}\n\n{EXAMPLE}"
        ));
    common(flags::add(command))
        .arg(
            flags::plain_switch(
                "strict",
                "Stop where an optional part, IPv6, or all redirection of DNS would otherwise be left out with a warning",
            )
            .help_heading("Safety"),
        )
        .arg(
            flags::plain_switch(
                "verify",
                "Prove with packets that it works, as 'tproxy verify' does; if not, go back to what was there before",
            )
            .help_heading("Safety"),
        )
        .arg(
            Arg::new("confirm")
                .long("confirm")
                .value_name("DURATION")
                .help("Go back to what was there before unless 'tproxy confirm' is run within this time, such as 60s")
                .help_heading("Safety"),
        )
        .arg(
            flags::plain_switch("foreground", "With --confirm: stay until it is confirmed or taken back")
                .requires("confirm")
                .help_heading("Safety"),
        )
}

/// `tproxy confirm`.
pub fn confirm_command() -> Command {
    let command = Command::new("confirm").about("Keep an installation that was made with --confirm");
    command.arg(flags::output_arg()).long_about(
        "Keep an installation that was made with --confirm. Run it from a new connection: that it gets through is \
         the proof that the host can still be reached. Exit code 1: there was nothing to keep, or it is too late. Where the \
         process that would go back has ended it is never too late.",
    )
}

/// The value of `--confirm`.
fn confirm_time(matches: &ArgMatches) -> Result<Option<Duration>, Failure> {
    let Some(text) = matches.get_one::<String>("confirm") else { return Ok(None) };
    let wrong = |why: &str| Failure::new(Exit::Usage, format!("--confirm: invalid value '{text}': {why}"));
    match duration::parse(text) {
        // Without a unit it counts nanoseconds, which nobody means here.
        Ok(_) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(wrong(&format!("the unit is missing, as in {text}s")))
        }
        Ok(time) if time < Duration::from_secs(1) => Err(wrong("at least one second is needed to confirm")),
        Ok(time) => Ok(Some(time)),
        Err(error) => Err(wrong(&error.0)),
    }
}

/// `tproxy uninstall`.
pub fn uninstall_command() -> Command {
    Command::new("uninstall")
        .about("Remove the redirection and leave everything else as it is")
        .defer(uninstall_arguments)
}

fn uninstall_arguments(command: Command) -> Command {
    let command = command
        .long_about(
            "Remove the redirection, installed by tproxy or by kumactl, IPv4 and IPv6, rules written through \
             iptables-nft and through iptables-legacy. Everybody else's rules stay as they are.\n\n\
             It takes every configuration flag of 'tproxy install', so that the same files and flags can be passed; \
             only those shown here change what it does. The sidecar's user does not have to exist any more.",
        )
        .after_long_help(LAYERS);
    let command = common(flags::add(command)).mut_args(|arg| {
        let idle = |heading: &str| ["Traffic in", "Traffic out", "DNS"].contains(&heading);
        let also_idle = ["kuma-dp-user", "ip-family-mode", "store-firewalld", "drop-invalid-packets"];
        let more = ["iptables-logs", "disable-comments"];
        let hide = arg.get_help_heading().is_some_and(idle)
            || also_idle.iter().chain(&more).any(|name| arg.get_id() == *name);
        if hide { arg.hide(true) } else { arg }
    });
    command.arg(
        flags::plain_switch("force", "Also remove foreign rules that jump to the redirection's chains")
            .help_heading("Safety"),
    )
}

/// What both take beside the configuration.
fn common(command: Command) -> Command {
    let usage = match command.get_name() {
        "uninstall" => "tproxy uninstall [transparent-proxy] [OPTIONS]",
        _ => "tproxy install [transparent-proxy] [OPTIONS]",
    };
    command
        .arg(
            Arg::new("word")
                .value_name("transparent-proxy")
                .num_args(0..)
                .action(ArgAction::Append)
                .help("May stand here, as in kumactl's command line")
                .hide(true),
        )
        .override_usage(usage)
        .arg(flags::output_arg())
        .arg(
            flags::plain_switch(
                "adopt",
                "Take over rules without comments that look exactly like an installation's",
            )
            .help_heading("Safety"),
        )
}

/// Runs `tproxy install`.
pub fn install(matches: &ArgMatches) -> Result<(), Failure> {
    let mut wanted = flags::resolve(matches, false)?;
    apply::keep_ssh(&mut wanted.resolved.config)?;
    apply::install(&InstallRequest {
        written: Written::given(&wanted.resolved),
        config: wanted.resolved.config,
        dry_run: wanted.dry_run,
        format: flags::format(matches),
        adopt: flags::is_on(matches, "adopt"),
        strict: flags::is_on(matches, "strict"),
        verify: flags::is_on(matches, "verify"),
        confirm: confirm_time(matches)?.map(|time| Trial { time, stay: flags::is_on(matches, "foreground") }),
    })
}

/// Runs `tproxy uninstall`.
pub fn uninstall(matches: &ArgMatches) -> Result<(), Failure> {
    let wanted = flags::resolve_anyway(matches)?;
    apply::uninstall(&UninstallRequest {
        config: wanted.resolved.config,
        dry_run: wanted.dry_run,
        format: flags::format(matches),
        adopt: flags::is_on(matches, "adopt"),
        force: flags::is_on(matches, "force"),
    })
}
