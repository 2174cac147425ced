//! A rule of `nf_tables` as its own program prints it: iptables' rules as `iptables -S` does, all others in nft's language.
//! Where a value is not decoded, its term stands with `…`.

use std::collections::{BTreeMap, HashMap};

use super::super::model::{Action, Field, Test};
use super::super::show;
use crate::attribute::{find, find_text, find_u32};
use crate::backend::iptables::legacy::{match_words, target_words};
use crate::backend::iptables::save::UNREAD;
use crate::plan::Family;

/// Expressions that iptables' programs write; one with another is nft's.
const OF_IPTABLES: [&str; 9] =
    ["meta", "payload", "cmp", "bitwise", "immediate", "counter", "match", "target", "range"];

/// The words so far.
#[derive(Debug)]
pub struct Quote {
    iptables: bool,
    family: Family,
    /// Whether the table is of both families, so that a family has to be named where it is not known.
    both: bool,
    protocol: String,
    /// What iptables prints first, in its order.
    head: BTreeMap<u8, String>,
    words: Vec<String>,
    /// What is loaded into registers to be used as it is.
    values: HashMap<u32, Vec<u8>>,
}

impl Quote {
    /// Of a rule with these expressions. `compat`: in a chain of iptables; `family`: the table's, unless it is of both.
    pub fn new<'a>(compat: bool, family: Option<Family>, mut names: impl Iterator<Item = &'a str>) -> Self {
        Self {
            iptables: compat && names.all(|name| OF_IPTABLES.contains(&name)),
            family: family.unwrap_or(Family::V4),
            both: family.is_none(),
            protocol: "th".to_owned(),
            head: BTreeMap::new(),
            words: Vec::new(),
            values: HashMap::new(),
        }
    }

    /// All of it.
    pub fn text(self) -> String {
        self.head.into_values().chain(self.words).collect::<Vec<_>>().join(" ")
    }

    /// A test of what `term` says; `set`: of a set with a name.
    pub fn test(&mut self, test: &Test, term: &str, set: Option<&str>) {
        if let Test::Family { family, negated: false } = test {
            self.family = *family;
        }
        if term.starts_with("ip6") {
            self.family = Family::V6;
        }
        if let Test::In { field: Field::Protocol, spans, negated: false } = test
            && let [one] = spans.as_slice()
        {
            self.protocol = show::protocol(*one.start());
        }
        if self.iptables {
            return self.in_iptables(test);
        }
        let six = self.family == Family::V6;
        let term = match term {
            "sport" | "dport" => {
                // What that needs, nft does not print.
                let needed = ["meta l4proto", "ip protocol"].map(|term| format!("{term} {}", self.protocol));
                self.words.retain(|word| !needed.contains(word));
                format!("{} {term}", self.protocol)
            }
            _ => {
                if term.starts_with("ip ") || term.starts_with("ip6 ") {
                    self.words.pop_if(|last| last.starts_with("meta nfproto "));
                }
                term.to_owned()
            }
        };
        let negated = matches!(test, Test::In { negated: true, .. } | Test::Interface { negated: true, .. });
        let operand = match set {
            Some(set) => format!("{}@{set}", if negated { "!= " } else { "" }),
            None => show::operand(test, six).unwrap_or_else(|| UNREAD.to_owned()),
        };
        // Of a range, each end is compared.
        let begun =
            self.words.last().and_then(|last| last.strip_prefix(&format!("{term} >= "))).map(str::to_owned);
        if let (Some(first), Some(last)) = (begun, operand.strip_prefix("<= ")) {
            self.words.pop();
            return self.words.push(format!("{term} {first}-{last}"));
        }
        self.words.push(format!("{term} {operand}"));
    }

    /// A map that has the verdict; `set`: its name.
    pub fn map(&mut self, term: &str, set: Option<&str>) {
        let term = if term.ends_with("port") { format!("{} {term}", self.protocol) } else { term.to_owned() };
        let map = set.map_or_else(|| format!("{{ {UNREAD} }}"), |set| format!("@{set}"));
        self.words.push(format!("{term} vmap {map}"));
    }

    fn in_iptables(&mut self, test: &Test) {
        let six = self.family == Family::V6;
        let not = |negated: bool| if negated { "! " } else { "" };
        let (place, words) = match test {
            Test::In { field, spans, negated } => {
                let [span] = spans.as_slice() else { return self.words.push(UNREAD.to_owned()) };
                let (first, last) = (*span.start(), *span.end());
                let one = || format!("{}/{}", show::address(first, six), if six { 128 } else { 32 });
                let (place, option, value) = match field {
                    Field::Source => (Some(0), "-s", show::network(span, six).unwrap_or_else(one)),
                    Field::Destination => (Some(1), "-d", show::network(span, six).unwrap_or_else(one)),
                    Field::Protocol => (Some(4), "-p", show::protocol(first)),
                    Field::SourcePort | Field::DestinationPort => {
                        let option = if *field == Field::SourcePort { "--sport" } else { "--dport" };
                        let ports = if first == last { first.to_string() } else { format!("{first}:{last}") };
                        let module = format!("-m {}", self.protocol);
                        if !self.words.contains(&module) {
                            self.words.push(module);
                        }
                        (None, option, ports)
                    }
                    _ => return self.words.push(UNREAD.to_owned()),
                };
                (place, format!("{}{option} {value}", not(*negated)))
            }
            Test::Interface { leaving, names, negated } => {
                let Some(name) = names.first() else { return };
                let (place, option) = if *leaving { (3, "-o") } else { (2, "-i") };
                let more = if name.prefix { "+" } else { "" };
                (Some(place), format!("{}{option} {}{more}", not(*negated), name.text))
            }
            _ => (None, UNREAD.to_owned()),
        };
        match place {
            Some(place) => drop(self.head.insert(place, words)),
            None => self.words.push(words),
        }
    }

    /// An expression that is no test and no verdict, with what is to be shown of it.
    pub fn other(&mut self, name: &str, data: &[u8]) {
        let words = match name {
            "immediate" => return self.immediate(data),
            "counter" if self.iptables => return,
            "counter" => "counter".to_owned(),
            "match" => {
                let (name, info) =
                    (find_text(data, 1).unwrap_or_default(), find(data, 3).unwrap_or_default());
                format!("-m {}", match_words(&name, find_u32(data, 2).unwrap_or_default(), info))
            }
            "target" => {
                let (name, info) =
                    (find_text(data, 1).unwrap_or_default(), find(data, 3).unwrap_or_default());
                format!(
                    "-j {}",
                    target_words(&name, find_u32(data, 2).unwrap_or_default(), info, self.family)
                )
            }
            "reject" => self.reject(data),
            "redir" => {
                format!("redirect{}", self.to(data, None, 1).map_or(String::new(), |to| format!(" to {to}")))
            }
            "nat" => self.nat(data),
            "masq" => "masquerade".to_owned(),
            "notrack" => "notrack".to_owned(),
            // It is set, and not asked for.
            "meta" | "ct" => {
                let register = find_u32(data, if name == "meta" { 3 } else { 4 });
                let Some(register) = register else { return };
                let term = match (name, find_u32(data, 2)) {
                    ("meta", Some(3)) => "meta mark",
                    ("ct", Some(3)) => "ct mark",
                    ("ct", Some(17)) => "ct zone",
                    _ => name,
                };
                let value = self.values.get(&register).map_or_else(
                    || UNREAD.to_owned(),
                    |value| {
                        let number = super::compared::number(value, false);
                        if term.ends_with("mark") { format!("{number:#010x}") } else { number.to_string() }
                    },
                );
                format!("{term} set {value}")
            }
            other => format!("{other} {UNREAD}"),
        };
        self.words.push(words);
    }

    fn immediate(&mut self, data: &[u8]) {
        let Some(data_of) = find(data, 2) else { return };
        if let (Some(register), Some(value)) = (find_u32(data, 1), find(data_of, 1)) {
            self.values.insert(register, value.to_vec());
        }
        let Some(verdict) = find(data_of, 2).map(super::compared::verdict) else { return };
        let words = match (self.iptables, &verdict) {
            (true, Action::Goto(to)) => format!("-g {to}"),
            (true, Action::Jump(to)) => format!("-j {to}"),
            (true, action) => format!("-j {}", show::action(action).to_uppercase()),
            (false, action) => show::action(action),
        };
        self.words.push(words);
    }

    /// The answer's kind and number (`NFT_REJECT_*`); what each family means when none is named is not named.
    fn reject(&self, data: &[u8]) -> String {
        let code = find(data, 2).and_then(|code| code.first().copied()).unwrap_or_default();
        let six = self.family == Family::V6;
        let (kind, name) = match (find_u32(data, 1), six, code) {
            (Some(1), ..) => return "reject with tcp reset".to_owned(),
            (Some(2), _, 1) => return "reject".to_owned(),
            (Some(0), false, 3) | (Some(0), true, 4) if !self.both => return "reject".to_owned(),
            (Some(2), _, 0) => ("icmpx", "no-route"),
            (Some(2), _, 2) => ("icmpx", "host-unreachable"),
            (Some(2), _, 3) => ("icmpx", "admin-prohibited"),
            (_, false, 0) => ("icmp", "net-unreachable"),
            (_, false, 1) => ("icmp", "host-unreachable"),
            (_, false, 3) => ("icmp", "port-unreachable"),
            (_, false, 13) => ("icmp", "admin-prohibited"),
            (_, true, 0) => ("icmpv6", "no-route"),
            (_, true, 1) => ("icmpv6", "admin-prohibited"),
            (_, true, 4) => ("icmpv6", "port-unreachable"),
            (_, six, code) => return format!("reject with {} {code}", if six { "icmpv6" } else { "icmp" }),
        };
        format!("reject with {kind} {name}")
    }

    fn nat(&self, data: &[u8]) -> String {
        const SOURCE: u32 = 0;
        let name = if find_u32(data, 1) == Some(SOURCE) { "snat" } else { "dnat" };
        let family = match find_u32(data, 2) {
            Some(2) if self.both => " ip",
            Some(10) if self.both => " ip6",
            _ => "",
        };
        format!("{name}{family} to {}", self.to(data, Some(3), 5).unwrap_or_else(|| UNREAD.to_owned()))
    }

    /// An address and a port that are taken from registers.
    fn to(&self, data: &[u8], address: Option<u16>, port: u16) -> Option<String> {
        let value = |kind| find_u32(data, kind).map(|register| self.values.get(&register));
        let address = match address.and_then(value) {
            Some(None) => return Some(UNREAD.to_owned()),
            Some(Some(bytes)) => {
                let six = bytes.len() > 4;
                let text = show::address(super::compared::number(bytes, true), six);
                if six && find_u32(data, port).is_some() { format!("[{text}]") } else { text }
            }
            None => String::new(),
        };
        let port = match value(port) {
            Some(None) => format!(":{UNREAD}"),
            Some(Some(bytes)) => format!(":{}", super::compared::number(bytes.get(..2)?, true)),
            None => String::new(),
        };
        let all = address + &port;
        (!all.is_empty()).then_some(all)
    }
}
