//! Machines side by side, with the rules of one plan in the two variants of iptables and in the native table: what
//! the kernel does to a packet is the same on all of them, and what the plan says.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::test_runner::{Config as Options, RngAlgorithm, TestRng, TestRunner};
use tproxy::backend::nftables::text;

use super::case::{Case, Said};
use super::machine::{Machine, Seen};
use super::packet::{Packet, Translation};
use super::planned::{self, Outcome};
use crate::support::{Lab, Variant};

/// A number that repeats a run.
const SEED: &str = "TPROXY_TEST_SEED";
/// Connections that the kernel has to have seen, each on every machine.
const CONNECTIONS: usize = 4_000;

#[test]
fn real_packets_meet_the_same_fate_in_every_backend() {
    let seed = match env::var(SEED) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SEED}={text} is not a number")),
        Err(_) => u64::from(SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").subsec_nanos()),
    };
    println!("{SEED}={seed} repeats this");
    Lab::enter(move |_| run(seed));
}

fn run(seed: u64) {
    let bytes: Vec<u8> = seed.to_le_bytes().into_iter().cycle().take(32).collect();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Options::default(), rng);
    let iptables = Variant::BOTH.map(|variant| (variant, Machine::new(variant.name())));
    let native = Machine::new("native");
    let mut tally = Tally::default();
    while tally.connections < CONNECTIONS {
        tally.configurations += 1;
        assert!(tally.configurations < 400, "{tally}");
        let case = Case::generate(&mut runner);
        let packets = case.packets(&mut runner);
        let [nft, legacy] = [&iptables[0], &iptables[1]].map(|(variant, machine)| {
            case.install_iptables(machine, *variant);
            machine.meet(&packets)
        });
        let said = if tally.configurations % 2 == 0 { Said::Text } else { Said::Messages };
        case.install_native(&native, said);
        let native = native.meet(&packets);

        for (at, packet) in packets.iter().enumerate() {
            let outcome = planned::outcome(&case.plan, packet);
            let fates = [&nft[at], &legacy[at], &native[at]];
            if let Err(which) = judge(packet, &outcome, fates) {
                panic!(
                    "{SEED}={seed}, configuration {}, {said:?}: {which}\n{packet:#?}\nnft, legacy, native: \
                     {fates:#?}\nplanned: {:?}\n{}{:?}\n{:?}",
                    tally.configurations,
                    outcome.fate,
                    text::create(&case.table),
                    case.config,
                    case.facts
                );
            }
            tally.add(packet, &native[at]);
        }
    }
    println!("{tally}");
    tally.assert_broad();
}

/// Whether what was seen is what was planned, and the same everywhere.
fn judge(packet: &Packet, outcome: &Outcome, [nft, legacy, native]: [&Seen; 3]) -> Result<(), &'static str> {
    // In a chain of our own nothing is past other people's chains, so theirs have their say.
    let differs = outcome.past_everybody && packet.theirs;
    if nft != legacy {
        return Err("the variants of iptables differ");
    }
    if !differs && nft != native {
        return Err("the native table does something else");
    }
    if !as_planned(packet, outcome, outcome.fate.translation, nft) {
        return Err("iptables does not do what is planned");
    }
    let translation = if differs { Translation::Theirs } else { outcome.fate.translation };
    if !as_planned(packet, outcome, translation, native) {
        return Err("the native table does not do what is planned");
    }
    Ok(())
}

fn as_planned(packet: &Packet, outcome: &Outcome, planned: Translation, seen: &Seen) -> bool {
    let Seen::Connection { zone, translation } = seen else { return true };
    // To where it went anyway.
    let there = |port: u16| *translation == Translation::None && port == packet.destination.port();
    let translated = match planned {
        Translation::Redirected(port) if there(port.get()) => true,
        planned => planned == *translation,
    };
    translated && outcome.fate.zone.unwrap_or(0) == *zone
}

/// What was seen how often.
#[derive(Default)]
struct Tally {
    configurations: usize,
    connections: usize,
    kinds: BTreeMap<String, usize>,
}

impl Tally {
    fn add(&mut self, packet: &Packet, seen: &Seen) {
        let mut count = |kind: String| *self.kinds.entry(kind).or_default() += 1;
        match seen {
            Seen::Connection { zone, translation } => {
                self.connections += 1;
                count(match translation {
                    Translation::None => "left alone".to_owned(),
                    Translation::Theirs => "others'".to_owned(),
                    Translation::Redirected(port) => format!("to {port}"),
                });
                count(format!("zone {zone}"));
                count(format!("{:?}", packet.hook));
                count(format!("{:?}", packet.family()));
            }
            Seen::Refused(_) | Seen::Nothing => count("not tracked".to_owned()),
        }
    }

    /// Random is not the same as one-sided.
    fn assert_broad(&self) {
        let kinds = ["to 15001", "to 15006", "to 15053", "left alone", "others'", "zone 1", "zone 2"];
        for kind in kinds.into_iter().chain(["Output", "Prerouting", "V4", "V6"]) {
            assert!(self.kinds.get(kind).is_some_and(|count| *count >= 5), "{kind}: {self}");
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { configurations, connections, kinds } = self;
        write!(f, "{connections} connections in {configurations} configurations: {kinds:?}")
    }
}
