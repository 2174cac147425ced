//! A host, what is wanted there, and the ways to bring it about.

use std::collections::HashSet;
use std::fmt::Write as _;

use proptest::strategy::{Strategy, ValueTree as _};
use proptest::test_runner::TestRunner;
use tproxy::backend::iptables::owned::Ownership;
use tproxy::backend::iptables::save::Saved;
use tproxy::backend::iptables::transition::{changes, script};
use tproxy::backend::iptables::wanted::Wanted;
use tproxy::backend::nftables::model::Table;
use tproxy::backend::nftables::{encode, lower, text};
use tproxy::config::Config;
use tproxy::host::HostFacts;
use tproxy::plan::{self, Plan, build};
use tproxy::sys::netlink::nftables::Door;

use super::machine::{INTERFACES, Machine, is_local};
use super::packet::{Packet, Pool, Real, THEIR_PORT, choice};
use crate::pure::configs;
use crate::support::lab::in_a_namespace_of_our_own;
use crate::support::users::exists_here;
use crate::support::{Family, SIDECAR, Variant, command, docker, firewall};

const PACKETS: u16 = 80;

/// One configuration on one host.
pub struct Case {
    pub config: Config,
    pub facts: HostFacts,
    pub plan: Plan,
    pub table: Table,
    /// Somebody else redirects [`THEIR_PORT`].
    theirs: bool,
}

/// How the native table gets to the kernel.
#[derive(Debug, Clone, Copy)]
pub enum Said {
    /// As text, by `nft`.
    Text,
    /// As messages, by ourselves.
    Messages,
}

impl Case {
    pub fn generate(runner: &mut TestRunner) -> Self {
        let (mut config, mut facts) = (draw(&configs::config(), runner), draw(&configs::facts(), runner));
        facts.sidecar_uid = SIDECAR;
        // Most rules are about traffic that is redirected.
        let mostly = |on: bool, runner: &mut TestRunner| on || draw(&proptest::bool::weighted(0.7), runner);
        config.redirect.inbound.enabled = mostly(config.redirect.inbound.enabled, runner);
        config.redirect.outbound.enabled = mostly(config.redirect.outbound.enabled, runner);
        if draw(&proptest::bool::weighted(0.7), runner) {
            config.redirect.inbound.include_ports.clear();
            config.redirect.outbound.include_ports.clear();
        }
        let exclusions = &mut config.redirect.outbound.exclude_ports_for_uids;
        exclusions.retain(|one| exists_here(one.uids.first) && exists_here(one.uids.last));
        let plan = build(&config, &facts);
        let table = lower::table(&plan, !config.comments.disabled);
        Self { config, facts, plan, table, theirs: draw(&proptest::bool::ANY, runner) }
    }

    /// Different packets, none of which looks like the answer to another.
    pub fn packets(&self, runner: &mut TestRunner) -> Vec<Packet> {
        let pool = Pool::new(&self.config, &self.facts);
        let machine = Real {
            is_local,
            has_user: |uid| uid != u32::MAX && exists_here(uid),
            interfaces: &INTERFACES,
            dns_port: self.config.redirect.dns.port.get(),
            theirs: self.theirs,
        };
        let mut known = HashSet::new();
        let mut packets = Vec::new();
        for serial in 20_000..20_000 + PACKETS {
            let Some(packet) = pool.real(&draw(&choice(), runner), serial, &machine) else { continue };
            let (protocol, from, to) = (packet.protocol, packet.source, packet.destination);
            if known.insert((protocol, from, to)) && !known.contains(&(protocol, to, from)) {
                packets.push(packet);
            }
        }
        packets
    }

    /// Puts the rules of iptables there, in the place of all that was.
    pub fn install_iptables(&self, machine: &Machine, variant: Variant) {
        let (plan, comments) = (self.plan.clone(), !self.config.comments.disabled);
        let foreign = self.foreign();
        machine.run(move || {
            for (family, text) in foreign {
                start_anew(variant, family, &text);
                let of = match family {
                    Family::V4 => plan::Family::V4,
                    Family::V6 => plan::Family::V6,
                };
                if let Some(plan) = plan.families.iter().find(|plan| plan.family == of) {
                    let saved = Saved::parse(&firewall::save(variant, family));
                    let wanted = Wanted::plan(plan, comments);
                    let script = script(&changes(&saved, &Ownership::of(&saved, &[]), &wanted));
                    firewall::restore(variant, family, &script);
                }
            }
        });
    }

    /// Puts the native table there, in the place of all that was.
    pub fn install_native(&self, machine: &Machine, said: Said) {
        let (foreign, load, batch) =
            (self.foreign(), text::replace(&self.table), encode::replace(&self.table));
        machine.run(move || {
            for (family, text) in &foreign {
                start_anew(Variant::Nft, *family, text);
            }
            match said {
                Said::Text => firewall::nft(&load),
                Said::Messages => {
                    let mut door = Door::open().expect("a way to nf_tables");
                    let generation = door.generation().expect("a generation");
                    let done = door.commit(&batch, generation);
                    done.unwrap_or_else(|refusal| panic!("{refusal:?}\n{load}"));
                }
            }
        });
    }

    /// Other people's rules.
    fn foreign(&self) -> [(Family, String); 2] {
        Family::BOTH.map(|family| {
            let mut text = String::new();
            if self.facts.docker_dns && family == Family::V4 {
                text.push_str(docker::RULES);
            }
            if self.theirs {
                let rule = format!("-p tcp --dport {THEIR_PORT} -j REDIRECT --to-ports 9999");
                let _ = write!(text, "*nat\n-A PREROUTING {rule}\n-A OUTPUT {rule}\nCOMMIT\n");
            }
            (family, text)
        })
    }
}

pub fn draw<T: Strategy>(strategy: &T, runner: &mut TestRunner) -> T::Value {
    strategy.new_tree(runner).expect("a value").current()
}

/// Leaves nothing but other people's rules in the tables of a family.
fn start_anew(variant: Variant, family: Family, foreign: &str) {
    in_a_namespace_of_our_own();
    let empty = "*raw\nCOMMIT\n*mangle\nCOMMIT\n*nat\nCOMMIT\n";
    command::must_with(&firewall::tool(variant, family, "-restore"), &[], empty);
    firewall::restore(variant, family, foreign);
}
