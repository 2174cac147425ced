//! Removes what runs left in network namespaces that are gone: those of containers come and go by the thousand, and
//! nobody uninstalls in them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::pending::{LOG, PENDING};
use super::store::{LOCK, RECORD, Store, UNFINISHED, UNFINISHED_PENDING};
use crate::sys::alive::{self, Alive};
use crate::sys::files::Dir;
use crate::sys::lock::FileLock;

/// How many namespaces are looked at in one run. Each takes some microseconds, and a run leaves files of one alone.
const AT_MOST: usize = 8;

/// Where the kernel does not tell of namespaces, all processes have to be looked at: only when there are so many more
/// records than were left the last time, and as many again.
const MORE: usize = 16;

/// The file that says how many those were.
const LEFT: &str = "left";

/// More than is read of a file to find the namespace, in bytes.
const LARGEST: u64 = 64 << 20;

/// What any of the files says of its namespace.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Says {
    // The record has it in the other spelling.
    #[serde(alias = "network_namespace")]
    network_namespace: Option<u64>,
}

/// Looks at some of the other namespaces' files, and removes those of namespaces that are known to be gone. The lock of
/// this namespace must be held. Whatever goes wrong, the files stay.
pub fn sweep(store: &Store) {
    let Some(dir) = store.dir().filter(|_| store.remembers()) else { return };
    let (Some(cookie), Some(inode)) = (store.identity().cookie(), store.identity().inode) else { return };
    let others = others(dir, store);
    if others.is_empty() {
        return;
    }
    let asked = Alive::asked(cookie, inode);
    let all = asked.is_none();
    let left = dir.entry(LEFT);
    if all {
        let known =
            left.read(LARGEST).ok().flatten().and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
        if others.len() < known.unwrap_or(0usize).saturating_mul(2).saturating_add(MORE) {
            return;
        }
    }
    let Some(alive) = asked.or_else(Alive::seen) else { return };
    // Not always the same ones, should many be alive.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let begin = now.subsec_nanos() as usize % others.len();
    let count = if all { others.len() } else { AT_MOST.min(others.len()) };
    let gone = others.iter().cycle().skip(begin).take(count);
    let gone = gone.filter(|(id, cookie)| remove_if_gone(dir, id, **cookie, &alive)).count();
    if gone > 0 {
        tracing::debug!("removed what was recorded of {gone} network namespaces that are gone");
    }
    if all {
        let _ = match others.len() - gone {
            0 => left.remove(),
            still => left.replace(&dir.entry(format!("{LEFT}.new")), still.to_string().as_bytes()),
        };
    }
}

/// The other namespaces of this start of the machine that have files here, with their cookies. Those of another start
/// may be of another machine that is running, where the directory is a volume.
fn others(dir: &Dir, store: &Store) -> BTreeMap<String, u64> {
    let own = &store.identity().id;
    let Some((_, boot)) = own.split_once('-') else { return BTreeMap::new() };
    let names: BTreeSet<String> = dir
        .names()
        .unwrap_or_default()
        .iter()
        .filter_map(|name| name.split_once('.').map(|(id, _)| id.to_owned()))
        .collect();
    let cookie = |id: &String| {
        let (cookie, of) = id.split_once('-')?;
        (of == boot && id != own).then(|| u64::from_str_radix(cookie, 16).ok()).flatten()
    };
    names.into_iter().filter_map(|id| cookie(&id).map(|cookie| (id, cookie))).collect()
}

/// Whether that was done.
fn remove_if_gone(dir: &Dir, id: &str, cookie: u64, alive: &Alive) -> bool {
    let entry = |kind: &str| dir.entry(format!("{id}.{kind}"));
    let known = inode(dir, id);
    if known.is_some_and(|inode| !alive.is_gone(cookie, inode)) {
        return false;
    }
    let told = [RECORD, PENDING, LOG].map(entry);
    // What only a killed run left can go wherever nobody is at it.
    if known.is_none() && told.iter().any(|entry| !entry.is_missing()) {
        return false;
    }
    let Ok(lock) = FileLock::acquire(&entry(LOCK), Duration::ZERO) else { return false };
    // It may have been made since.
    if known.is_none() && told.iter().any(|entry| !entry.is_missing()) {
        return false;
    }
    let unfinished = [UNFINISHED, UNFINISHED_PENDING].map(entry);
    for file in unfinished.iter().chain(told.iter()) {
        let _ = file.remove();
    }
    lock.remove().is_ok()
}

/// The inode of the namespace, as any of its files has it.
fn inode(dir: &Dir, id: &str) -> Option<u64> {
    let read = |kind: &str| dir.entry(format!("{id}.{kind}")).read(LARGEST).ok().flatten();
    let says = |kind| serde_json::from_slice::<Says>(&read(kind)?).ok()?.network_namespace;
    let log = || {
        let log = read(LOG)?;
        let first = log.split(|byte| *byte == b'\n').next().unwrap_or_default();
        std::str::from_utf8(first).ok()?.split_ascii_whitespace().find_map(alive::inode_of)
    };
    says(RECORD).or_else(|| says(PENDING)).or_else(log)
}
