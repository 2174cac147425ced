//! What was found, in sentences, and what to do about it in the words of whoever keeps the firewall.

use std::collections::BTreeSet;

use crate::config::{Config, leaving_alone};
use crate::plan::Family;
use crate::rules::model::Chain;
use crate::rules::show;

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
    pub problems: Vec<Finding>,
    /// What is open that was closed.
    pub openings: Vec<Finding>,
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
            Keeper::Ufw if door.families.contains(&Family::V4) => {
                Some(format!("{meant} in /etc/ufw/before.rules"))
            }
            Keeper::Ufw => Some(format!("{meant} in /etc/ufw/before6.rules")),
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

    fn shut(&self, door: &Door<'_>) -> Finding {
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
        Finding::new(what, self.opening(door, port.get()))
    }

    /// What lets in what is dropped.
    fn opening(&self, door: &Door<'_>, port: u16) -> String {
        let inbound = door.what == What::Inbound;
        let keeper = self.keeper(door.base);
        let line = match keeper {
            Keeper::Ufw if inbound => format!("ufw allow {port}/tcp"),
            Keeper::Firewalld if inbound => {
                format!(
                    "firewall-cmd --permanent --add-port={port}/tcp && firewall-cmd --add-port={port}/tcp"
                )
            }
            Keeper::Nft | Keeper::Firewalld => {
                let test = if inbound { format!("tcp dport {port}") } else { "iifname \"lo\"".to_owned() };
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
                let test = if inbound { format!("-p tcp --dport {port}") } else { "-i lo".to_owned() };
                format!("ip{six}tables{variant} {table}-I {} {test} -j ACCEPT", door.base.name)
            }
        };
        if !inbound {
            return format!("run '{line}', and keep it with the rest of the firewall");
        }
        let single = match keeper {
            Keeper::Nft => " with 'ct original proto-dst PORT' in it, that port alone",
            Keeper::Iptables { .. } => " with '-m conntrack --ctorigdstport PORT' in it, that port alone",
            Keeper::Ufw | Keeper::Firewalld => " excluded ports stay with the firewall",
        };
        format!(
            "run '{line}', and keep it with the rest of the firewall: it opens every port that is redirected;{single}"
        )
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

fn place(chain: &Chain) -> String {
    crate::text::escape(&format!("chain {} of {}", chain.name, chain.table))
}

fn families(families: &BTreeSet<Family>) -> String {
    families.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

fn ports(ports: &BTreeSet<u16>) -> String {
    let listed: Vec<String> = ports.iter().take(PORTS).map(ToString::to_string).collect();
    let more = ports.len().saturating_sub(PORTS);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("port{} {}{more}", if ports.len() == 1 { "" } else { "s" }, listed.join(", "))
}
