//! What was found, in sentences, and what to do about it in the words of whoever keeps the firewall.

use std::collections::BTreeSet;

use crate::config::{Config, leaving_alone};
use crate::plan::Family;
use crate::rules::model::Chain;
use crate::rules::show::{self, place};

use super::super::meets::Met;
use super::super::model::Finding;
use super::{Door, Found, What};

/// So many rules are named one by one.
const SHOWN: usize = 6;
/// So many ports.
const PORTS: usize = 12;

/// Findings of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// What is dead.
    pub problems: Vec<Shut>,
    /// What is open that was closed.
    pub openings: Vec<Finding>,
}

/// Redirected traffic that a rule drops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shut {
    /// Which.
    pub what: What,
    /// Of which families.
    pub families: BTreeSet<Family>,
    /// The rule, and its chain.
    pub by: (String, String),
    /// The line that lets it in.
    pub line: String,
    /// Whether that lets in all that comes over loopback.
    pub opens_loopback: bool,
    /// All of it, for people.
    pub finding: Finding,
}

impl Findings {
    /// Whether what a rule about clients shuts is shut by a rule that is told of already, by whose line it is let in.
    pub fn tell_of(&self, met: &Met) -> bool {
        let on_the_host = |shut: &&Shut| {
            shut.what != What::Inbound && shut.opens_loopback && shut.families.contains(&met.family)
        };
        let mut known = self.problems.iter().filter(on_the_host);
        met.clients.as_ref().is_some_and(|clients| {
            clients.shuts && known.any(|shut| shut.by.0 == clients.rule && shut.by.1 == clients.place)
        })
    }
}

/// By which names the programs of iptables are called here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Plain {
    /// `iptables` is of the nft variant, or of none.
    #[default]
    Nft,
    /// `iptables` is of the legacy variant.
    Legacy,
}

/// What keeps a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeper {
    Ufw,
    Firewalld,
    Iptables { legacy: bool },
    Nft,
}

/// Puts into words what was found in these chains.
pub fn findings(config: &Config, chains: &[Chain], found: &Found<'_>, plain: Plain) -> Findings {
    let words = Words { config, chains, plain };
    let mut all = Findings::default();
    for door in found.shut.iter().take(SHOWN) {
        all.problems.push(words.shut(door));
    }
    for door in found.opened.iter().take(SHOWN) {
        all.openings.push(words.opened(door));
    }
    if found.opened.len() > SHOWN {
        all.openings.push(Finding::note(format!(
            "{} more rules about ports that arrive do not see those ports any more once they are redirected",
            found.opened.len() - SHOWN
        )));
    }
    if found.partly {
        all.openings.push(Finding::note(
            "there are too many rules about what arrives to evaluate all of them for every port that they name; some may \
             not see their ports any more once those are redirected",
        ));
    }
    all
}

struct Words<'a> {
    config: &'a Config,
    chains: &'a [Chain],
    plain: Plain,
}

impl Words<'_> {
    fn opened(&self, door: &Door<'_>) -> Finding {
        let inbound = self.config.redirect.inbound.port;
        let by = &door.by;
        let (are, them) = if door.ports.len() == 1 { ("is", "it") } else { ("are", "them") };
        let ports = self::ports(&door.ports);
        let what = format!(
            "TCP {ports} ({}) {are} no longer seen by '{}' in {}: what is redirected comes to that chain with port {inbound}, \
             so those whom it kept from {them} reach the sidecar, which may pass the connection on",
            families(&door.families),
            show::name(by.rule),
            place(by.chain),
        );
        let first = door.ports.iter().next().copied().unwrap_or_default();
        let each = if door.ports.len() > 1 { ", and so for each of these ports" } else { "" };
        let meant = format!("'-p tcp -m conntrack --ctorigdstport {first}'");
        let drop = match self.keeper(door.base) {
            Keeper::Ufw => {
                let six = if door.families.contains(&Family::V4) { "" } else { "6" };
                Some(format!(
                    "'-A ufw{six}-before-input -p tcp -m conntrack --ctorigdstport {first} -s ADDRESS -j DROP' in \
                     /etc/ufw/before{six}.rules"
                ))
            }
            Keeper::Firewalld => None,
            Keeper::Iptables { .. } => Some(meant),
            Keeper::Nft => Some(format!("'meta l4proto tcp ct original proto-dst {first}'")),
        };
        // Whom such a rule may drop, only those know who wrote the one that does not see the port any more.
        let drop =
            drop.map(|test| format!("; or drop those who are to stay out, and nobody else, by {test} before what accepts port {inbound}{each}"));
        let exclude = leaving_alone(self.config, door.ports.iter().copied());
        let fix = format!("{exclude} leaves {them} to the firewall{}", drop.unwrap_or_default());
        Finding::new(what, fix)
    }

    fn shut(&self, door: &Door<'_>) -> Shut {
        let redirect = &self.config.redirect;
        let (name, place, families) =
            (show::name(door.by.rule), place(door.by.chain), families(&door.families));
        let port = match door.what {
            What::Inbound => redirect.inbound.port,
            What::Outbound => redirect.outbound.port,
            What::Dns => redirect.dns.port,
        };
        let what = match (door.what, door.ports.is_empty()) {
            (What::Inbound, true) => format!(
                "nothing that arrives over {families} reaches the sidecar: '{name}' in {place} drops what comes to the \
                 inbound port {port}, to which it is redirected"
            ),
            (What::Inbound, false) => format!(
                "connections to TCP {} ({families}), which the firewall lets in, do not reach the sidecar: redirected, they \
                 come to the inbound port {port}, and '{name}' in {place} drops that",
                self::ports(&door.ports)
            ),
            (What::Outbound, _) => format!(
                "what applications here send over {families} does not reach the sidecar: '{name}' in {place} drops what \
                 comes over loopback from or to port {port}"
            ),
            (What::Dns, _) => format!(
                "DNS questions of applications here ({families}) get no answer: '{name}' in {place} drops what comes over \
                 loopback from or to port {port}"
            ),
        };
        let (line, more) = self.opening(door, port.get());
        let fix = format!("run '{line}'{more}");
        Shut {
            what: door.what,
            families: door.families.clone(),
            by: (name, place),
            line,
            opens_loopback: door.answers,
            finding: Finding::new(what, fix),
        }
    }

    /// The line that lets in what is dropped, and nothing else, and what is to be said of it.
    fn opening(&self, door: &Door<'_>, port: u16) -> (String, String) {
        let inbound = door.what == What::Inbound;
        let keeper = self.keeper(door.base);
        let protocol = if door.what == What::Dns { "udp" } else { "tcp" };
        let line = match keeper {
            Keeper::Ufw if inbound => format!("ufw allow {port}/tcp"),
            Keeper::Firewalld if inbound => {
                format!(
                    "firewall-cmd --permanent --add-port={port}/tcp && firewall-cmd --add-port={port}/tcp"
                )
            }
            Keeper::Nft | Keeper::Firewalld => {
                let test = match (inbound, door.answers) {
                    (true, _) => format!("tcp dport {port}"),
                    (false, false) => format!("iifname \"lo\" {protocol} dport {port}"),
                    (false, true) => "iifname \"lo\"".to_owned(),
                };
                format!("nft insert rule {} {} {test} accept", door.base.table, door.base.name)
            }
            Keeper::Iptables { .. } | Keeper::Ufw => {
                let legacy = keeper == Keeper::Iptables { legacy: true };
                let six = if door.families.contains(&Family::V4) { "" } else { "6" };
                let variant = match (self.plain, legacy) {
                    (Plain::Nft, true) => "-legacy",
                    (Plain::Legacy, false) => "-nft",
                    _ => "",
                };
                let table = table(door.base);
                let table = if table == "filter" { String::new() } else { format!("-t {table} ") };
                let test = match (inbound, door.answers) {
                    (true, _) => format!("-p tcp --dport {port}"),
                    (false, false) => format!("-i lo -p {protocol} --dport {port}"),
                    (false, true) => "-i lo".to_owned(),
                };
                format!("ip{six}tables{variant} {table}-I {} {test} -j ACCEPT", door.base.name)
            }
        };
        let kept = ", and keep it with the rest of the firewall";
        if !inbound {
            let kept = if keeper == Keeper::Ufw { ", and allow it in /etc/ufw too" } else { kept };
            return (line, kept.to_owned());
        }
        let meant = if door.ports.is_empty() { &door.let_in } else { &door.ports };
        let one = meant.iter().next().map_or_else(|| "PORT".to_owned(), u16::to_string);
        let single = match keeper {
            Keeper::Nft => format!("; with 'ct original proto-dst {one}' in it, for port {one} alone"),
            Keeper::Iptables { .. } => {
                format!("; with '-m conntrack --ctorigdstport {one}' in it, for port {one} alone")
            }
            Keeper::Ufw | Keeper::Firewalld => String::new(),
        };
        let kept = if matches!(keeper, Keeper::Ufw | Keeper::Firewalld) { "" } else { kept };
        (line, format!("{kept}: it opens the sidecar's port alone, for whatever is redirected there{single}"))
    }

    fn keeper(&self, base: &Chain) -> Keeper {
        let in_table = |test: &dyn Fn(&str) -> bool| {
            let mut same =
                self.chains.iter().filter(|of| of.table == base.table && of.families == base.families);
            same.any(|chain| test(&chain.name))
        };
        let legacy = base.table.ends_with(" (legacy)");
        if in_table(&|name| name.starts_with("ufw-") || name.starts_with("ufw6-")) {
            return Keeper::Ufw;
        }
        if table(base) == "firewalld" || in_table(&|name| name == "INPUT_ZONES") {
            return Keeper::Firewalld;
        }
        let shared = ["filter", "mangle", "security", "raw"].contains(&table(base));
        let called = ["INPUT", "PREROUTING"].contains(&base.name.as_str());
        if legacy || shared && called && !base.table.starts_with("inet ") {
            return Keeper::Iptables { legacy };
        }
        Keeper::Nft
    }
}

/// The table's name alone.
fn table(chain: &Chain) -> &str {
    let name = chain.table.strip_suffix(" (legacy)").unwrap_or(&chain.table);
    name.rsplit(' ').next().unwrap_or(name)
}

fn families(families: &BTreeSet<Family>) -> String {
    families.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

fn ports(ports: &BTreeSet<u16>) -> String {
    let more = ports.len().saturating_sub(PORTS);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let listed: Vec<String> = ports.iter().take(PORTS).map(ToString::to_string).collect();
    format!("port{} {}{more}", if ports.len() == 1 { "" } else { "s" }, listed.join(", "))
}
