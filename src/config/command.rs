//! A configuration as the one command that installs it.

use super::field::{Field, Shown};
use super::origin::DOCUMENT;
use super::settings::{SETTINGS, Setting};
use super::values::Port;
use super::{Config, Origin, Resolved, Sources};

/// How many entries of lists are said at length where there is a shorter way.
const AT_LENGTH: usize = 20;

/// Files that say a configuration, but for what came from flags and variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    files: Vec<String>,
    sources: Sources,
}

impl Written {
    /// The files that a command was given. `None`: none, or one that another command cannot read again, such as
    /// standard input.
    pub fn given(resolved: &Resolved) -> Option<Self> {
        let lasts = |name: &String| {
            name != DOCUMENT && !["<", "/dev/", "/proc/"].iter().any(|start| name.starts_with(start))
        };
        let files = resolved.files.clone();
        (!files.is_empty() && files.iter().all(lasts))
            .then(|| Self { files, sources: resolved.sources.clone() })
    }

    /// A file that says all but what a command was given.
    pub fn beside(file: String, sources: &Sources) -> Self {
        Self { files: vec![file], sources: sources.clone() }
    }

    /// The same where one setting has another value now.
    #[must_use]
    pub fn but(mut self, key: &'static str) -> Self {
        self.sources.set(key, Origin::Flag(String::new()));
        self
    }

    fn leaves_out(&self, setting: &Setting) -> bool {
        matches!(self.sources.of(setting.key), Origin::Flag(_) | Origin::Variable(_))
    }
}

/// The command line of `tproxy install` that wants the same, for a shell. What is not in files is said by flags, and
/// what has no flag by variables.
pub fn install_command(config: &Config, written: Option<&Written>) -> String {
    let (mut variables, mut words) = (Vec::new(), vec!["tproxy".to_owned(), "install".to_owned()]);
    for file in written.iter().flat_map(|written| &written.files) {
        words.extend(["--config".to_owned(), shell(file)]);
    }
    let mut config = config.clone();
    let mut default = Config::default();
    for setting in SETTINGS.iter().filter(|setting| setting.usable() && setting.key != "dryRun") {
        let shown = setting.field.show(&mut config);
        // Capturing every question implies capturing some, and both flags together are refused.
        let implied = setting.key == "redirect.dns.enabled" && config.redirect.dns.capture_all;
        let is_said = match written {
            Some(written) => written.leaves_out(setting),
            None => !implied && shown != setting.field.show(&mut default),
        };
        if !is_said {
            continue;
        }
        match setting.flag.filter(|_| has_flag(setting.field, &shown)) {
            Some(flag) => words.extend(flags(flag, setting.field, shown)),
            None => variables.push(format!("{}={}", setting.variable(), shell(&text(shown)))),
        }
    }
    variables.into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

/// What leaves these TCP ports alone when traffic arrives at them, beside those that are left alone already: the flag
/// with its whole value, or the key.
pub fn leaving_alone(config: &Config, ports: impl IntoIterator<Item = u16>) -> String {
    let inbound = &config.redirect.inbound;
    let numbers = |ports: &[Port]| ports.iter().map(|port| port.get()).collect::<Vec<_>>();
    let listed = |ports: Vec<u16>| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    if inbound.include_ports.is_empty() {
        let mut all = numbers(&inbound.exclude_ports);
        for port in ports {
            if !all.contains(&port) {
                all.push(port);
            }
        }
        return format!("--exclude-inbound-ports {}", listed(all));
    }
    let mut rest = numbers(&inbound.include_ports);
    for port in ports {
        rest.retain(|included| *included != port);
    }
    if rest.is_empty() {
        return "--redirect-inbound=false".to_owned();
    }
    format!("redirect.inbound.includePorts: [{}]", listed(rest))
}

/// Whether a command of flags alone says it, and no more of them than a person wants to read.
pub fn is_short(config: &Config) -> bool {
    let (mut config, mut default) = (config.clone(), Config::default());
    let mut entries = 0;
    SETTINGS.iter().filter(|setting| setting.usable()).all(|setting| {
        let shown = setting.field.show(&mut config);
        if shown == setting.field.show(&mut default) {
            return true;
        }
        if let Shown::Words(all) | Shown::Texts(all) = &shown {
            entries += all.len();
        }
        entries <= AT_LENGTH && setting.flag.is_some()
    })
}

/// Whether a flag can say a value: no entry is no text for those that can be given again.
fn has_flag(field: Field, shown: &Shown) -> bool {
    !matches!(shown, Shown::Texts(all) if all.is_empty()) || matches!(field, Field::Ports(_))
}

fn flags(flag: &str, field: Field, shown: Shown) -> Vec<String> {
    let values = match shown {
        Shown::Word(word) if matches!(field, Field::Switch(_)) => {
            return vec![if word == "true" { format!("--{flag}") } else { format!("--{flag}={word}") }];
        }
        // Commas belong to each entry.
        Shown::Texts(texts) if !matches!(field, Field::Networks(_)) => texts,
        other => vec![text(other)],
    };
    values.into_iter().flat_map(|value| [format!("--{flag}"), shell(&value)]).collect()
}

/// A value as variables have it.
fn text(shown: Shown) -> String {
    match shown {
        Shown::Word(word) | Shown::Text(word) => word,
        Shown::Words(all) | Shown::Texts(all) => all.join(","),
        Shown::Pairs(pairs) => {
            let pairs = pairs.into_iter().map(|(name, path)| format!("{name}:{path}"));
            pairs.collect::<Vec<_>>().join(",")
        }
    }
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
    use crate::config::{File, Flag, Layers, resolve, settings};

    /// What a command line of ours means, as a shell and the program read it.
    fn meant(command: &str, files: &[File]) -> Config {
        let mut layers = Layers::default();
        let mut words = words(command).into_iter().peekable();
        while let Some(word) = words.next_if(|word| word.starts_with(settings::PREFIX)) {
            let (name, value) = word.split_once('=').expect("an assignment");
            layers.variables.push((name.to_owned(), value.to_owned()));
        }
        assert_eq!((words.next().as_deref(), words.next().as_deref()), (Some("tproxy"), Some("install")));
        while let Some(word) = words.next() {
            let (name, value) =
                word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
            let name = name.strip_prefix("--").expect("a flag");
            if name == "config" {
                let named = words.next().expect("a file");
                layers
                    .files
                    .push(files.iter().find(|file| file.name == named).expect("a known file").clone());
                continue;
            }
            let setting = settings::by_flag(name).expect("a known flag");
            let text = match (value, setting.field) {
                (Some(value), _) => value.to_owned(),
                (None, Field::Switch(_)) => "true".to_owned(),
                (None, _) => words.next().expect("a value"),
            };
            layers.flags.push(Flag { setting, name: setting.flag.expect("its flag"), text });
        }
        resolve(&layers).unwrap_or_else(|problems| panic!("{command}: {problems}")).config
    }

    /// As a shell cuts them.
    fn words(command: &str) -> Vec<String> {
        let (mut all, mut word, mut quoted) = (Vec::new(), String::new(), false);
        let mut rest = command.chars();
        while let Some(c) = rest.next() {
            match c {
                '\'' => quoted = !quoted,
                '\\' if !quoted => word.extend(rest.next()),
                ' ' if !quoted => all.push(std::mem::take(&mut word)),
                c => word.push(c),
            }
        }
        assert!(!quoted, "{command}");
        all.push(word);
        all
    }

    #[test]
    fn it_says_what_is_not_by_default() {
        assert_eq!(install_command(&Config::default(), None), "tproxy install");
        let mut config = Config { kuma_dp_user: "kuma-dp".parse().ok(), ..Config::default() };
        config.redirect.dns.enabled = true;
        config.redirect.inbound.enabled = false;
        config.redirect.outbound.exclude_ports = vec![Port::of(80), Port::of(443)];
        config.redirect.outbound.exclude_ports_for_uids = vec!["tcp:*:7".parse().unwrap()];
        config.redirect.outbound.exclude_ports_for_ips =
            vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        let command = install_command(&config, None);
        assert_eq!(
            command,
            "tproxy install --kuma-dp-user kuma-dp --redirect-inbound=false --exclude-outbound-ports 80,443 \
             --exclude-outbound-ports-for-uids 'tcp:*:7' --exclude-outbound-ips 10.0.0.0/8,::1 --redirect-dns"
        );
        assert_eq!(meant(&command, &[]), config);
        assert!(is_short(&config));
        config.redirect.dns.capture_all = true;
        let command = install_command(&config, None);
        assert!(
            command.ends_with(" --redirect-all-dns-traffic") && !command.contains("--redirect-dns"),
            "{command}"
        );
        assert_eq!(meant(&command, &[]), config);
    }

    #[test]
    fn what_has_no_flag_is_said_by_variables() {
        let mut config = Config::default();
        config.redirect.outbound.include_ports = vec![Port::of(80), Port::of(443)];
        config.redirect.dns.resolv_config_path = "/run/it's here".into();
        config.redirect.dns.enabled = true;
        let command = install_command(&config, None);
        assert_eq!(
            command,
            "KUMA_TRANSPARENT_PROXY_REDIRECT_OUTBOUND_INCLUDE_PORTS=80,443 \
             KUMA_TRANSPARENT_PROXY_REDIRECT_DNS_RESOLV_CONFIG_PATH='/run/it'\\''s here' tproxy install --redirect-dns"
        );
        assert_eq!(meant(&command, &[]), config);
        assert!(!is_short(&config));
    }

    #[test]
    fn a_long_list_is_not_short() {
        let mut config = Config::default();
        config.redirect.outbound.exclude_ports = (1..=20).map(Port::of).collect();
        assert!(is_short(&config));
        config.redirect.inbound.exclude_ports_for_ips = vec!["10.0.0.0/8".parse().unwrap()];
        assert!(!is_short(&config));
    }

    fn resolved(files: &[File], variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Resolved {
        let flags = flags.iter().map(|(name, text)| Flag {
            setting: settings::by_flag(name).expect("a flag"),
            name,
            text: (*text).to_owned(),
        });
        let variables =
            variables.iter().map(|(name, text)| (format!("{}{name}", settings::PREFIX), (*text).to_owned()));
        let layers = Layers {
            files: files.to_vec(),
            variables: variables.collect(),
            flags: flags.collect(),
            lines: false,
        };
        resolve(&layers).expect("valid")
    }

    #[test]
    fn files_are_named_and_what_overrides_them_is_said() {
        let one = "redirect: {outbound: {includePorts: [80], excludePortsForIPs: [10.0.0.1, 10.0.0.2]}}";
        let two = "redirect: {outbound: {port: 7}, dns: {captureAll: true}}";
        let files = [("a file.yaml", one), ("/b.yaml", two)].map(|(name, text)| File {
            name: name.to_owned(),
            text: text.to_owned(),
            recorded: false,
        });
        let variables = [("REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_IPS", ""), ("REDIRECT_OUTBOUND_PORT", "8")];
        let flags = [("kuma-dp-user", "5678"), ("redirect-outbound-port", "9")];
        let given = resolved(&files, &variables, &flags);
        let written = Written::given(&given).expect("files");
        let command = install_command(&given.config, Some(&written));
        assert_eq!(
            command,
            "KUMA_TRANSPARENT_PROXY_REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_IPS='' tproxy install --config 'a file.yaml' \
             --config /b.yaml --kuma-dp-user 5678 --redirect-outbound-port 9"
        );
        assert_eq!(meant(&command, &files), given.config);

        let mut meant_so = given.config.clone();
        meant_so.ip_family_mode = "ipv4".parse().unwrap();
        let command = install_command(&meant_so, Some(&written.but("ipFamilyMode")));
        assert_eq!(meant(&command, &files), meant_so);
    }

    #[test]
    fn files_that_are_gone_by_then_are_not_named() {
        for name in ["<stdin>", "/dev/fd/63", "/proc/self/fd/3"] {
            let file = File { name: name.to_owned(), text: "backend: nftables".to_owned(), recorded: false };
            assert_eq!(Written::given(&resolved(&[file], &[], &[])), None);
        }
        assert_eq!(Written::given(&resolved(&[], &[], &[("wait", "7")])), None);
    }
}
