//! Any text as the output of a save program: read without a panic, and what was read reads as itself.

#![no_main]

use std::fmt::Write as _;

use libfuzzer_sys::fuzz_target;
use tproxy::backend::iptables::decode::Canonical;
use tproxy::backend::iptables::save::Saved;
use tproxy::plan::{OWNER_TAG, OwnChain};

/// What was read, in the shape in which save programs print it.
fn print(saved: &Saved) -> String {
    let mut text = String::new();
    for table in &saved.tables {
        let _ = writeln!(text, "*{}", table.name);
        for chain in &table.chains {
            let _ = writeln!(text, ":{} {}", chain.name, if chain.builtin { "ACCEPT" } else { "-" });
        }
        for chain in &table.chains {
            for rule in &chain.rules {
                let _ = writeln!(text, "-A {} {}", chain.name, rule.args);
            }
        }
        text.push_str("COMMIT\n");
    }
    text
}

fuzz_target!(|text: &str| {
    let saved = Saved::parse(text);
    for rule in saved.tables.iter().flat_map(|table| &table.chains).flat_map(|chain| &chain.rules) {
        let _ = Canonical::read(rule);
        if rule.is_tagged() {
            // The tag is ours only as the beginning of the comment itself.
            let comment = rule.comment().unwrap_or_default();
            let rest = comment.strip_prefix(OWNER_TAG);
            assert!(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')), "{}", rule.args);
        }
        for chain in OwnChain::ALL {
            assert!(!rule.leads_to(chain.name()) || rule.args.contains(chain.name()), "{}", rule.args);
        }
    }
    let printed = print(&saved);
    assert_eq!(print(&Saved::parse(&printed)), printed);
});
