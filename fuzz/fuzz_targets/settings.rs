//! Any values for variables and flags: refused with problems, or a plan whose every rule survives being written and
//! read back.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tproxy::backend::iptables::decode::Canonical;
use tproxy::backend::iptables::save::SavedRule;
use tproxy::backend::iptables::syntax::{Style, rule_args};
use tproxy::config::settings::SETTINGS;
use tproxy::config::{Flag, Layers, resolve};
use tproxy::host::{HostFacts, Ipv6Support, Resolver};
use tproxy::plan::build;

/// Values for settings chosen by number, and a host.
#[derive(Debug, Arbitrary)]
struct Input<'a> {
    variables: Vec<(u8, &'a str)>,
    flags: Vec<(u8, &'a str)>,
    sidecar_uid: u32,
    ipv6: bool,
    docker: bool,
    resolvers: Vec<std::net::IpAddr>,
}

fuzz_target!(|input: Input| {
    let setting = |number: u8| &SETTINGS[usize::from(number) % SETTINGS.len()];
    let layers = Layers {
        variables: input.variables.iter().map(|(n, text)| (setting(*n).variable(), (*text).into())).collect(),
        flags: input
            .flags
            .iter()
            .filter_map(|(n, text)| {
                let setting = setting(*n);
                Some(Flag { setting, name: setting.flag?, text: (*text).into() })
            })
            .collect(),
        ..Layers::default()
    };
    let resolved = match resolve(&layers) {
        Ok(resolved) => resolved,
        Err(problems) => return assert!(!problems.0.is_empty(), "refused without a reason"),
    };
    let facts = HostFacts {
        sidecar_uid: input.sidecar_uid.min(u32::MAX - 1),
        loopback: "lo".into(),
        ipv6: if input.ipv6 { Ipv6Support::Available } else { Ipv6Support::Unavailable("fuzz".into()) },
        resolvers: input.resolvers.iter().map(|&addr| Resolver { addr, zone: None }).collect(),
        docker_dns: input.docker,
        translated: tproxy::host::Translated::default(),
    };
    let plan = build(&resolved.config, &facts);
    for table in plan.families.iter().flat_map(|family| &family.tables) {
        for placed in table.chains.iter().flat_map(|(_, rules)| rules) {
            let text = rule_args(&placed.rule, true, Style::Short);
            assert!(!text.contains(['\n', '\r', '\0']), "{text:?} is more than a line");
            // The multiport match prints its option with another name than the one that Kuma writes.
            let saved = match text.contains("-m multiport ") {
                true => text.replace(" --dport ", " --dports "),
                false => text.clone(),
            };
            let read = Canonical::read(&SavedRule::new(saved.trim_start()));
            assert_eq!(read, Some(Canonical::of(&placed.rule, true)), "{text}");
        }
    }
});
