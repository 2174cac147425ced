//! What to type instead, where something was typed that is no command and no flag.

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::config::settings::{SETTINGS, Setting};
use crate::exit::{Exit, Failure};

/// Words for a command that people bring along from other programs, and the command.
const COMMANDS: [(&str, &[&str]); 6] = [
    (
        "install",
        &[
            "add", "apply", "create", "enable", "init", "redirect", "reload", "set", "setup", "start", "up",
            "update", "upgrade",
        ],
    ),
    (
        "uninstall",
        &[
            "clean", "cleanup", "clear", "del", "delete", "disable", "down", "flush", "remove", "reset",
            "rm", "stop",
        ],
    ),
    ("status", &["check", "doctor", "info", "inspect", "list", "ls", "show", "state"]),
    ("verify", &["ping", "probe", "prove", "test"]),
    ("install --dry-run=diff", &["diff", "plan", "preview"]),
    ("config validate", &["lint", "validate"]),
];

/// A flag that is none, because the setting has none.
pub fn failure(error: &Error) -> Option<Failure> {
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidArg) else { return None };
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let name = typed.split('=').next()?.strip_prefix("--")?;
    let setting = setting_without_flag(name)?;
    let (what, variable) = (setting.key, setting.variable());
    Some(
        Failure::new(Exit::Usage, format!("there is no flag --{name}: the setting {what} has none"))
            .hint(format!("set {what} in a file for --config, or the variable {variable}")),
    )
}

/// The setting that somebody means who types a flag for it, going by its key or its variable.
fn setting_without_flag(name: &str) -> Option<&'static Setting> {
    let mut setting = SETTINGS.iter().filter(|setting| setting.flag.is_none() && setting.usable());
    setting.find(|setting| {
        let long = setting.variable.to_lowercase().replace('_', "-");
        let short = long.strip_suffix("-enabled").unwrap_or(&long);
        // As the flags that exclude ports are called.
        let turned = |direction: &str| {
            long == format!("redirect-{direction}-include-ports")
                && name == format!("include-{direction}-ports")
        };
        name == long || name == short || turned("inbound") || turned("outbound")
    })
}

/// How many letters have to be put in, left out or exchanged to make one word of another.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (nth, letter) in one.chars().enumerate() {
        let mut corner = nth;
        row[0] = nth + 1;
        for (at, wanted) in other.iter().enumerate() {
            let exchanged = corner + usize::from(letter != *wanted);
            corner = row[at + 1];
            row[at + 1] = exchanged.min(row[at] + 1).min(corner + 1);
        }
    }
    row[other.len()]
}

/// Puts better advice into an error than the nearest word.
pub fn improve(error: &mut Error) {
    // To pass an unknown flag as a word only leads to the next error.
    error.remove(ContextKind::Suggested);
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else { return };
    let typed = typed.to_lowercase();
    let nearest = match error.get(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::Strings(near)) => near.iter().min_by_key(|name| distance(name, &typed)).cloned(),
        _ => None,
    };
    let meant = COMMANDS.iter().find(|(_, words)| words.contains(&typed.as_str()));
    if let Some(command) = meant.map(|(command, _)| (*command).to_owned()).or(nearest) {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![command]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(words: &[&str]) -> Error {
        let words = ["tproxy"].iter().chain(words);
        crate::cli::command().try_get_matches_from(words).unwrap_err()
    }

    #[test]
    fn words_of_other_programs_lead_to_the_command() {
        for (word, command) in
            [("remove", "'uninstall'"), ("LIST", "'status'"), ("diff", "'install --dry-run=diff'")]
        {
            let mut error = error(&[word]);
            improve(&mut error);
            assert!(error.to_string().contains(command), "{error}");
        }
        let mut nearest = error(&["instal"]);
        improve(&mut nearest);
        let said = nearest.to_string();
        assert!(said.contains("'install'") && !said.contains("uninstall"), "{said}");
        assert_eq!(["install", "uninstall"].map(|name| distance(name, "instal")), [1, 3]);
        assert_eq!(distance("verify", "verfiy"), 2);
    }

    #[test]
    fn no_word_is_a_command_and_none_means_two() {
        let root = crate::cli::command();
        let words: Vec<&str> = COMMANDS.iter().flat_map(|(_, words)| words.iter().copied()).collect();
        for word in &words {
            assert!(root.find_subcommand(word).is_none(), "{word}");
            assert_eq!(words.iter().filter(|other| *other == word).count(), 1, "{word}");
        }
    }

    #[test]
    fn settings_without_a_flag_are_known_by_their_other_names() {
        for (flag, key) in [
            ("--redirect-outbound=false", "redirect.outbound.enabled"),
            ("--include-inbound-ports", "redirect.inbound.includePorts"),
            ("--redirect-outbound-include-ports", "redirect.outbound.includePorts"),
            ("--redirect-dns-resolv-config-path=/x", "redirect.dns.resolvConfigPath"),
        ] {
            let failure = failure(&error(&["install", flag])).expect(flag);
            assert!(
                failure.message.contains(key) && failure.hint.is_some_and(|hint| hint.contains(key)),
                "{flag}"
            );
        }
        assert!(failure(&error(&["install", "--no-such-flag"])).is_none());
        assert!(failure(&error(&["instal"])).is_none());
    }
}
