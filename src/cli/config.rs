//! `tproxy config …`: what a configuration comes to, the default file, and whether files are right.

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{flags, read};
use crate::apply::Format;
use crate::config::text::quoted;
use crate::config::{self, Layers, Problems, Resolved, show};
use crate::exit::Failure;
use crate::present::{self, Checked};
use crate::stdout::print;

/// `tproxy config`.
pub fn command() -> Command {
    Command::new("config").about("Show, check or write a configuration").defer(arguments)
}

fn arguments(command: Command) -> Command {
    let show = Command::new("show")
        .about("Print the configuration that files, variables and flags come to, as YAML")
        .arg(flags::plain_switch("sources", "Add where each value came from"))
        .arg(flags::output_arg());
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
        )
        .arg(flags::output_arg());
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
            let Resolved { config, .. } = &wanted.resolved;
            match flags::format(matches) {
                Format::Text => print(&show::yaml(config, sources)),
                Format::Json => print(&present::config_json(config, sources)),
            }
        }
        Some(("validate", matches)) => validate(matches),
        Some(("reference", _)) => print(&show::reference()),
        _ => print(&show::default_file()),
    }
}

fn validate(matches: &ArgMatches) -> Result<(), Failure> {
    let mut files = Vec::new();
    for name in matches.get_many::<String>("files").into_iter().flatten() {
        let (read, mut problems) = read::files(std::slice::from_ref(name));
        let shown = read.first().map_or_else(|| name.clone(), |file| file.name.clone());
        for file in read {
            match config::resolve(&Layers { files: vec![file], ..Layers::default() }) {
                Ok(resolved) => flags::tell(&resolved),
                Err(Problems(further)) => problems.extend(further),
            }
        }
        files.push(Checked { name: shown, problems });
    }
    match flags::format(matches) {
        Format::Json => print(&present::checked_json(&files))?,
        Format::Text => {
            for Checked { name, .. } in files.iter().filter(|file| file.problems.is_empty()) {
                print(&format!("{} is a valid configuration\n", quoted(name)))?;
            }
        }
    }
    let problems: Vec<String> = files.into_iter().flat_map(|file| file.problems).collect();
    if problems.is_empty() { Ok(()) } else { Err(flags::refusal(&Problems(problems))) }
}
