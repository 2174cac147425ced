//! Copies of rules in files that others load, as distributions do when a machine starts: what is removed from the kernel
//! comes back from them. They are read, and never written or run.

mod glob;
mod iptables;
mod nft;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::status::model::Saved;
use crate::sys::{files, private};

/// In the form of iptables-save: of `netfilter-persistent` (Debian), `iptables.service` (Fedora, Arch), `OpenRC` (Alpine,
/// Gentoo), `ifup` of old, and ufw.
const IPTABLES: [&str; 17] = [
    "/etc/iptables/rules.v4",
    "/etc/iptables/rules.v6",
    "/etc/sysconfig/iptables",
    "/etc/sysconfig/ip6tables",
    "/etc/iptables/iptables.rules",
    "/etc/iptables/ip6tables.rules",
    "/etc/iptables/rules-save",
    "/etc/iptables/rules6-save",
    "/var/lib/iptables/rules-save",
    "/var/lib/ip6tables/rules-save",
    "/etc/iptables.up.rules",
    "/etc/ufw/before.rules",
    "/etc/ufw/before6.rules",
    "/etc/ufw/after.rules",
    "/etc/ufw/after6.rules",
    "/etc/ufw/user.rules",
    "/etc/ufw/user6.rules",
];

/// In the language of nft: `nftables.service` (Debian and Arch, Fedora) and `OpenRC` (Alpine, Gentoo).
const NFT: [&str; 5] = [
    "/etc/nftables.conf",
    "/etc/sysconfig/nftables.conf",
    "/etc/nftables.nft",
    "/var/lib/nftables/rules.nft",
    "/var/lib/nftables/rules-save",
];

/// Where nft looks for what an `include` names without a place (`DEFAULT_INCLUDE_PATH`).
const INCLUDES: &str = "/etc";

/// How deep nft follows includes (`MAX_INCLUDE_DEPTH`).
const DEPTH: usize = 16;

/// How many files are read at most; more is no configuration that anybody wrote.
const FILES: usize = 512;

/// The longest file that is read, in bytes: a hundred thousand rules are a third of it.
const LARGEST: u64 = 32 << 20;

/// Reads the files of this host that others load rules from.
pub fn find() -> Vec<Saved> {
    // A host of one's own has none, and the files are another one's.
    if private::is_left() {
        return Vec::new();
    }
    let mut search = Search::default();
    for path in IPTABLES {
        if let Some(text) = search.read(Path::new(path)) {
            search.note(Path::new(path), iptables::lines_of_ours(&text));
        }
    }
    for path in NFT {
        search.nft(Path::new(path), DEPTH);
    }
    search.found
}

#[derive(Default)]
struct Search {
    /// By device and inode: includes can go round in a circle.
    seen: BTreeSet<(u64, u64)>,
    found: Vec<Saved>,
}

impl Search {
    /// `None`: it is not there, was read already, or is noted as one that cannot be read.
    fn read(&mut self, path: &Path) -> Option<String> {
        let about = fs::metadata(path).ok()?;
        if self.seen.len() >= FILES || !self.seen.insert((about.dev(), about.ino())) {
            return None;
        }
        match files::read(path, LARGEST) {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.is_missing() => None,
            Err(error) => {
                self.found.push(Saved { file: shown(path), lines: Err(error.to_string()) });
                None
            }
        }
    }

    fn note(&mut self, path: &Path, lines: Option<(usize, usize)>) {
        self.found.extend(lines.map(|lines| Saved { file: shown(path), lines: Ok(lines) }));
    }

    /// A file of nft, and those that it includes.
    fn nft(&mut self, path: &Path, depth: usize) {
        let Some(text) = self.read(path) else { return };
        let scan = nft::scan(&text);
        self.note(path, scan.lines);
        if depth == 0 {
            return;
        }
        for include in scan.includes {
            for base in [Path::new(INCLUDES), path.parent().unwrap_or(Path::new("/"))] {
                for included in glob::expand(&base.join(&include), FILES) {
                    self.nft(&included, depth - 1);
                }
            }
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
