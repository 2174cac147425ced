//! By what way an installation gets its rules into the kernel, and how they are found there.

use serde_json::Value;
use tproxy::attribute::Attributes;
use tproxy::backend::nftables::wire::{CREATE, INET, Message};
use tproxy::sys::netlink::nftables::Door;

use super::command::{self, Program};
use super::firewall::{self, Family, Variant};
use super::lab;

/// The table of the native backend.
const TABLE: [&str; 2] = ["inet", "kuma_mesh"];

/// What `--backend` chooses, and with iptables also whose programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Iptables(Variant),
    /// `--backend nftables`, a table of its own.
    Nftables,
}

impl From<Variant> for Backend {
    fn from(variant: Variant) -> Self {
        Self::Iptables(variant)
    }
}

impl Backend {
    pub const NFT: Self = Self::Iptables(Variant::Nft);
    pub const LEGACY: Self = Self::Iptables(Variant::Legacy);
    pub const ALL: [Self; 3] = [Self::NFT, Self::LEGACY, Self::Nftables];

    /// The programs by which other people on the machine write their rules. What an installation writes is not to
    /// be looked for with them: see [`Self::has_ours`].
    pub fn tools(self) -> Variant {
        match self {
            Self::Iptables(variant) => variant,
            Self::Nftables => Variant::Nft,
        }
    }

    /// What asks for it. The legacy variant has to be asked for, because a machine with both and without rules gets
    /// nft.
    pub fn flags(self) -> Vec<String> {
        match self {
            Self::Iptables(Variant::Nft) => Vec::new(),
            Self::Iptables(Variant::Legacy) => {
                vec!["--iptables-executables".to_owned(), firewall::executables(Variant::Legacy)]
            }
            Self::Nftables => vec!["--backend".to_owned(), "nftables".to_owned()],
        }
    }

    /// Whether there are rules of an installation for this family.
    #[track_caller]
    pub fn has_ours(self, family: Family) -> bool {
        match self {
            Self::Iptables(variant) => firewall::rules(variant, family).has_ours(),
            Self::Nftables => own_table().is_some_and(|table| {
                // The table sees both families, and sends away the one that it is not about.
                let left_alone = if family == Family::V6 {
                    "meta nfproto ipv6 counter"
                } else {
                    "meta nfproto ipv4 counter"
                };
                !table.contains(left_alone)
            }),
        }
    }

    /// How many packets met each rule that is said with these words.
    #[track_caller]
    pub fn packets(self, family: Family, words: &str) -> Vec<u64> {
        match self {
            Self::Iptables(variant) => {
                let rules = firewall::rules(variant, family);
                let counters = rules.rules().filter(|rule| rule.text.contains(words));
                counters.map(|rule| number(rule.counters.trim_start_matches('['))).collect()
            }
            Self::Nftables => {
                let text = command::must("nft", &["list", "table", TABLE[0], TABLE[1]]);
                let rules = text.lines().filter(|line| line.contains(words));
                rules.filter_map(|line| Some(number(line.split_once("counter packets ")?.1))).collect()
            }
        }
    }

    /// The backends that have rules of an installation, of whatever family.
    #[track_caller]
    pub fn installed() -> Vec<Self> {
        let has = |backend: &Self| Family::BOTH.into_iter().any(|family| backend.has_ours(family));
        Self::ALL.into_iter().filter(has).collect()
    }
}

fn number(text: &str) -> u64 {
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().expect("a counter")
}

/// The native table as `nft` prints it without counters, if it is there.
#[track_caller]
pub fn own_table() -> Option<String> {
    lab::in_a_namespace_of_our_own();
    let tables = command::must("nft", &["list", "tables"]);
    let [family, name] = TABLE;
    let listed = tables.lines().any(|line| line == format!("table {family} {name}"));
    // Between the two looks somebody may have removed it.
    let list = || Program::new("nft").args(["-s", "list", "table", family, name]).run();
    listed.then(list).filter(|run| run.code == Some(0)).map(|run| run.stdout)
}

/// What tells the native table from another one of its name that took its place.
#[track_caller]
pub fn own_table_handle() -> Option<u64> {
    let tables = command::must("nft", &["-j", "list", "tables"]);
    let tables: Value = serde_json::from_str(&tables).expect("nft speaks JSON");
    let tables = tables["nftables"].as_array().expect("a list").iter().map(|object| &object["table"]);
    let ours = |table: &&Value| [&table["family"], &table["name"]] == TABLE;
    tables.filter(ours).find_map(|table| table["handle"].as_u64())
}

/// Makes a table of the native backend's name that only this process may change, until the value is dropped; then the
/// kernel removes it.
pub fn own_the_table() -> Door {
    lab::in_a_namespace_of_our_own();
    let mut door = Door::open().expect("a door");
    let generation = door.generation().expect("a generation");
    // NFTA_TABLE_NAME, and in NFTA_TABLE_FLAGS NFT_TABLE_F_OWNER.
    let body = Attributes::new().text(1, TABLE[1]).number(2, 2).into();
    let new_table = Message { kind: 0, flags: CREATE, family: INET, body };
    door.commit(&[new_table], generation).expect("Linux 5.12 or newer");
    door
}
