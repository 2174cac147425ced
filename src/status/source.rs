//! Which configuration the rules are compared with. Pure.

use std::path::PathBuf;

use crate::config::settings::SETTINGS;
use crate::config::{self, Config, File, Layers, Origin, Resolved};

use super::model::Compared;

/// Settings that say how to look and not what is wanted; a command line with these alone gives no configuration.
const HOW_TO_LOOK: [&str; 8] = [
    "verbose",
    "dryRun",
    "wait",
    "waitInterval",
    "retry.maxRetries",
    "retry.sleepBetweenRetries",
    "storeFirewalld",
    "iptablesExecutables",
];

/// Whether flags, files or variables say what is wanted.
pub fn is_given(resolved: &Resolved) -> bool {
    SETTINGS
        .iter()
        .filter(|setting| !HOW_TO_LOOK.contains(&setting.key))
        .any(|setting| resolved.sources.of(setting.key) != Origin::Default)
}

/// The configuration to compare with: what this command was given, else what the installation recorded; without
/// either, [`Compared::Inferred`] and the defaults, which then only say how to look.
pub fn effective(resolved: &Resolved, recorded: Option<&str>) -> (Config, Compared) {
    if is_given(resolved) {
        let mut config = resolved.config.clone();
        // Which ports are SSH's was found out when it was installed.
        if let Some(recorded) = recorded.filter(|_| config.redirect.inbound.keep_ssh).and_then(read) {
            let (inbound, known) = (&mut config.redirect.inbound, recorded.redirect.inbound);
            if known.keep_ssh && inbound.include_ports.is_empty() {
                let more =
                    known.exclude_ports.into_iter().filter(|port| !inbound.exclude_ports.contains(port));
                let more: Vec<_> = more.collect();
                inbound.exclude_ports.extend(more);
            } else if known.keep_ssh {
                inbound.include_ports.retain(|port| known.include_ports.contains(port));
            }
        }
        return (config, Compared::Given);
    }
    let Some(config) = recorded.and_then(read) else {
        return (resolved.config.clone(), Compared::Inferred);
    };
    // Whoever could write a record must not be able to have a program run by it.
    let iptables_executables = resolved.config.iptables_executables.clone();
    (Config { iptables_executables, ..config }, Compared::Recorded)
}

/// A recorded configuration, without the programs of iptables that it names; one of a later version may have settings
/// that this one does not know.
pub fn read(text: &str) -> Option<Config> {
    resolve(text, true)
}

/// The programs of iptables that a recorded configuration names; to be told, not to be run.
pub fn programs(text: &str) -> Vec<(&'static str, PathBuf)> {
    let mut named = resolve(text, false).map(|config| config.iptables_executables).unwrap_or_default();
    named.each().into_iter().filter_map(|(name, path)| Some((name, path.take()?))).collect()
}

fn resolve(text: &str, recorded: bool) -> Option<Config> {
    let file = File { name: "the recorded configuration".into(), text: text.to_owned(), recorded };
    config::resolve(&Layers { files: vec![file], ..Layers::default() }).ok().map(|resolved| resolved.config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flag;
    use crate::config::settings;

    fn resolved(flags: &[(&'static str, &str)]) -> Resolved {
        let flags = flags.iter().map(|(name, text)| Flag {
            setting: settings::by_flag(name).expect("a flag"),
            name,
            text: (*text).to_owned(),
        });
        config::resolve(&Layers { flags: flags.collect(), ..Layers::default() }).expect("valid")
    }

    #[test]
    fn given_wins_over_recorded_over_nothing() {
        let recorded = "redirect: { outbound: { port: 7 } }";
        let port = |(config, compared): (Config, Compared)| (config.redirect.outbound.port.get(), compared);
        let given = resolved(&[("redirect-outbound-port", "9")]);
        assert_eq!(port(effective(&given, Some(recorded))), (9, Compared::Given));
        assert_eq!(port(effective(&resolved(&[]), Some(recorded))), (7, Compared::Recorded));
        assert_eq!(port(effective(&resolved(&[]), None)), (15001, Compared::Inferred));
        assert_eq!(port(effective(&resolved(&[]), Some("future: 1"))), (15001, Compared::Inferred));
    }

    #[test]
    fn a_record_names_no_program_to_run() {
        let three = "{iptables: /tmp/a, iptables-save: /tmp/b, iptables-restore: /tmp/c}";
        let recorded = &format!("iptablesExecutables: {three}\nkumaDPUser: \"7\"");
        let (config, compared) = effective(&resolved(&[]), Some(recorded));
        assert_eq!(compared, Compared::Recorded);
        assert_eq!(config.iptables_executables, Config::default().iptables_executables);
        assert_eq!(config.kuma_dp_user, Some("7".parse().expect("a user")));
        let named = programs(recorded);
        assert_eq!(named[1], ("iptables-save", "/tmp/b".into()), "{named:?}");
        assert_eq!((named.len(), programs("kumaDPUser: \"7\"").len()), (3, 0));
        // This command's own are.
        let named = resolved(&[("iptables-executables", "iptables:/a,iptables-save:/b,iptables-restore:/c")]);
        let (config, compared) = effective(&named, Some(recorded));
        assert_eq!(
            (compared, config.iptables_executables),
            (Compared::Recorded, named.config.iptables_executables)
        );
    }

    #[test]
    fn how_to_look_is_not_what_is_wanted() {
        let look = resolved(&[("wait", "9"), ("verbose", "true")]);
        assert!(!is_given(&look));
        assert!(is_given(&resolved(&[("kuma-dp-user", "5678")])));
    }
}
