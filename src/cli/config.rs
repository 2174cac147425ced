//! `tproxy config …`: what a configuration comes to, the default file, and whether files are right.

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{flags, read};
use crate::config::text::quoted;
use crate::config::{self, Layers, Problems, show};
use crate::exit::Failure;
use crate::stdout::print;

/// `tproxy config`.
pub fn command() -> Command {
    Command::new("config").about("Show, check or write a configuration").defer(arguments)
}

fn arguments(command: Command) -> Command {
    let show = Command::new("show")
        .about("Print the configuration that files, variables and flags come to, as YAML")
        .arg(flags::plain_switch("sources", "Add where each value came from"));
    let validate = Command::new("validate")
        .about("Check configuration files")
        .long_about(
            "Check configuration files, each on its own, as if it were the only one and nothing else were set. \
             - is standard input.",
        )
        .arg(
            Arg::new("files")
                .value_name("FILE")
                .required(true)
                .num_args(1..)
                .action(ArgAction::Append)
                .help("File to check, - for standard input"),
        );
    command
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(flags::add(show))
        .subcommand(
            Command::new("default").about("Print a file with every setting, its default and its meaning"),
        )
        .subcommand(validate)
        .subcommand(
            Command::new("reference").about("Print flags, keys and variables as Markdown tables").hide(true),
        )
}

/// Runs `tproxy config …`.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("show", matches)) => {
            let with_sources = flags::is_on(matches, "sources");
            let wanted = flags::resolve(matches, with_sources)?;
            let sources = with_sources.then_some(&wanted.resolved.sources);
            print(&show::yaml(&wanted.resolved.config, sources))
        }
        Some(("validate", matches)) => validate(matches),
        Some(("reference", _)) => print(&show::reference()),
        _ => print(&show::default_file()),
    }
}

fn validate(matches: &ArgMatches) -> Result<(), Failure> {
    let names = matches.get_many::<String>("files").into_iter().flatten().cloned().collect::<Vec<_>>();
    let (files, mut problems) = read::files(&names);
    for file in files {
        let name = quoted(&file.name);
        match config::resolve(&Layers { files: vec![file], ..Layers::default() }) {
            Ok(resolved) => {
                flags::tell(&resolved);
                print(&format!("{name} is a valid configuration\n"))?;
            }
            Err(Problems(further)) => problems.extend(further),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(flags::refusal(&Problems(problems))) }
}
