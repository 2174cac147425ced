//! Where a value came from, and the sentences that name it.

use std::collections::BTreeMap;
use std::fmt;

use super::document::Spot;
use super::field::Item;
use super::text::quoted;

/// What messages call a document that `--config` was given instead of a file's name.
pub const DOCUMENT: &str = "--config";

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// Nobody said anything.
    #[default]
    Default,
    /// A line of a file; the line is unknown when there are too many problems to look each up.
    File {
        /// As it was named on the command line.
        name: String,
        /// Counted from 1.
        line: Option<usize>,
    },
    /// A place in the document that `--config` was given instead of a file's name; unknown as above.
    Document(Option<Spot>),
    /// A variable of the environment.
    Variable(String),
    /// A flag, with its dashes.
    Flag(String),
    /// Another setting, which implies this one.
    Implied(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line: Some(line) } => write!(f, "{}:{line}", plain(name)),
            Self::File { name, line: None } => f.write_str(&plain(name)),
            Self::Document(None) => f.write_str(DOCUMENT),
            Self::Document(Some(Spot { line, column })) => write!(f, "{DOCUMENT}:{line}:{column}"),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
            Self::Implied(key) => write!(f, "implied by {key}"),
        }
    }
}

/// A file name without anything that could break the line it is printed on.
fn plain(name: &str) -> String {
    if name.chars().any(char::is_control) { quoted(name) } else { name.to_owned() }
}

impl Origin {
    /// A place in a file or a document of this name.
    pub(super) fn within(name: &str, spot: Option<Spot>) -> Self {
        if name == DOCUMENT {
            Self::Document(spot)
        } else {
            Self::File { name: name.to_owned(), line: spot.map(|spot| spot.line) }
        }
    }

    /// A setting together with this origin, as sentences name it.
    pub fn naming(&self, key: &str) -> String {
        match self {
            Self::Flag(name) => name.clone(),
            Self::Variable(name) => format!("the variable {name}"),
            _ => format!("{key} ({self})"),
        }
    }
}

/// Where each value of a configuration came from, by key; a program's key is `iptablesExecutables.NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources(BTreeMap<String, Origin>);

impl Sources {
    /// The origin of a key's value.
    pub fn of(&self, key: &str) -> Origin {
        self.0.get(key).cloned().unwrap_or_default()
    }

    pub(super) fn set(&mut self, key: impl Into<String>, origin: Origin) {
        self.0.insert(key.into(), origin);
    }
}

/// The sentence about a value that is not what its setting wants.
pub fn invalid_value(item: &Item, naming: &str, why: impl fmt::Display) -> String {
    let within = match &item.within {
        Some(whole) => format!(" in {}", quoted(whole)),
        None => String::new(),
    };
    format!("invalid value {}{within} for {naming}: {why}", quoted(&item.text))
}
