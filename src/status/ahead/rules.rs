//! Rules of iptables ahead of ours.

use std::collections::HashSet;

use ipnet::IpNet;

use crate::backend::iptables::decode::Canonical;
use crate::backend::iptables::owned::SharedRule;
use crate::backend::iptables::save::{Saved, SavedChain, SavedRule, SavedTable, UNREAD};
use crate::backend::iptables::situation::{Place, Situation};
use crate::backend::iptables::tools::Variant;
use crate::backend::iptables::typed::Purpose;
use crate::config::values::Cidr;
use crate::plan::{Family, OwnChain, Table};

use super::super::model::Ahead;
use super::{Ours, Part, Traffic, whose};

/// How deep chains may lead into one another before we stop following.
const DEEPEST: usize = 16;

/// Targets that decide, in the chain in which ours stand.
const DECIDE: &[&str] = &["DNAT", "REDIRECT", "NETMAP", "ACCEPT", "DROP", "REJECT"];
/// Targets that decide beside ours.
const REDIRECT: &[&str] = &["DNAT", "REDIRECT", "NETMAP", "DROP", "REJECT"];
/// Targets after which connection tracking, and with it redirection, leaves a packet alone.
const UNTRACK: &[&str] = &["NOTRACK"];

/// Rules of others before ours in the same chain.
pub fn same_chain(situation: &Situation, place: Place, traffic: Traffic, ours: &Ours) -> Vec<Ahead> {
    let Some(end) = our_place(situation, place, traffic) else { return Vec::new() };
    let fix = match traffic {
        Traffic::Outbound => {
            "install with --redirect-outbound-insert-instead-of-append to come first, or exclude that traffic"
        }
        Traffic::Inbound => {
            "install with --redirect-inbound-insert-instead-of-append to come first, or exclude that traffic"
        }
        Traffic::Dns => "run 'tproxy install' again: it puts the DNS rules first",
    };
    let search = Search { table: Table::Nat, decide: DECIDE, return_decides: true, traffic, ours };
    search.run(situation, place, Some(end), fix)
}

/// Rules of others before ours in the same chain that let traffic pass: ours do not get to see it, but a table of our
/// own would.
pub fn exempting(situation: &Situation, place: Place, traffic: Traffic, ours: &Ours) -> Vec<Ahead> {
    let Some(end) = our_place(situation, place, traffic) else { return Vec::new() };
    let search = Search { table: Table::Nat, decide: &["ACCEPT"], return_decides: true, traffic, ours };
    search.run(situation, place, Some(end), "")
}

/// Rules that switch connection tracking off, and so redirection too.
pub fn untracked(situation: &Situation, family: Family, traffic: Traffic, ours: &Ours) -> Vec<Ahead> {
    let fix = "leave that traffic out of the NOTRACK rule: what is not tracked cannot be redirected";
    let search = Search { table: Table::Raw, decide: UNTRACK, return_decides: false, traffic, ours };
    Variant::BOTH
        .into_iter()
        .flat_map(|variant| search.run(situation, (variant, family), None, fix))
        .collect()
}

/// What is to be done about rules of the other variant.
pub const OTHER_VARIANT: &str = "move those rules to the variant of ours, or exclude that traffic: of two tables at the \
                                 same hook, the one made last comes first";

/// Rules of the other variant, which stand at the same hook with the same priority.
pub fn other_variant(
    situation: &Situation,
    (variant, family): Place,
    traffic: Traffic,
    ours: &Ours,
) -> Vec<Ahead> {
    let search = Search { table: Table::Nat, decide: REDIRECT, return_decides: false, traffic, ours };
    let others = Variant::BOTH.into_iter().filter(|other| *other != variant);
    let found = others.flat_map(|other| search.run(situation, (other, family), None, OTHER_VARIANT));
    found.map(|ahead| Ahead { unsure: true, ..ahead }).collect()
}

/// Rules of others in the chain of ours, wherever ours stand or will stand, that take of this traffic if they come first.
pub fn in_the_chain(situation: &Situation, place: Place, traffic: Traffic, ours: &Ours) -> Vec<Ahead> {
    let search = Search { table: Table::Nat, decide: DECIDE, return_decides: true, traffic, ours };
    search.run(situation, place, None, "")
}

/// Those of them that stand behind ours.
pub fn behind(situation: &Situation, place: Place, traffic: Traffic, ours: &Ours) -> Vec<Ahead> {
    let before = same_chain(situation, place, traffic, ours);
    let mut all = in_the_chain(situation, place, traffic, ours);
    // What stands before ours is found first.
    drop(all.drain(..before.len().min(all.len())));
    if our_place(situation, place, traffic).is_some() { all } else { Vec::new() }
}

/// Legacy rules, which stand before what is appended to our own table.
pub fn legacy(situation: &Situation, family: Family, traffic: Traffic, ours: &Ours) -> Vec<Ahead> {
    let fix = "install with --redirect-outbound-insert-instead-of-append or \
               --redirect-inbound-insert-instead-of-append to come first, or exclude that traffic";
    let search = Search { table: Table::Nat, decide: REDIRECT, return_decides: false, traffic, ours };
    search.run(situation, (Variant::Legacy, family), None, fix)
}

/// Rules in any place of the nat table that translate the destination of our DNS questions.
pub fn translating_dns(situation: &Situation, family: Family, ours: &Ours) -> Vec<Ahead> {
    let decide = &["DNAT", "REDIRECT", "NETMAP"];
    let search = Search { table: Table::Nat, decide, return_decides: false, traffic: Traffic::Dns, ours };
    let places = Variant::BOTH.into_iter().map(|variant| (variant, family));
    places.flat_map(|place| search.run(situation, place, None, "")).collect()
}

/// Before which rule of the chain ours is reached by this traffic.
fn our_place(situation: &Situation, place: Place, traffic: Traffic) -> Option<usize> {
    let own = situation.ownership().find(|(of, _)| *of == place)?.1;
    let here = own.shared.iter().filter(|rule| rule.table == Table::Nat && rule.chain == traffic.chain());
    // There can be thousands of rules, so those that redirect questions are found once and not for each of them.
    let typed = if traffic == Traffic::Dns { situation.own_rules(place) } else { Vec::new() };
    let questions: HashSet<&Canonical> =
        typed.iter().filter(|rule| rule.purpose() == Some(Purpose::Dns)).map(|rule| &rule.rule).collect();
    let reaches = |rule: &&SharedRule| match traffic {
        Traffic::Outbound => rule.rule.leads_to(OwnChain::Outbound.name()),
        Traffic::Inbound => rule.rule.leads_to(OwnChain::Inbound.name()),
        Traffic::Dns => Canonical::read(&rule.rule).is_some_and(|canonical| questions.contains(&canonical)),
    };
    here.filter(reaches).map(|rule| rule.index).max()
}

struct Search<'a> {
    table: Table,
    decide: &'static [&'static str],
    /// In a built-in chain, RETURN leaves the whole table.
    return_decides: bool,
    traffic: Traffic,
    ours: &'a Ours,
}

/// What a rule, with all that it leads to, does to some traffic.
struct Taken {
    part: Part,
    packets: Option<u64>,
    chains: Vec<String>,
}

impl Search<'_> {
    fn run(&self, situation: &Situation, place: Place, end: Option<usize>, fix: &str) -> Vec<Ahead> {
        let own = situation.ownership().find(|(of, _)| *of == place).map(|(_, own)| own);
        let shared = own.map(|own| own.shared.as_slice()).unwrap_or_default().iter();
        let ours: HashSet<usize> = shared
            .filter(|rule| rule.table == self.table && rule.chain == self.traffic.chain())
            .map(|rule| rule.index)
            .collect();
        let Some(table) = situation.saved(place).and_then(|saved: &Saved| saved.table(self.table.name()))
        else {
            return Vec::new();
        };
        let Some(chain) = table.chain(self.traffic.chain()) else { return Vec::new() };
        let end = end.unwrap_or(chain.rules.len()).min(chain.rules.len());
        let foreign = (0..end).filter(|index| !ours.contains(index)).map(|index| &chain.rules[index]);
        foreign
            .filter_map(|rule| {
                let taken = self.taken(table, chain, rule, 0);
                (taken.part > Part::None).then(|| Ahead {
                    whose: whose(taken.chains.iter().map(String::as_str)),
                    family: place.1,
                    hook: self.traffic.hook(),
                    place: format!("{} {} ({})", self.table.name(), chain.name, place.0),
                    rule: rule.args.clone(),
                    traffic: self.traffic.name(),
                    all: taken.part == Part::All,
                    unsure: false,
                    packets: taken.packets,
                    fix: fix.to_owned(),
                })
            })
            .collect()
    }

    fn taken(&self, table: &SavedTable, of: &SavedChain, rule: &SavedRule, depth: usize) -> Taken {
        let nothing = || Taken { part: Part::None, packets: None, chains: Vec::new() };
        let words = rule.words();
        let part = concerns(&words, self.traffic, self.ours);
        let after = |option: &str| words.iter().skip_while(|word| *word != option).nth(1);
        let Some(target) = after("-j").or_else(|| after("-g")) else { return nothing() };
        let untracks =
            target == "CT" && self.decide == UNTRACK && words.iter().any(|word| word == "--notrack");
        let returns = target == "RETURN" && of.builtin && self.return_decides;
        // What arrives at a published port is a container's and not the host's.
        let published = self.traffic == Traffic::Inbound && target == "DNAT" && of.name.starts_with("DOCKER");
        if part == Part::None || published {
            return nothing();
        }
        if self.decide.contains(&target.as_str()) || untracks || returns {
            return Taken { part, packets: rule.packets, chains: Vec::new() };
        }
        let Some(chain) = table.chain(target).filter(|chain| !chain.builtin && depth < DEEPEST) else {
            return nothing();
        };
        if OwnChain::named(target).is_some() {
            return nothing();
        }
        let mut sum = nothing();
        for inner in &chain.rules {
            let taken = self.taken(table, chain, inner, depth + 1);
            if taken.part > Part::None {
                sum.part = sum.part.max(taken.part.min(part));
                sum.packets = match (sum.packets, taken.packets) {
                    (None, None) => None,
                    (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
                };
                sum.chains.extend(taken.chains);
            }
        }
        sum.chains.insert(0, target.clone());
        sum
    }
}

/// What of a traffic of ours meets a rule's conditions.
fn concerns(words: &[String], traffic: Traffic, ours: &Ours) -> Part {
    let dns = traffic == Traffic::Dns;
    let mut part = Part::All;
    let mut negated = false;
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if word == "!" {
            negated = true;
            continue;
        }
        if matches!(word, "-j" | "-g") {
            break;
        }
        if word == UNREAD {
            part = part.min(Part::Some);
            continue;
        }
        let value = words.next().unwrap_or_default();
        let narrowed = match (word, negated) {
            ("-m" | "--comment", _) => Part::All,
            ("-p", false) => match value {
                "tcp" | "6" if !dns => Part::All,
                "udp" | "17" if dns => Part::All,
                "all" | "0" => Part::All,
                _ => Part::None,
            },
            ("-d", false) => match network(value) {
                Some(net) if dns => {
                    if ours.dns.could_go_to(&net) {
                        Part::Some
                    } else {
                        Part::None
                    }
                }
                Some(net) if is_loopback(&net) => Part::None,
                Some(net) if net.prefix_len() == 0 => Part::All,
                _ => Part::Some,
            },
            ("-d", true) => match network(value) {
                Some(net) if is_loopback(&net) => Part::All,
                _ => Part::Some,
            },
            ("-s", false) => match network(value) {
                Some(net) if is_loopback(&net) => Part::None,
                _ => Part::Some,
            },
            ("-o" | "-i", false) if value == "lo" => Part::None,
            ("-o" | "-i", true) if value == "lo" => Part::All,
            // Redirection leaves alone what a host sends to itself, but takes what arrives, which is for the host.
            ("--dst-type", false) if value == "LOCAL" && traffic == Traffic::Inbound => Part::All,
            ("--dst-type", false) if value == "LOCAL" => Part::None,
            ("--uid-owner", false) if value == ours.sidecar.to_string() => Part::None,
            ("--dport" | "--dports", false) if dns => {
                if lists_dns(value) {
                    Part::All
                } else {
                    Part::None
                }
            }
            _ => Part::Some,
        };
        part = part.min(narrowed);
        negated = false;
    }
    part
}

fn network(text: &str) -> Option<IpNet> {
    text.parse::<Cidr>().ok().map(|cidr| cidr.net())
}

fn is_loopback(net: &IpNet) -> bool {
    net.network().is_loopback() && net.broadcast().is_loopback()
}

fn lists_dns(ports: &str) -> bool {
    ports.split(',').any(|range| {
        let (first, last) = range.split_once(':').unwrap_or((range, range));
        let number = |text: &str| text.parse::<u16>().ok();
        matches!((number(first), number(last)), (Some(first), Some(last)) if (first..=last).contains(&53))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Dns;
    use super::*;

    const TAG: &str = "-m comment --comment kuma/mesh/transparent/proxy";

    fn ours() -> Ours {
        let dns = Dns::Servers(vec!["10.0.0.53".parse().expect("an address")]);
        Ours { sidecar: 5678, outbound: true, inbound: true, dns }
    }

    /// Rules of others, the first of them before ours.
    fn found(before: &str, chains: &str, traffic: Traffic) -> Vec<Ahead> {
        let text = format!(
            "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:KUMA_MESH_INBOUND - [0:0]\n\
             :KUMA_MESH_OUTBOUND - [0:0]\n:DOCKER - [0:0]\n:DOCKER_OUTPUT - [0:0]\n:KUBE-SERVICES - [0:0]\n\
             :KUBE-SVC-A - [0:0]\n:LOOP - [0:0]\n{before}\n\
             -A OUTPUT -d 10.0.0.53/32 -p udp -m udp --dport 53 {TAG} -j REDIRECT --to-ports 15053\n\
             -A OUTPUT -p tcp {TAG} -j KUMA_MESH_OUTBOUND\n-A PREROUTING -p tcp {TAG} -j KUMA_MESH_INBOUND\n\
             -A OUTPUT -p tcp -j ACCEPT\n{chains}\nCOMMIT\n"
        );
        let place = (Variant::Nft, Family::V4);
        let situation = Situation::new([(place, Saved::parse(&text))].into(), &BTreeMap::new());
        same_chain(&situation, place, traffic, &ours())
    }

    #[test]
    fn what_is_about_own_addresses_alone_does_not_count() {
        for before in [
            "-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT",
            "-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER",
            "-A OUTPUT -m owner --uid-owner 5678 -j ACCEPT",
            "-A OUTPUT -o lo -j RETURN",
            "-A OUTPUT -p udp -j REDIRECT --to-ports 1",
            "-A OUTPUT -j MARK --set-xmark 0x1/0x1",
            "-A OUTPUT -j LOOP",
        ] {
            let chains = "-A DOCKER -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80\n\
                          -A DOCKER_OUTPUT -p tcp -j DNAT --to-destination 127.0.0.11:4000\n-A LOOP -j LOOP";
            assert_eq!(found(before, chains, Traffic::Outbound), [], "{before}");
        }
    }

    #[test]
    fn what_takes_is_named_with_its_owner_and_packets() {
        let chains = "-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-A\n\
                      [7:420] -A KUBE-SVC-A -j DNAT --to-destination 10.0.0.9:6443";
        let ahead = found("-A OUTPUT -j KUBE-SERVICES", chains, Traffic::Outbound);
        assert_eq!(ahead.len(), 1);
        assert_eq!((ahead[0].whose.as_str(), ahead[0].packets, ahead[0].all), ("kube-proxy", Some(7), false));
        assert_eq!(ahead[0].rule, "-j KUBE-SERVICES");
        // Questions to its address are none of ours.
        assert_eq!(found("-A OUTPUT -j KUBE-SERVICES", chains, Traffic::Dns), []);

        let all = found("-A OUTPUT -p tcp -j RETURN", "", Traffic::Outbound);
        assert!(all.len() == 1 && all[0].all, "{all:?}");
        let inbound =
            found("-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 1", "", Traffic::Inbound);
        assert!(inbound.len() == 1 && !inbound[0].all, "{inbound:?}");
        assert_eq!(inbound[0].whose, "somebody else");
    }

    #[test]
    fn what_arrives_is_for_the_host_itself() {
        let local = "-A PREROUTING -p tcp -m addrtype --dst-type LOCAL";
        let all = found(&format!("{local} -j REDIRECT --to-ports 1"), "", Traffic::Inbound);
        assert!(all.len() == 1 && all[0].all, "{all:?}");
        let chains = "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80\n\
                      -A LOOP -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80";
        assert_eq!(found(&format!("{local} -j DOCKER"), chains, Traffic::Inbound), []);
        assert_eq!(found(&format!("{local} -j LOOP"), chains, Traffic::Inbound).len(), 1);
    }

    #[test]
    fn dns_is_taken_by_what_asks_for_our_servers() {
        let take = |rule: &str| {
            found(&format!("-A OUTPUT {rule} -j DNAT --to-destination 1.1.1.1"), "", Traffic::Dns).len()
        };
        assert_eq!(take("-d 10.0.0.0/24 -p udp -m udp --dport 53"), 1);
        assert_eq!(take("-p udp -m multiport --dports 50:60"), 1);
        assert_eq!(take("-d 10.0.0.54/32 -p udp -m udp --dport 53"), 0);
        assert_eq!(take("-p udp -m udp --dport 123"), 0);
        assert_eq!(take("-p tcp"), 0);
    }

    #[test]
    fn beside_ours_only_redirection_counts() {
        let text = "*raw\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp -m tcp --dport 80 -j CT --notrack\nCOMMIT\n\
                    *nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp -j ACCEPT\n\
                    -A OUTPUT -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 1\nCOMMIT\n";
        let observed = [((Variant::Legacy, Family::V4), Saved::parse(text))].into();
        let situation = Situation::new(observed, &BTreeMap::new());
        let found = other_variant(&situation, (Variant::Nft, Family::V4), Traffic::Outbound, &ours());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "nat OUTPUT (legacy)");
        let untracked = untracked(&situation, Family::V4, Traffic::Outbound, &ours());
        assert_eq!(untracked.len(), 1);
        assert_eq!(untracked[0].place, "raw OUTPUT (legacy)");
    }
}
