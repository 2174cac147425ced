//! Any text as firewalld's direct.xml: refused with a line, or our rules go in once and come out again.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tproxy::backend::firewalld::{Error, merge, remove};
use tproxy::config::Config;
use tproxy::host::{HostFacts, Ipv6Support};
use tproxy::plan::{Plan, build};

static PLAN: LazyLock<Plan> = LazyLock::new(|| {
    let facts = HostFacts {
        sidecar_uid: 5678,
        loopback: "lo".into(),
        ipv6: Ipv6Support::Available,
        resolvers: Vec::new(),
        docker_dns: false,
        translated: tproxy::host::Translated::default(),
    };
    build(&Config::default(), &facts)
});

fuzz_target!(|text: &str| {
    let merged = match merge(Some(text), &PLAN, true) {
        Err(Error::Malformed { line, reason }) => return assert!(line > 0 && !reason.is_empty()),
        Err(error) => panic!("{error}"),
        Ok(merged) => merged,
    };
    let again = merge(Some(&merged.text), &PLAN, true).expect("what was written can be read");
    assert_eq!(again.text, merged.text, "a second time changes nothing");

    let without = remove(&merged.text, true).expect("what was written can be read").expect("ours are in it");
    assert_eq!(remove(&without, true), Ok(None), "nothing of ours is left");
    // What others had is there as before.
    let others = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    match remove(text, true) {
        Ok(Some(clean)) => assert_eq!(others(&without), others(&clean)),
        // Elements that only we would need: an empty file or an empty root becomes one with a start and an end.
        Ok(None) if others(text).is_empty() || text.contains("/>") => {}
        Ok(None) => assert_eq!(others(&without), others(text)),
        Err(error) => panic!("{error}"),
    }
});
