//! A configuration as the flags that give it.

use super::Config;
use super::field::Shown;
use super::settings::SETTINGS;

/// The command line of `tproxy install` that wants the same. Settings that have no flag and are not as they are by
/// default cannot be said so; the command then ends in a comment that names them.
pub fn install_command(config: &Config) -> String {
    let mut words = vec!["tproxy".to_owned(), "install".to_owned()];
    let mut unsaid = Vec::new();
    for setting in SETTINGS.iter().filter(|setting| setting.usable() && setting.key != "dryRun") {
        let shown = setting.field.show(&mut config.clone());
        // Capturing every question implies capturing some, and both flags together are refused.
        let implied = setting.key == "redirect.dns.enabled" && config.redirect.dns.capture_all;
        if implied || shown == setting.field.show(&mut Config::default()) {
            continue;
        }
        let Some(flag) = setting.flag else {
            unsaid.push(setting.key);
            continue;
        };
        let values = match shown {
            Shown::Word(word) if word == "true" || word == "false" => {
                words.push(if word == "true" { format!("--{flag}") } else { format!("--{flag}=false") });
                continue;
            }
            Shown::Word(word) | Shown::Text(word) => vec![word],
            Shown::Words(words) => vec![words.join(",")],
            Shown::Texts(texts) => texts,
            Shown::Pairs(pairs) => {
                let pairs = pairs.into_iter().map(|(name, path)| format!("{name}:{path}"));
                vec![pairs.collect::<Vec<_>>().join(",")]
            }
        };
        words.extend(values.into_iter().flat_map(|value| [format!("--{flag}"), shell(&value)]));
    }
    if !unsaid.is_empty() {
        words.push(format!("--config FILE  # with {}", unsaid.join(", ")));
    }
    words.join(" ")
}

/// A word as a shell has to be given it.
fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@%+=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::Port;

    #[test]
    fn it_says_what_is_not_by_default() {
        assert_eq!(install_command(&Config::default()), "tproxy install");
        let mut config = Config { kuma_dp_user: "kuma-dp".parse().ok(), ..Config::default() };
        config.redirect.dns.enabled = true;
        config.redirect.inbound.enabled = false;
        config.redirect.outbound.exclude_ports = vec![Port::of(80), Port::of(443)];
        config.redirect.outbound.exclude_ports_for_uids = vec!["tcp:*:7".parse().unwrap()];
        assert_eq!(
            install_command(&config),
            "tproxy install --kuma-dp-user kuma-dp --redirect-inbound=false --exclude-outbound-ports 80,443 \
             --exclude-outbound-ports-for-uids 'tcp:*:7' --redirect-dns"
        );
        config.redirect.dns.capture_all = true;
        let command = install_command(&config);
        assert!(
            command.ends_with(" --redirect-all-dns-traffic") && !command.contains("--redirect-dns"),
            "{command}"
        );
        config.redirect.outbound.include_ports = vec![Port::of(80)];
        assert!(install_command(&config).ends_with("--config FILE  # with redirect.outbound.includePorts"));
    }
}
