//! Any bytes as resolv.conf: servers without duplicates, and never more than a few notes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tproxy::host::parse_resolv_conf as parse;

fuzz_target!(|bytes: &[u8]| {
    let (resolvers, notes) = parse(bytes);
    for (index, resolver) in resolvers.iter().enumerate() {
        assert!(!resolvers[..index].contains(resolver), "{resolver:?} twice");
    }
    assert!(notes.len() < 10, "{notes:?}");

    // What was read says the same when written down.
    let text = resolvers.iter().fold(String::new(), |text, resolver| {
        let zone = resolver.zone.as_ref().map(|zone| format!("%{zone}")).unwrap_or_default();
        format!("{text}nameserver {}{zone}\n", resolver.addr)
    });
    assert_eq!(parse(text.as_bytes()).0, resolvers, "{text}");
});
