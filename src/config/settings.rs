//! The one table of settings. Flags, variables, file keys, `config show`, `config default` and the documentation's
//! table are all made from it; a new option is a field in the schema and an entry in [`SETTINGS`].

use super::field::Field;
pub use super::table::SETTINGS;
use super::values::InvalidValue;

/// What the variables of every setting begin with.
pub const PREFIX: &str = "KUMA_TRANSPARENT_PROXY_";

/// Under which heading help and documentation list a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Traffic that arrives.
    In,
    /// Traffic that local processes send.
    Out,
    /// DNS questions.
    Dns,
    /// What this host is like.
    Host,
    /// How careful a change is.
    Safety,
    /// What is printed.
    Output,
}

impl Group {
    /// Every group, in the order of help and documentation.
    pub const ALL: [Self; 6] = [Self::In, Self::Out, Self::Dns, Self::Host, Self::Safety, Self::Output];

    /// The heading.
    pub const fn title(self) -> &'static str {
        match self {
            Self::In => "Traffic in",
            Self::Out => "Traffic out",
            Self::Dns => "DNS",
            Self::Host => "Host",
            Self::Safety => "Safety",
            Self::Output => "Output",
        }
    }
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its key in a file, sections joined with dots.
    pub key: &'static str,
    /// Its flag, without the dashes.
    pub flag: Option<&'static str>,
    /// Its variable, without the prefix.
    pub variable: &'static str,
    /// A variable without the prefix that counts when the one with the prefix is not set, as in kumactl.
    pub alternate: Option<&'static str>,
    /// Its heading.
    pub group: Group,
    /// Where it lives, and its grammar.
    pub field: Field,
    /// What it does: one line, or one line and further ones. No full stop at the end of the first.
    pub doc: &'static str,
}

impl Setting {
    /// The full name of its variable.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.variable)
    }

    /// Whether it can be used at all; others are in the table only to be refused well.
    pub fn usable(&self) -> bool {
        !matches!(self.field, Field::Never(_))
    }
}

/// The setting with a key, whatever the case of its letters.
pub fn by_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key.eq_ignore_ascii_case(key))
}

/// The setting with a flag.
pub fn by_flag(flag: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.flag == Some(flag))
}

/// Variables without the prefix that kumactl reads and `tproxy` does not, with what to set instead: as a side
/// effect of its library each sets two directions at once, or changes how users are looked up.
pub const IGNORED_ALTERNATES: [(&str, &str); 3] = [
    ("EXCLUDE_PORTS_FOR_UIDS", "KUMA_TRANSPARENT_PROXY_REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_UIDS"),
    ("EXCLUDE_PORTS_FOR_IPS", "KUMA_TRANSPARENT_PROXY_REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_IPS"),
    ("CNI_MODE", "KUMA_TRANSPARENT_PROXY_CNI_MODE"),
];

/// The variables, without the prefix, that rename Kuma's chains.
pub const CHAIN_NAMES: [&str; 4] = [
    "REDIRECT_INBOUND_CHAIN_NAME",
    "REDIRECT_INBOUND_REDIRECT_CHAIN_NAME",
    "REDIRECT_OUTBOUND_CHAIN_NAME",
    "REDIRECT_OUTBOUND_REDIRECT_CHAIN_NAME",
];

/// Why eBPF is refused.
pub fn ebpf_refusal() -> InvalidValue {
    InvalidValue(
        "redirection by eBPF comes with a later version; leave it out and iptables rules are used".into(),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let distinct = |names: Vec<String>| {
            let count = names.len();
            assert_eq!(
                names.into_iter().map(|name| name.to_lowercase()).collect::<BTreeSet<_>>().len(),
                count
            );
        };
        distinct(SETTINGS.iter().map(|s| s.key.to_owned()).collect());
        distinct(SETTINGS.iter().map(Setting::variable).collect());
        distinct(SETTINGS.iter().filter_map(|s| s.flag.map(str::to_owned)).collect());
    }

    #[test]
    fn sections_stand_together() {
        let mut closed = BTreeSet::new();
        let mut open = Vec::new();
        for setting in SETTINGS {
            let mut path = setting.key.split('.').collect::<Vec<_>>();
            path.pop();
            while !path.starts_with(&open) {
                closed.insert(open.clone());
                open.pop();
            }
            for depth in open.len()..path.len() {
                assert!(!closed.contains(&path[..=depth]), "{} is split", path[..=depth].join("."));
            }
            open = path;
        }
    }

    #[test]
    fn docs_are_one_line_without_full_stop_and_then_sentences() {
        for setting in SETTINGS {
            let (first, rest) = setting.doc.split_once('\n').unwrap_or((setting.doc, ""));
            assert!(!first.is_empty() && !first.ends_with('.') && first.len() <= 130, "{}", setting.key);
            assert!(!rest.contains('\n') && (rest.is_empty() || rest.ends_with('.')), "{}", setting.key);
        }
    }
}
