//! A saved rule back as data, as far as it is one of the kind that plans are made of. Pure.
//!
//! Planned rules and saved ones are compared in a canonical form, because tools of different ages print the same
//! rule differently: order of options, masked networks, ranges with `:` or `-`, modules named or not.

use crate::config::values::{Cidr, PortRange, Protocol, UidRange};
use crate::plan::{Match, OwnChain, Rule, Target};

use super::save::SavedRule;
use super::syntax::comment;

/// A rule without what does not matter: the order of its conditions, host bits, and how it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Canonical {
    matches: Vec<Match>,
    target: Target,
    comment: Option<String>,
}

impl Canonical {
    /// Of a planned rule.
    pub fn of(rule: &Rule, comments: bool) -> Self {
        Self::new(rule.matches.clone(), rule.target.clone(), comments.then(|| comment(&rule.why)))
    }

    /// Of a saved rule; `None` if it has anything in it that no plan has.
    pub fn read(rule: &SavedRule) -> Option<Self> {
        let words = rule.words();
        let mut reader = Reader {
            words: words.iter().map(String::as_str),
            matches: vec![],
            comment: None,
            in_multiport: false,
        };
        let target = reader.rule()?;
        let protocol = reader.matches.iter().find_map(|m| match m {
            Match::Protocol(protocol) => Some(*protocol),
            _ => None,
        });
        for m in &mut reader.matches {
            if let Match::DestinationPorts { protocol: of, .. } = m {
                *of = protocol?;
            }
        }
        Some(Self::new(reader.matches, target, reader.comment.map(str::to_owned)))
    }

    /// The same rule without its comment.
    #[must_use]
    pub fn uncommented(mut self) -> Self {
        self.comment = None;
        self
    }

    /// Its conditions, in no meaningful order.
    pub fn matches(&self) -> &[Match] {
        &self.matches
    }

    /// Its target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    fn new(matches: Vec<Match>, target: Target, comment: Option<String>) -> Self {
        let mut canonical: Vec<Match> = Vec::with_capacity(matches.len() + 1);
        for m in matches {
            match m {
                Match::Explicit(_) => {}
                // Every interface is no condition: the kernel keeps none, and save programs print none.
                Match::InInterface(name) | Match::OutInterface(name) if name == EVERY_INTERFACE => {}
                // So is every address.
                Match::Source(net) | Match::Destination { net, negated: false }
                    if net.net().prefix_len() == 0 => {}
                Match::Source(net) => canonical.push(Match::Source(masked(&net))),
                Match::Destination { net, negated } => {
                    canonical.push(Match::Destination { net: masked(&net), negated });
                }
                Match::NotOriginalDestination(net) => {
                    canonical.push(Match::NotOriginalDestination(masked(&net)));
                }
                Match::DestinationPorts { protocol, ports } => {
                    canonical.push(Match::Protocol(protocol));
                    canonical.push(Match::DestinationPorts { protocol, ports });
                }
                other => canonical.push(other),
            }
        }
        canonical.sort_unstable();
        canonical.dedup();
        Self { matches: canonical, target, comment }
    }
}

/// The beginning of every name.
pub(super) const EVERY_INTERFACE: &str = "+";

/// The network as the kernel keeps it, however it was typed.
fn masked(net: &Cidr) -> Cidr {
    net.net().trunc().into()
}

struct Reader<'a, I> {
    words: I,
    matches: Vec<Match>,
    comment: Option<&'a str>,
    /// Whether options are those of multiport, which knows `--dport` as another name of `--dports`.
    in_multiport: bool,
}

impl<'a, I: Iterator<Item = &'a str>> Reader<'a, I> {
    fn rule(&mut self) -> Option<Target> {
        let mut target = None;
        let mut negated = false;
        while let Some(word) = self.words.next() {
            if word == "!" {
                negated = true;
                continue;
            }
            // Only these can be negated in a plan; anything else with a "!" is not ours.
            if negated && !matches!(word, "-d" | "--uid-owner" | "--ctorigdst" | "--dst-type") {
                return None;
            }
            if matches!(word, "-j" | "--log-prefix" | "--log-level" | "--to-ports" | "--zone") {
                self.target_word(word, &mut target)?;
            } else {
                self.match_word(word, negated)?;
            }
            negated = false;
        }
        target
    }

    fn match_word(&mut self, word: &str, negated: bool) -> Option<()> {
        let value = self.words.next()?;
        let found = match word {
            // A module says nothing by itself; its options do.
            "-m" => {
                self.in_multiport = value == "multiport";
                let known = ["tcp", "udp", "comment", "owner", "multiport", "conntrack", "addrtype"];
                return known.contains(&value).then_some(());
            }
            "--comment" => {
                self.comment = Some(value);
                return Some(());
            }
            "-p" => Match::Protocol(protocol(value)?),
            "-s" => Match::Source(value.parse().ok()?),
            "-d" => Match::Destination { net: value.parse().ok()?, negated },
            "-i" => Match::InInterface(value.to_owned()),
            "-o" => Match::OutInterface(value.to_owned()),
            "--sport" => Match::SourcePort(value.parse().ok()?),
            "--dport" if !self.in_multiport => Match::DestinationPort(value.parse().ok()?),
            "--dport" | "--dports" => {
                Match::DestinationPorts { protocol: Protocol::Tcp, ports: port_list(value)? }
            }
            "--uid-owner" => Match::Owner { uids: dashed(value).parse::<UidRange>().ok()?, negated },
            "--dst-type" if negated && value == "LOCAL" => Match::ForOtherHosts,
            "--ctstate" if value == "INVALID" => Match::Invalid,
            "--ctorigdst" if negated => Match::NotOriginalDestination(value.parse().ok()?),
            _ => return None,
        };
        self.matches.push(found);
        Some(())
    }

    fn target_word(&mut self, word: &str, target: &mut Option<Target>) -> Option<()> {
        let value = self.words.next()?;
        match (word, &mut *target) {
            ("-j", None) => {
                *target = Some(match value {
                    "RETURN" => Target::Return,
                    "DROP" => Target::Drop,
                    "DOCKER_OUTPUT" => Target::DockerOutput,
                    // What follows fills these in; a REDIRECT or CT without it is not ours.
                    "REDIRECT" => {
                        return self
                            .completed("--to-ports", target, |v| Some(Target::Redirect(v.parse().ok()?)));
                    }
                    "CT" => {
                        return self.completed("--zone", target, |v| Some(Target::CtZone(v.parse().ok()?)));
                    }
                    // 4 is what save programs leave out (KERN_WARNING, the default of the LOG target).
                    "LOG" => {
                        return self.completed("--log-prefix", target, |v| {
                            Some(Target::Log { prefix: log_prefix(v)?, level: 4 })
                        });
                    }
                    chain => Target::Jump(OwnChain::named(chain)?),
                });
                Some(())
            }
            ("--log-level", Some(Target::Log { level, .. })) => {
                *level = value.parse().ok()?;
                Some(())
            }
            _ => None,
        }
    }

    fn completed(
        &mut self,
        option: &str,
        target: &mut Option<Target>,
        make: impl Fn(&str) -> Option<Target>,
    ) -> Option<()> {
        if self.words.next()? != option {
            return None;
        }
        *target = Some(make(self.words.next()?)?);
        Some(())
    }
}

fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    }
}

fn log_prefix(text: &str) -> Option<&'static str> {
    ["PREROUTING:", "OUTPUT:"].into_iter().find(|prefix| *prefix == text.trim_end())
}

fn port_list(text: &str) -> Option<Vec<PortRange>> {
    text.split(',').map(|range| dashed(range).parse().ok()).collect()
}

/// Save programs write ranges with `:` or `-`, depending on match and age; the grammar here has `-`.
fn dashed(range: &str) -> String {
    range.replace(':', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kernels_print_is_what_was_planned() {
        let planned = Rule {
            matches: vec![
                Match::Protocol(Protocol::Tcp),
                Match::OutInterface("lo".into()),
                Match::Destination { net: "127.0.0.1/32".parse().expect("net"), negated: true },
                Match::Owner { uids: 5678.into(), negated: false },
            ],
            target: Target::Jump(OwnChain::InboundRedirect),
            why: "a reason".into(),
        };
        let saved = SavedRule::new(
            "! -d 127.0.0.1/32 -o lo -p tcp -m comment --comment \"kuma/mesh/transparent/proxy/a reason\" \
             -m owner --uid-owner 5678 -j KUMA_MESH_INBOUND_REDIRECT",
        );
        assert_eq!(Canonical::read(&saved), Some(Canonical::of(&planned, true)));
        assert_ne!(Canonical::read(&saved), Some(Canonical::of(&planned, false)));
    }

    #[test]
    fn anything_more_than_a_plan_has_is_not_read() {
        for args in [
            "-p tcp -m tcp --dport 80 -m limit --limit 3/min -j RETURN",
            "! -p tcp -j RETURN",
            "-p tcp -j REDIRECT",
            "-p tcp -j REDIRECT --to-ports 15001 --random",
            "-p tcp -j SOMEBODYS",
            "-p tcp",
            "-s 10.0.0.1 -j ACCEPT",
        ] {
            assert_eq!(Canonical::read(&SavedRule::new(args)), None, "{args}");
        }
    }
}
