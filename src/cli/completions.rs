//! `tproxy completions`: made from the command line's own definition.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command, ValueHint};
use clap_complete::Shell;

use crate::config::field::Field;
use crate::config::settings;
use crate::exit::Failure;
use crate::stdout::print;

const INSTALL: &str = "\
Install it for every user, as root:
  bash: tproxy completions bash | install -D /dev/stdin \\
          -m 644 /etc/bash_completion.d/tproxy
  zsh:  tproxy completions zsh | install -D /dev/stdin \\
          -m 644 /usr/local/share/zsh/site-functions/_tproxy
  fish: tproxy completions fish | install -D /dev/stdin \\
          -m 644 /etc/fish/completions/tproxy.fish";

/// What bash completes with for a value about which its generator knows nothing: files.
const FILES: &str = "COMPREPLY=($(compgen -f \"${cur}\"))";
const USERS: &str = "COMPREPLY=($(compgen -u -- \"${cur}\"))";

/// `tproxy completions`.
pub fn command() -> Command {
    Command::new("completions")
        .about("Print a completion script for a shell")
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .required(true)
                .value_parser(clap::value_parser!(Shell))
                .help("Shell that will read the script"),
        )
        .after_help(INSTALL)
}

/// Runs `tproxy completions`.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let Some(shell) = matches.get_one::<Shell>("shell").copied() else { return Ok(()) };
    let mut script = Vec::new();
    let mut root = super::command();
    root.build();
    clap_complete::generate(shell, &mut visible(&root), "tproxy", &mut script);
    let script = String::from_utf8_lossy(&script);
    print(&if shell == Shell::Bash { with_users(&script) } else { script.into_owned() })
}

/// A command without anything that help hides; the generator for bash would offer it.
fn visible(command: &Command) -> Command {
    // Building has given every command these already, and the generator gives them again.
    let built_in = |arg: &Arg| ["help", "version"].iter().any(|name| arg.get_id() == *name);
    let shown = |command: &&Command| !command.is_hide_set() && command.get_name() != "help";
    let args = command.get_arguments().filter(|arg| !arg.is_hide_set() && !built_in(arg)).cloned();
    let mut visible = Command::new(command.get_name().to_owned())
        .disable_help_subcommand(!command.get_subcommands().any(|command| command.get_name() == "help"))
        .args(args.map(with_values))
        .subcommands(command.get_subcommands().filter(shown).map(visible));
    if let Some(about) = command.get_about() {
        visible = visible.about(about.clone());
    }
    match command.get_version() {
        Some(version) => visible.version(version.to_owned()),
        None => visible,
    }
}

/// Says what an argument takes. On the command line itself every value is read by the table of settings, whose
/// errors say more than a list of words.
fn with_values(arg: Arg) -> Arg {
    let Some(setting) = arg.get_long().and_then(settings::by_flag) else {
        return match arg.get_long() {
            Some("config") => arg.value_hint(ValueHint::FilePath),
            _ => arg,
        };
    };
    let words: &[&str] = match setting.field {
        Field::Switch(_) if setting.key == "dryRun" => &["true", "false", "diff"],
        Field::Switch(_) => &["true", "false"],
        Field::Backend(_) => &["auto", "iptables", "nftables"],
        Field::Families(_) => &["dualstack", "ipv4"],
        Field::User(_) => return arg.value_hint(ValueHint::Username),
        Field::File(_) => return arg.value_hint(ValueHint::FilePath),
        _ => return arg.value_hint(ValueHint::Other),
    };
    arg.value_parser(PossibleValuesParser::new(words.iter().copied()))
}

/// The generator for bash offers files where a user is wanted.
fn with_users(script: &str) -> String {
    let mut lines = Vec::new();
    let mut user = false;
    for line in script.lines() {
        let wanted =
            line.trim().strip_prefix("--").and_then(|flag| settings::by_flag(flag.strip_suffix(')')?));
        user = match wanted {
            Some(setting) => matches!(setting.field, Field::User(_)),
            None => user && line.contains(FILES),
        };
        lines.push(if user && wanted.is_none() { line.replace(FILES, USERS) } else { line.to_owned() });
    }
    lines.join("\n") + "\n"
}
