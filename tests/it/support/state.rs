//! What a machine looks like, as the kernel says it: a millisecond, where [`Snapshot`](super::snapshot::Snapshot) asks
//! eight programs. It tells which part differs, not in words.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use tproxy::attribute::{attributes, find, find_text, find_u32};
use tproxy::backend::nftables::wire::Message;
use tproxy::plan;
use tproxy::sys::netlink::nftables::Door;
use tproxy::sys::xtables;

use super::lab;

/// `NFT_MSG_GET*`
const CHAINS: u16 = 4;
const RULES: u16 = 7;
const SETS: u16 = 10;
const ELEMENTS: u16 = 13;
/// `NF_ACCEPT`
const ACCEPT: u32 = 1;

/// Parts, such as "nft ip nat" or "file /run/tproxy/1.json", and what they hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State(pub BTreeMap<String, Vec<u8>>);

impl State {
    /// Looks, and changes nothing by looking. Counters do not count.
    #[track_caller]
    pub fn take() -> Self {
        lab::in_a_namespace_of_our_own();
        let mut state = Self::default();
        state.nft().expect("nf_tables can be read");
        state.legacy();
        state.addresses();
        state.files();
        state
    }

    /// The parts that differ.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let names = self.0.keys().chain(other.0.keys()).collect::<std::collections::BTreeSet<_>>();
        names.into_iter().filter(|name| self.0.get(*name) != other.0.get(*name)).cloned().collect()
    }

    fn add(&mut self, part: String, bytes: &[u8]) {
        self.0.entry(part).or_default().extend(bytes);
    }

    fn nft(&mut self) -> std::io::Result<()> {
        let mut door = Door::open()?;
        let mut list = |kind, family, body| door.dump(&Message { kind, flags: 0, family, body });
        let part = |message: &Message| {
            let family = match message.family {
                1 => "inet".to_owned(),
                2 => "ip".to_owned(),
                10 => "ip6".to_owned(),
                other => other.to_string(),
            };
            format!("nft {family} {}", find_text(&message.body, 1).unwrap_or_default())
        };
        for chain in list(CHAINS, 0, Vec::new())? {
            // Made by whoever looks, and by nobody removed: of a hook, with the policy to accept.
            let (hook, policy) = (find(&chain.body, 4), find_u32(&chain.body, 5));
            if hook.is_some() && policy == Some(ACCEPT) && chain.family != 1 {
                continue;
            }
            // Table, name, hook, policy, type, flags, comment. Not its handle, its users or its counters.
            let kept = without(&chain.body, |kind| ![1, 3, 4, 5, 7, 10, 12].contains(&kind));
            self.add(part(&chain), &kept);
        }
        for rule in list(RULES, 0, Vec::new())? {
            // Chain, and what the user wrote beside it. Not its handle and those of its neighbours: the order says it.
            let mut kept = without(&rule.body, |kind| ![2, 7].contains(&kind));
            for (_, expression) in attributes(find(&rule.body, 4).unwrap_or_default()) {
                let counts = find_text(expression, 1).is_some_and(|name| name == "counter");
                kept.extend(if counts { b"counter" } else { expression });
            }
            self.add(part(&rule), &kept);
        }
        let mut sets = list(SETS, 0, Vec::new())?;
        sets.sort_by_key(|set| find(&set.body, 2).map(<[u8]>::to_vec));
        for set in sets {
            self.add(part(&set), &without(&set.body, |kind| [10, 16].contains(&kind)));
            let which = without(&set.body, |kind| ![1, 2].contains(&kind));
            for message in list(ELEMENTS, set.family, which)? {
                let mut elements: Vec<&[u8]> = attributes(find(&message.body, 3).unwrap_or_default())
                    .map(|(_, element)| element)
                    .collect();
                elements.sort_unstable();
                self.add(part(&set), &elements.concat());
            }
        }
        Ok(())
    }

    fn legacy(&mut self) {
        for (family, names, prefix) in [
            (plan::Family::V4, "/proc/thread-self/net/ip_tables_names", "legacy ip"),
            (plan::Family::V6, "/proc/thread-self/net/ip6_tables_names", "legacy ip6"),
        ] {
            for name in fs::read_to_string(names).unwrap_or_default().lines() {
                let table = xtables::read(family, name).expect("a table that is listed");
                let entries = entries_without_counters(family, table.entries);
                // An idle one is made by whoever looks, and has nothing but its policies and its end.
                if entries.chunks > table.hooks.iter().flatten().count() + 1 {
                    self.add(format!("{prefix} {name}"), &entries.bytes);
                }
            }
        }
    }

    fn addresses(&mut self) {
        for interface in getifaddrs().expect("interfaces") {
            let address = interface.address.map(|address| address.to_string()).unwrap_or_default();
            // Packet sockets' addresses have the number of the interface, too, which says the same.
            if !address.contains("fe80:") {
                self.add(
                    format!("addresses {}", interface.interface_name),
                    format!("{address}\n").as_bytes(),
                );
            }
        }
    }

    fn files(&mut self) {
        for entry in fs::read_dir("/run").expect("a private /run").filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            // Of ours, what is in it counts. A lock file is nothing where nobody holds it.
            if !["lab", "xtables.lock", "systemd", "resolvconf", "tproxy"].contains(&name.as_str()) {
                self.add(format!("file /run/{name}"), b"is there");
            }
        }
        for entry in fs::read_dir("/run/tproxy").into_iter().flatten().filter_map(Result::ok) {
            self.file(&entry.path());
        }
        self.file(Path::new("/etc/firewalld/direct.xml"));
    }

    fn file(&mut self, path: &Path) {
        let Ok(mut bytes) = fs::read(path) else { return };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => {
                if let Ok(serde_json::Value::Object(mut record)) = serde_json::from_slice(&bytes) {
                    record.remove("installedAt");
                    bytes = serde_json::to_vec(&record).expect("JSON");
                }
            }
            // Whose trial it is changes from run to run. What waits writes a log for people.
            Some("pending") => bytes.clear(),
            Some("log" | "lock") => return,
            _ => {}
        }
        self.add(format!("file {}", path.display()), &bytes);
        self.add(format!("file {}", path.display()), b".");
    }
}

/// Attributes but for some, each with its kind.
fn without(body: &[u8], left_out: impl Fn(u16) -> bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, value) in attributes(body).filter(|(kind, _)| !left_out(*kind)) {
        let length = u16::try_from(value.len() + 4).expect("an attribute is shorter");
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

struct Entries {
    bytes: Vec<u8>,
    chunks: usize,
}

/// `struct ipt_entry` or `struct ip6t_entry`, one after the other, without counters and without the kernel's own mark.
fn entries_without_counters(family: plan::Family, mut bytes: Vec<u8>) -> Entries {
    let (next_at, mark_at, counters_at) = match family {
        plan::Family::V4 => (90, 92, 96),
        plan::Family::V6 => (142, 144, 152),
    };
    let (mut at, mut chunks) = (0, 0);
    while let Some(next) = bytes.get(at + next_at..at + next_at + 2) {
        let next = usize::from(u16::from_ne_bytes([next[0], next[1]]));
        bytes[at + mark_at..at + mark_at + 4].fill(0);
        bytes[at + counters_at..at + counters_at + 16].fill(0);
        chunks += 1;
        if next == 0 {
            break;
        }
        at += next;
    }
    Entries { bytes, chunks }
}
