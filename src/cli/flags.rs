//! The flags that set configuration, made from the table of settings, and what was typed of them.

use clap::builder::{PossibleValuesParser, StyledStr};
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::read;
use super::retired::{EBPF, EBPF_SWITCH, REMOVED};
use crate::apply::{DryRun, Format};
use crate::config::field::{Field, Shown};
use crate::config::settings::{self, Group, SETTINGS, Setting};
use crate::config::text::{quoted, switch};
use crate::config::{self, Config, Flag, Layers, Problems, Resolved};
use crate::exit::{Exit, Failure};

/// Older names of flags, with the one to use today.
const ALIASES: [(&str, &str, &str); 1] =
    [("kuma-dp-uid", "kuma-dp-user", "use --kuma-dp-user, which takes UIDs and names")];

/// Adds every configuration flag to a command.
pub fn add(command: Command) -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .action(ArgAction::Append)
        .allow_hyphen_values(true)
        .help("Configuration file in YAML or JSON, - for standard input, or the configuration itself; given again, later files override earlier ones")
        .help_heading("Configuration");
    let config_file = config.clone().id("config-file").long("config-file").hide(true);
    let mut command = command.arg(config).arg(config_file);
    // Headings appear in the order of their first flag.
    for group in Group::ALL {
        for setting in SETTINGS.iter().filter(|setting| setting.group == group) {
            if let Some(flag) = setting.flag {
                command = command.arg(arg(setting, flag));
            }
        }
    }
    for (alias, flag, _) in ALIASES {
        if let Some(setting) = settings::by_flag(flag) {
            command = command.arg(arg(setting, alias).hide(true));
        }
    }
    for name in REMOVED.iter().map(|(name, _)| *name).chain(EBPF) {
        let refused = Arg::new(name).long(name).num_args(0..=1).action(ArgAction::Append).hide(true);
        command = command.arg(refused);
    }
    command.arg(switch_arg(Arg::new(EBPF_SWITCH).long(EBPF_SWITCH)).action(ArgAction::Append).hide(true))
}

fn arg(setting: &Setting, flag: &'static str) -> Arg {
    let arg = Arg::new(flag).long(flag).action(ArgAction::Append).help_heading(setting.group.title());
    let arg = match setting.field {
        Field::Switch(_) => switch_arg(arg),
        field => arg.value_name(field.value_name()).allow_hyphen_values(true),
    };
    if setting.key == "dryRun" {
        return arg.value_name("true|false|diff").help("Print the rules and change nothing").long_help(
            "Print the rules and change nothing; needs no root\n\
             --dry-run=diff prints all that the run would change instead: rules, addresses, firewalld's direct.xml.",
        );
    }
    let (first, rest) = setting.doc.split_once('\n').unwrap_or((setting.doc, ""));
    let default = match setting.field.show(&mut Config::default()) {
        Shown::Word(word) if word != "false" => format!(" [default: {word}]"),
        _ => String::new(),
    };
    let short = format!("{first}{default}");
    let mut long = short.clone();
    if !rest.is_empty() {
        long.push('\n');
        long.push_str(rest);
    }
    arg.help(StyledStr::from(short)).long_help(StyledStr::from(long))
}

/// A switch as pflag reads it: `--x` or `--x=BOOL`, never `--x BOOL`.
fn switch_arg(arg: Arg) -> Arg {
    arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("true|false")
}

/// A switch that is no setting of the configuration.
pub fn plain_switch(name: &'static str, help: &'static str) -> Arg {
    switch_arg(Arg::new(name).long(name))
        .action(ArgAction::Set)
        .overrides_with(name)
        .value_parser(|text: &str| switch(text).ok_or("expected true or false"))
        .help(help)
}

/// Whether such a switch is on.
pub fn is_on(matches: &ArgMatches, name: &str) -> bool {
    matches.get_one::<bool>(name).copied().unwrap_or(false)
}

/// `--output`.
pub fn output_arg() -> Arg {
    Arg::new("output")
        .long("output")
        .short('o')
        .value_name("text|json")
        .value_parser(PossibleValuesParser::new(["text", "json"]))
        .hide_possible_values(true)
        .action(ArgAction::Set)
        .overrides_with("output")
        .help("Print results for people or for programs [default: text]")
        .help_heading("Output")
}

/// What `--output` says.
pub fn format(matches: &ArgMatches) -> Format {
    match matches.get_one::<String>("output").map(String::as_str) {
        Some("json") => Format::Json,
        _ => Format::Text,
    }
}

/// What a command line with configuration flags means.
pub struct Wanted {
    /// The configuration and where it came from.
    pub resolved: Resolved,
    /// The dry run, which knows one form that files do not.
    pub dry_run: DryRun,
}

/// Reads files and the environment, puts the layers together, and logs what is worth a line.
///
/// `lines` asks for the line of every value that a file sets.
pub fn resolve(matches: &ArgMatches, lines: bool) -> Result<Wanted, Failure> {
    let (layers, diff, mut problems) = layers(matches);
    let layers = Layers { lines, ..layers };
    let resolved = match config::resolve(&layers) {
        Ok(resolved) if problems.is_empty() => resolved,
        Ok(_) => return Err(refusal(&Problems(problems))),
        Err(Problems(further)) => {
            problems.extend(further);
            return Err(refusal(&Problems(problems)));
        }
    };
    Ok(wanted(resolved, diff))
}

/// The same for a run that removes rules, which must not stay because of a configuration: what is wrong with it is
/// logged and has its default.
///
/// # Errors
/// What is wrong with `--dry-run`: it decides whether anything is removed.
pub fn resolve_anyway(matches: &ArgMatches) -> Result<Wanted, Failure> {
    let (layers, diff, mut problems) = layers(matches);
    if typed(matches, "dry-run").iter().any(|(_, text)| text != "diff" && switch(text).is_none()) {
        return Err(refusal(&Problems(problems)));
    }
    let (resolved, Problems(further)) = config::resolve_anyway(&layers);
    problems.extend(further);
    for problem in problems.iter().take(config::LISTED) {
        tracing::warn!("{problem}");
    }
    Ok(wanted(resolved, diff))
}

fn wanted(resolved: Resolved, diff: bool) -> Wanted {
    tell(&resolved);
    let dry_run = match (resolved.config.dry_run, diff) {
        (false, _) => DryRun::Off,
        (true, false) => DryRun::Rules,
        (true, true) => DryRun::Diff,
    };
    Wanted { resolved, dry_run }
}

/// Logs what a configuration that passed has to say.
pub fn tell(resolved: &Resolved) {
    for warning in resolved.warnings.iter().take(config::LISTED) {
        tracing::warn!("{warning}");
    }
    let more = resolved.warnings.len().saturating_sub(config::LISTED);
    if more > 0 {
        tracing::warn!("{more} more warnings about the configuration are not printed");
    }
    for note in &resolved.notes {
        tracing::info!("{note}");
    }
}

/// The error for a configuration that did not pass.
pub fn refusal(problems: &Problems) -> Failure {
    Failure::new(Exit::Usage, problems.to_string())
}

/// Everything that was said, whether the dry run is a diff, and what is wrong already.
fn layers(matches: &ArgMatches) -> (Layers, bool, Vec<String>) {
    let mut problems = refused(matches);
    let (files, unread) = read::files(&file_names(matches));
    let (variables, garbled) = read::variables();
    problems.extend(unread);
    problems.extend(garbled);

    let mut flags = Vec::new();
    let mut diff = false;
    for setting in SETTINGS {
        let Some(flag) = setting.flag else { continue };
        for (at, text) in typed(matches, flag) {
            let is_diff = setting.key == "dryRun" && text == "diff";
            if setting.key == "dryRun" {
                diff = is_diff;
                if !is_diff && switch(&text).is_none() {
                    problems.push(format!(
                        "invalid value {} for --{flag}: expected true, false or diff",
                        quoted(&text)
                    ));
                    continue;
                }
            }
            let text = if is_diff { "true".to_owned() } else { text };
            flags.push((at, Flag { setting, name: flag, text }));
        }
    }
    for (alias, flag, advice) in ALIASES {
        let Some(setting) = settings::by_flag(flag) else { continue };
        let given = typed(matches, alias);
        if !given.is_empty() {
            tracing::warn!("--{alias} is deprecated; {advice}");
        }
        flags.extend(given.into_iter().map(|(at, text)| (at, Flag { setting, name: alias, text })));
    }
    flags.sort_by_key(|(at, _)| *at);
    let flags = flags.into_iter().map(|(_, flag)| flag).collect();
    (Layers { files, variables, flags, ..Layers::default() }, diff, problems)
}

/// The values of a flag with their places on the command line.
fn typed(matches: &ArgMatches, flag: &str) -> Vec<(usize, String)> {
    let places = matches.indices_of(flag).into_iter().flatten();
    let values = matches.get_many::<String>(flag).into_iter().flatten();
    places.zip(values.cloned()).collect()
}

/// The files of `--config` and of its older name, in the order of the command line.
fn file_names(matches: &ArgMatches) -> Vec<String> {
    let older = typed(matches, "config-file");
    if !older.is_empty() {
        tracing::warn!("--config-file is deprecated; use --config");
    }
    let mut names = typed(matches, "config");
    names.extend(older);
    names.sort();
    // kumactl passes over an empty name, and scripts with an unset variable make one.
    names.into_iter().map(|(_, name)| name).filter(|name| !name.is_empty()).collect()
}

/// eBPF is refused where it is wanted. kumactl has its flags for both commands, and without a mode of its own since 2.9
/// it does nothing with them but ask for an address, so what turns it off is passed over. So is all of it where rules
/// are removed: none of them are eBPF's.
fn ebpf(matches: &ArgMatches) -> Vec<String> {
    let removes = matches.try_contains_id("force").is_ok();
    let asked = typed(matches, EBPF_SWITCH).pop().map(|(_, text)| text);
    let off = removes || asked.as_deref().map(switch) == Some(Some(false));
    let mut problems = Vec::new();
    let others = EBPF.into_iter().filter(|name| matches.indices_of(name).is_some());
    for name in others.chain(asked.is_some().then_some(EBPF_SWITCH)) {
        if off {
            tracing::info!("--{name} is not used: there is no redirection by eBPF");
        } else {
            problems.push(format!("--{name} cannot be used: {}", settings::ebpf_refusal()));
        }
    }
    problems
}

/// Flags and words that are refused with a reason better than "unknown".
fn refused(matches: &ArgMatches) -> Vec<String> {
    let is_given = |name: &str| matches.indices_of(name).is_some();
    let mut problems = Vec::new();
    for (name, instead) in REMOVED {
        if is_given(name) {
            problems.push(format!("--{name} was removed from kumactl before 2.9; {instead}"));
        }
    }
    problems.extend(ebpf(matches));
    let words = matches.try_get_many::<String>("word").ok().flatten().into_iter().flatten();
    for (index, word) in words.enumerate() {
        if index == 0 && word == "transparent-proxy" {
            continue;
        }
        let why = match switch(word) {
            Some(_) => "a switch takes its value after '=', such as --redirect-dns=false",
            None => "the only word here is 'transparent-proxy', and it can be left out",
        };
        problems.push(format!("unexpected argument {}: {why}", quoted(word)));
    }
    problems
}
