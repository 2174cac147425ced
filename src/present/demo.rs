//! What `tproxy demo` shows, in lines of at most 80 characters. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

mod lines;

use crate::plan::Family;
use crate::sidecar::Channel;
pub use lines::*;

/// The sidecar's ports.
pub const OUTBOUND: u16 = 15001;
/// As above.
pub const INBOUND: u16 = 15006;
/// As above.
pub const DNS: u16 = 15053;

/// The longest line, in characters.
pub const WIDTH: usize = 80;

/// What the reader's screen can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Colours.
    pub colour: bool,
    /// Characters beyond ASCII.
    pub unicode: bool,
}

/// Who is who on the hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cast {
    /// The app's UID.
    pub app: u32,
    /// The sidecar's UID.
    pub sidecar: u32,
    /// Host A's addresses.
    pub near: Vec<IpAddr>,
    /// Host B's addresses.
    pub far: Vec<IpAddr>,
    /// The addresses of the container from which the app connects, where it cannot have a user of its own.
    pub guest: Option<Vec<IpAddr>>,
    /// The families that everybody speaks.
    pub families: Vec<Family>,
}

/// Which way a connection took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// From end to end.
    Straight,
    /// Through a port of the sidecar.
    Sidecar(Channel),
    /// None that is known; why.
    Lost(String),
}

/// Connections from somebody to somebody, one of each family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Who connects.
    pub from: &'static str,
    /// To whom.
    pub to: &'static str,
    /// Where that one listens.
    pub port: u16,
    /// Which ways they took.
    pub ways: Vec<(Family, Way)>,
}

/// Questions for a name, one of each family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The name.
    pub name: &'static str,
    /// The answers, or why there were none.
    pub answers: Vec<(Family, Result<Answer, String>)>,
}

/// An answer to a question for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Whether it is the sidecar's, which is not who was asked.
    pub by_sidecar: bool,
    /// What the name stands for; `None`: there is no such name.
    pub found: Option<IpAddr>,
}

/// What an installation or its end says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Receipt {
    rules: Vec<(String, u64)>,
    where_: Option<String>,
    installed: bool,
    changed: bool,
}

impl Receipt {
    /// From the JSON that an installation prints.
    pub fn read(json: &str) -> Self {
        let json: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
        let name = |family: &String| family.replace("ipv", "IPv");
        let rules = json["rules"].as_object().into_iter().flatten();
        let rules = rules.filter_map(|(family, count)| Some((name(family), count.as_u64()?)));
        let place = json["variant"].as_str().or_else(|| json["backend"].as_str());
        Self {
            rules: rules.collect(),
            where_: place.filter(|_| json["action"] == "install").map(str::to_owned),
            installed: json["action"] == "install",
            changed: json["changed"] == true,
        }
    }
}

/// What became of many connections.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// How many were begun.
    pub connections: usize,
    /// How many were answered without the sidecar.
    pub escaped: usize,
    /// How many were answered through it.
    pub through: usize,
    /// What became of all others.
    pub lost: BTreeMap<String, usize>,
}

impl Tally {
    /// Whether every connection went through the sidecar.
    pub fn is_clean(&self) -> bool {
        self.through == self.connections && self.connections > 0
    }
}

#[derive(Debug, Clone, Copy)]
enum Ink {
    Bold,
    Dim,
    Good,
    Bad,
    Sidecar,
}

impl Style {
    fn ink(self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Good => "1;32",
            Ink::Bad => "1;31",
            Ink::Sidecar => "36",
        };
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// The text, with characters that every screen has where it must be.
    fn done(self, text: String) -> String {
        if self.unicode {
            return text;
        }
        let plain = |char| match char {
            '─' | '═' => '-',
            '│' => '|',
            '┌' | '┐' | '└' | '┘' => '+',
            '▶' => '>',
            other => other,
        };
        text.chars().map(plain).collect()
    }
}
