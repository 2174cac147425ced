//! `tproxy completions` and `tproxy man`: made from the command line's own definition.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command};
use clap_complete::Shell;

use crate::exit::{Exit, Failure};
use crate::stdout::print;

/// `tproxy completions`.
pub fn completions_command() -> Command {
    Command::new("completions")
        .about("Print a completion script for a shell")
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .required(true)
                .value_parser(clap::value_parser!(Shell))
                .help("Shell that will read the script"),
        )
        .after_help("Example for bash: tproxy completions bash > /etc/bash_completion.d/tproxy")
}

/// Runs `tproxy completions`.
pub fn completions(matches: &ArgMatches) -> Result<(), Failure> {
    let Some(shell) = matches.get_one::<Shell>("shell").copied() else { return Ok(()) };
    let mut script = Vec::new();
    let mut root = super::command();
    root.build();
    clap_complete::generate(shell, &mut visible(&root), "tproxy", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// A command without anything that help hides; the generator for bash would offer it.
fn visible(command: &Command) -> Command {
    // Building has given every command these two already, and the generator gives them again.
    let built_in = |arg: &Arg| ["help", "version"].iter().any(|name| arg.get_id() == *name);
    let mut shown = Command::new(command.get_name().to_owned())
        .disable_help_subcommand(true)
        .args(command.get_arguments().filter(|arg| !arg.is_hide_set() && !built_in(arg)).cloned())
        .subcommands(command.get_subcommands().filter(|command| !command.is_hide_set()).map(visible));
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    match command.get_version() {
        Some(version) => shown.version(version.to_owned()),
        None => shown,
    }
}

/// The commands with a page of their own, and its name.
const PAGES: [(&str, &str); 3] =
    [("install", "tproxy-install"), ("uninstall", "tproxy-uninstall"), ("config", "tproxy-config")];

/// `tproxy man`.
pub fn man_command() -> Command {
    Command::new("man")
        .about("Print a manual page")
        .arg(
            Arg::new("page")
                .value_name("COMMAND")
                .value_parser(PossibleValuesParser::new(PAGES.map(|(page, _)| page)))
                .help("Command to describe; without one, tproxy itself"),
        )
        .after_help("Example: tproxy man install > /usr/local/share/man/man1/tproxy-install.1")
}

/// Runs `tproxy man`.
pub fn man(matches: &ArgMatches) -> Result<(), Failure> {
    let mut root = super::command();
    root.build();
    let page = match matches.get_one::<String>("page") {
        None => root,
        Some(name) => match root.find_subcommand(name) {
            Some(command) => {
                let full = PAGES.iter().find(|(page, _)| page == name).map_or("tproxy", |(_, full)| full);
                command.clone().name(full).display_name(full)
            }
            None => return Err(Failure::new(Exit::Usage, format!("there is no command '{name}'"))),
        },
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page)
        .render(&mut text)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot write the manual page: {error}")))?;
    print(&String::from_utf8_lossy(&text))
}
