//! The pure modules import neither process, file system nor `nix`.

use std::fs;
use std::path::{Path, PathBuf};

const PURE: &[&str] = &[
    "src/plan",
    "src/config",
    "src/present",
    "src/text.rs",
    "src/attribute.rs",
    "src/demo/addresses.rs",
    "src/demo/question.rs",
    "src/demo/wanted.rs",
    "src/exit.rs",
    "src/apply/degrade.rs",
    "src/apply/journal.rs",
    "src/backend/iptables/decode.rs",
    "src/backend/iptables/legacy/table.rs",
    "src/backend/iptables/legacy/words.rs",
    "src/backend/iptables/lines.rs",
    "src/backend/iptables/owned.rs",
    "src/backend/iptables/refusal.rs",
    "src/backend/iptables/render.rs",
    "src/backend/iptables/save.rs",
    "src/backend/iptables/shape.rs",
    "src/backend/iptables/syntax.rs",
    "src/backend/iptables/transition.rs",
    "src/backend/iptables/wanted.rs",
    "src/backend/iptables/infer.rs",
    "src/backend/iptables/typed.rs",
    "src/backend/iptables/written.rs",
    "src/backend/nftables/change.rs",
    "src/backend/nftables/decode.rs",
    "src/backend/nftables/elements.rs",
    "src/backend/nftables/encode.rs",
    "src/backend/nftables/expression.rs",
    "src/backend/nftables/infer",
    "src/backend/nftables/foreign.rs",
    "src/backend/nftables/lower",
    "src/backend/nftables/model.rs",
    "src/backend/nftables/refusal.rs",
    "src/backend/nftables/replay.rs",
    "src/backend/nftables/set.rs",
    "src/backend/nftables/statement.rs",
    "src/backend/nftables/text.rs",
    "src/backend/nftables/wire.rs",
    "src/rules",
    "src/sidecar/dns.rs",
    "src/status/ahead/rules.rs",
    "src/status/compare.rs",
    "src/status/doors/mod.rs",
    "src/status/doors/sample.rs",
    "src/status/doors/words.rs",
    "src/status/listen.rs",
    "src/status/meets/clients.rs",
    "src/status/meets/users.rs",
    "src/status/meets/words.rs",
    "src/status/model.rs",
    "src/status/source.rs",
    "src/status/words.rs",
    "src/verify/check.rs",
    "src/verify/derive.rs",
    "src/verify/elsewhere.rs",
    "src/verify/exclusions.rs",
    "src/verify/explain.rs",
    "src/verify/flows.rs",
    "src/verify/ground.rs",
    "src/verify/judge.rs",
    "src/verify/loopback.rs",
    "src/verify/witness.rs",
];

const DOORS: [&str; 8] =
    ["std::process", "std::fs", "std::env::var", "nix::", "libc::", "crate::sys", "std::os", "std::net::Tcp"];

fn sources(path: &Path, into: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a readable directory") {
            sources(&entry.expect("an entry").path(), into);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        into.push(path.to_owned());
    }
}

#[test]
fn pure_modules_open_no_door() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for place in PURE {
        let before = files.len();
        sources(&root.join(place), &mut files);
        assert!(files.len() > before, "{place} is not there any more; correct this list");
    }
    let mut opened = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a readable source file");
        for (number, line) in text.lines().enumerate() {
            if !line.trim_start().starts_with("//") && DOORS.iter().any(|door| line.contains(door)) {
                opened.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(opened.is_empty(), "doors in pure modules:\n{}", opened.join("\n"));
}
