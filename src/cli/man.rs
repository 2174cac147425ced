//! `tproxy man`: manual pages, made from the command line's own definition.

use std::io;

use clap::builder::Resettable;
use clap::{Arg, ArgAction, ArgMatches, Command};
use clap_mangen::Man;

use crate::config::text::quoted;
use crate::exit::{Exit, Failure};
use crate::stdout::print;

const INSTALL: &str = "\
Install all of them, as root:
  for page in '' $(tproxy man --list); do
    tproxy man $page | install -D /dev/stdin \\
      -m 644 /usr/local/share/man/man1/tproxy${page:+-$page}.1
  done";

/// `tproxy man`.
pub fn command() -> Command {
    Command::new("man")
        .about("Print a manual page")
        .arg(
            Arg::new("page")
                .value_name("COMMAND")
                .num_args(0..)
                .help("Command to describe, such as install or config show; without one, tproxy itself"),
        )
        .arg(
            Arg::new("list")
                .long("list")
                .action(ArgAction::SetTrue)
                .conflicts_with("page")
                .help("Print the names of all commands that have a page, one on a line"),
        )
        .after_help(INSTALL)
}

/// Runs `tproxy man`.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let mut root = super::command();
    root.build();
    if matches.get_flag("list") {
        return print(&names(&root).iter().fold(String::new(), |list, name| list + name + "\n"));
    }
    let words: Vec<&str> = matches
        .get_many::<String>("page")
        .into_iter()
        .flatten()
        .flat_map(|word| word.split([' ', '-']))
        .filter(|word| !word.is_empty())
        .collect();
    let Some(command) = words.iter().try_fold(&root, |command, word| command.find_subcommand(word)) else {
        return Err(Failure::new(Exit::Usage, format!("there is no command {}", quoted(&words.join(" "))))
            .hint("'tproxy man --list' prints the names of all pages"));
    };
    let full = ["tproxy"].iter().chain(&words).copied().collect::<Vec<_>>().join("-");
    let text = page(command, &full)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot write the manual page: {error}")))?;
    print(&text)
}

/// The commands that have a page beside tproxy itself, `config-show` for `config show`.
fn names(root: &Command) -> Vec<String> {
    let mut names = Vec::new();
    for command in
        root.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
    {
        names.push(command.get_name().to_owned());
        names.extend(self::names(command).iter().map(|below| format!("{}-{below}", command.get_name())));
    }
    names
}

fn page(command: &Command, full: &str) -> io::Result<String> {
    let behind = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
    let command = command
        .clone()
        .name(full.to_owned())
        .display_name(full.to_owned())
        .after_help(Resettable::Reset)
        .after_long_help(Resettable::Reset)
        .mut_args(with_paragraphs);
    let version = concat!("tproxy ", env!("CARGO_PKG_VERSION"));
    let mut text = Vec::new();
    Man::new(command).title(full).source(version).manual("tproxy").render(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned() + &behind.map_or(String::new(), |text| sections(&text)))
}

/// A line break within a help text would be filled up like a space.
fn with_paragraphs(arg: Arg) -> Arg {
    match arg.get_long_help().map(ToString::to_string) {
        Some(help) if help.contains('\n') => arg.long_help(help.replace('\n', "\n\n")),
        _ => arg,
    }
}

/// What stands behind the options, paragraph by paragraph, with lines as they are where they are indented.
fn sections(text: &str) -> String {
    let mut out = String::new();
    for (index, paragraph) in text.split("\n\n").enumerate() {
        let title = match paragraph {
            exits if exits.starts_with("Exit codes") => Some("EXIT STATUS"),
            example if example.starts_with("Example") => Some("EXAMPLES"),
            _ if index == 0 => Some("NOTES"),
            _ => None,
        };
        out.push_str(&title.map_or(".PP\n".to_owned(), |title| format!(".SH \"{title}\"\n")));
        let mut kept = false;
        for line in paragraph.lines() {
            let keep = line.starts_with("  ");
            if keep != kept {
                out.push_str(if keep { ".PP\n.nf\n" } else { ".fi\n.PP\n" });
            }
            kept = keep;
            // No line begins with a dot or an apostrophe, which would make it a request.
            out.push_str("\\&");
            out.push_str(&line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq"));
            out.push('\n');
        }
        if kept {
            out.push_str(".fi\n");
        }
    }
    out
}
