//! Which configuration the rules are compared with. Pure.

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
        return (resolved.config.clone(), Compared::Given);
    }
    let Some(mut config) = recorded.and_then(read) else {
        return (resolved.config.clone(), Compared::Inferred);
    };
    if resolved.sources.of("iptablesExecutables") != Origin::Default {
        config.iptables_executables = resolved.config.iptables_executables.clone();
    }
    (config, Compared::Recorded)
}

/// A recorded configuration; one of a later version may have settings that this one does not know.
pub fn read(text: &str) -> Option<Config> {
    let file = File { name: "the recorded configuration".into(), text: text.to_owned() };
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
    fn how_to_look_is_not_what_is_wanted() {
        let look = resolved(&[("wait", "9"), ("verbose", "true")]);
        assert!(!is_given(&look));
        assert!(is_given(&resolved(&[("kuma-dp-user", "5678")])));
    }
}
