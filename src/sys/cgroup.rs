//! Programs that filter what the processes of a control group send (`BPF_CGROUP_INET_EGRESS`), as systemd attaches them for
//! `IPAddressAllow=` and `IPAddressDeny=`. Reads only.
//!
//! Layouts and numbers are those of the kernel's `include/uapi/linux/bpf.h`. In the maps of systemd's programs, a value is
//! 1 for what is allowed and 2 for what is denied; what is allowed is looked up first.
#![allow(unsafe_code, reason = "bpf(2) has no wrapper")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use nix::errno::Errno;

/// So many control groups are looked at; hosts with more have them from containers, which have filters of their own.
const GROUPS: usize = 2048;
/// So many processes of one are looked at.
const PROCESSES: usize = 256;
/// So many programs of one, maps of one program, and networks of one map are read.
const PROGRAMS: usize = 16;
const MAPS: usize = 16;
const NETWORKS: usize = 1024;

/// `enum bpf_cmd`
const MAP_LOOKUP: libc::c_long = 1;
const MAP_NEXT_KEY: libc::c_long = 4;
const NEXT_PROGRAM: libc::c_long = 11;
const PROGRAM_BY_ID: libc::c_long = 13;
const MAP_BY_ID: libc::c_long = 14;
const INFO: libc::c_long = 15;
const QUERY: libc::c_long = 16;
/// `BPF_CGROUP_INET_EGRESS`
const EGRESS: u32 = 1;
/// `BPF_PROG_TYPE_CGROUP_SKB`
const FILTER: u32 = 8;
/// `BPF_MAP_TYPE_LPM_TRIE`
const TRIE: u32 = 11;

/// A control group with filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filtered {
    /// Its path below the mount point, which a slash begins.
    pub path: String,
    /// The filters.
    pub programs: Vec<Filter>,
    /// Processes of this network namespace in it or below.
    pub processes: BTreeSet<u32>,
}

/// A filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The program's name; empty where the kernel does not tell.
    pub name: String,
    /// What its lists of networks say; nothing where it has none that are understood.
    pub lists: Option<Lists>,
}

/// Lists of networks, of which what is allowed counts first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lists {
    /// What passes.
    pub allowed: Vec<IpNet>,
    /// What does not, unless it is allowed.
    pub denied: Vec<IpNet>,
}

impl Lists {
    /// Whether packets to an address pass.
    pub fn pass(&self, to: IpAddr) -> bool {
        let has = |list: &[IpNet]| list.iter().any(|net| net.contains(&to));
        has(&self.allowed) || !has(&self.denied)
    }
}

/// Every control group that filters what processes of this network namespace send. None where the kernel does not tell
/// of its programs, as without `CAP_SYS_ADMIN`. The groups of these processes come first: any user who may make groups can
/// make more than are looked at.
///
/// # Errors
/// The mounts cannot be read.
pub fn filtered(first: &BTreeSet<u32>) -> io::Result<Vec<Filtered>> {
    let mut found = Vec::new();
    for mount in mounts()? {
        found.extend(below(&mount, first, GROUPS));
    }
    Ok(found)
}

/// Those below a mount point, of so many groups at most beside those of the first processes.
fn below(mount: &Path, first: &BTreeSet<u32>, mut left: usize) -> Vec<Filtered> {
    let mut found = Vec::new();
    let mut groups: BTreeMap<PathBuf, BTreeSet<u32>> = BTreeMap::new();
    for &process in first.iter().take(PROCESSES) {
        let Some(group) = group_of(mount, process) else { continue };
        for at in group.ancestors().take_while(|at| at.starts_with(mount)) {
            groups.entry(at.to_owned()).or_default().insert(process);
        }
    }
    for (at, processes) in &groups {
        look(mount, at, processes, &mut found);
    }
    walk(mount, mount, &groups, &mut left, &mut found);
    found
}

/// The group of a process; none where it is not below this mount point.
fn group_of(mount: &Path, process: u32) -> Option<PathBuf> {
    let told = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let path = told.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!path.split('/').any(|part| part == "..")).then(|| mount.join(path))
}

/// Whether there is any such program in the kernel.
pub fn has_filters() -> bool {
    let mut id = 0;
    loop {
        let mut next = Attribute::new(12).word(0, id);
        if bpf(NEXT_PROGRAM, &mut next.0).is_err() {
            return false;
        }
        id = next.read(4);
        let mut told = [0; 80];
        let is_filter = by_id(PROGRAM_BY_ID, id).and_then(|program| info(&program, &mut told));
        if is_filter.is_ok() && word(&told, 0) == FILTER {
            return true;
        }
    }
}

/// Where the second version of control groups is mounted.
fn mounts() -> io::Result<Vec<PathBuf>> {
    // Users can mount at places whose names are no text.
    let told = String::from_utf8_lossy(&fs::read("/proc/self/mountinfo")?).into_owned();
    let line = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        kind.starts_with("cgroup2 ").then(|| PathBuf::from(point))
    };
    // Several mounts show the same.
    Ok(told.lines().find_map(line).into_iter().collect())
}

fn look(mount: &Path, at: &Path, known: &BTreeSet<u32>, found: &mut Vec<Filtered>) {
    let programs = fs::File::open(at).ok().and_then(|dir| programs(dir.as_raw_fd()).ok()).unwrap_or_default();
    if !programs.is_empty() {
        let mut processes = processes(at);
        processes.extend(known);
        if !processes.is_empty() {
            let path = at.strip_prefix(mount).unwrap_or(at);
            found.push(Filtered { path: format!("/{}", path.display()), programs, processes });
        }
    }
}

fn walk(
    mount: &Path,
    at: &Path,
    known: &BTreeMap<PathBuf, BTreeSet<u32>>,
    left: &mut usize,
    found: &mut Vec<Filtered>,
) {
    if *left == 0 {
        return;
    }
    *left -= 1;
    if !known.contains_key(at) {
        look(mount, at, &BTreeSet::new(), found);
    }
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(mount, &entry.path(), known, left, found);
        }
    }
}

/// The processes in a control group, or below, that are in this network namespace.
fn processes(at: &Path) -> BTreeSet<u32> {
    let mut all = BTreeSet::new();
    let mut groups = vec![at.to_owned()];
    let Ok(here) = fs::metadata("/proc/thread-self/ns/net").map(|of| (of.dev(), of.ino())) else {
        return all;
    };
    let mut left = GROUPS;
    while let Some(group) = groups.pop() {
        let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for process in listed.lines().filter_map(|line| line.parse::<u32>().ok()).take(PROCESSES) {
            let theirs = fs::metadata(format!("/proc/{process}/ns/net")).map(|of| (of.dev(), of.ino()));
            if theirs.is_ok_and(|theirs| theirs == here) {
                all.insert(process);
            }
        }
        left -= 1;
        if all.len() >= PROCESSES || left == 0 {
            break;
        }
        let entries = fs::read_dir(&group).into_iter().flatten().flatten();
        groups.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    all
}

/// Makes the call with a `union bpf_attr` of these numbers.
fn bpf(command: libc::c_long, attribute: &mut [u8]) -> Result<i64, Errno> {
    // SAFETY: the attribute is ours alone and as long as it says; addresses in it are of buffers that outlive the call,
    // and whose sizes stand beside them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_mut_ptr(), attribute.len()) };
    Errno::result(result)
}

/// A `union bpf_attr`: words of four bytes, and addresses of eight.
struct Attribute(Vec<u8>);

impl Attribute {
    fn new(size: usize) -> Self {
        Self(vec![0; size])
    }

    fn word(mut self, at: usize, word: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        self
    }

    fn address(mut self, at: usize, of: *const u8) -> Self {
        self.0[at..at + 8].copy_from_slice(&(of as u64).to_ne_bytes());
        self
    }

    fn read(&self, at: usize) -> u32 {
        word(&self.0, at)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// The filters of a control group: not those that it has from above.
fn programs(group: RawFd) -> Result<Vec<Filter>, Errno> {
    let mut ids = vec![0u8; 4 * PROGRAMS];
    // File, kind, flags, flags of the answer, identifiers, and how many there is room for.
    let mut query = Attribute::new(64)
        .word(0, u32::try_from(group).unwrap_or_default())
        .word(4, EGRESS)
        .address(16, ids.as_mut_ptr())
        .word(24, u32::try_from(PROGRAMS).unwrap_or_default());
    bpf(QUERY, &mut query.0)?;
    let count = usize::try_from(query.read(24)).unwrap_or(0).min(PROGRAMS);
    Ok((0..count)
        .map(|nth| {
            filter(word(&ids, 4 * nth)).unwrap_or_else(|_| Filter { name: String::new(), lists: None })
        })
        .collect())
}

fn by_id(command: libc::c_long, id: u32) -> Result<OwnedFd, Errno> {
    let fd = bpf(command, &mut Attribute::new(12).word(0, id).0)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).map_err(|_| Errno::EBADF)?) })
}

fn info(of: &OwnedFd, told: &mut [u8]) -> Result<(), Errno> {
    let mut question = Attribute::new(16)
        .word(0, u32::try_from(of.as_raw_fd()).unwrap_or_default())
        .word(4, u32::try_from(told.len()).unwrap_or_default())
        .address(8, told.as_mut_ptr());
    bpf(INFO, &mut question.0).map(drop)
}

fn filter(id: u32) -> Result<Filter, Errno> {
    let program = by_id(PROGRAM_BY_ID, id)?;
    let mut maps = vec![0u8; 4 * MAPS];
    // `struct bpf_prog_info`: how many maps at 52, room for their identifiers at 56, the name at 64.
    let mut told =
        Attribute::new(80).word(52, u32::try_from(MAPS).unwrap_or_default()).address(56, maps.as_mut_ptr());
    info(&program, &mut told.0)?;
    let name = told.0[64..80].split(|byte| *byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    let count = usize::try_from(told.read(52)).unwrap_or(0).min(MAPS);
    let mut lists: Option<Lists> = None;
    for nth in 0..count {
        let map = by_id(MAP_BY_ID, word(&maps, 4 * nth))?;
        // `struct bpf_map_info`: type, identifier, sizes of keys and values.
        let mut told = [0; 32];
        info(&map, &mut told)?;
        let (key, value) = (word(&told, 8) as usize, word(&told, 12) as usize);
        if word(&told, 0) == TRIE && [8, 20].contains(&key) && value == 8 {
            read_map(&map, key, lists.get_or_insert_default())?;
        }
    }
    Ok(Filter { name, lists })
}

fn read_map(map: &OwnedFd, size: usize, lists: &mut Lists) -> Result<(), Errno> {
    let fd = u32::try_from(map.as_raw_fd()).unwrap_or_default();
    let (mut key, mut next, mut value) = (vec![0u8; size], vec![0u8; size], [0u8; 8]);
    let mut first = true;
    for _ in 0..NETWORKS {
        // File, key, and where the next key or the value goes.
        let at = if first { std::ptr::null() } else { key.as_ptr() };
        match bpf(
            MAP_NEXT_KEY,
            &mut Attribute::new(32).word(0, fd).address(8, at).address(16, next.as_mut_ptr()).0,
        ) {
            Err(Errno::ENOENT) => return Ok(()),
            other => other?,
        };
        first = false;
        std::mem::swap(&mut key, &mut next);
        bpf(
            MAP_LOOKUP,
            &mut Attribute::new(32).word(0, fd).address(8, key.as_ptr()).address(16, value.as_mut_ptr()).0,
        )?;
        if let Some((net, verdict)) = network(&key, value) {
            let of = [(1, &mut lists.allowed), (2, &mut lists.denied)];
            of.into_iter().filter(|(flag, _)| verdict & flag != 0).for_each(|(_, list)| list.push(net));
        }
    }
    Ok(())
}

/// A key is the length of a prefix and an address.
fn network(key: &[u8], value: [u8; 8]) -> Option<(IpNet, u64)> {
    let (length, address) = key.split_at_checked(4)?;
    let length = u8::try_from(word(length, 0)).ok()?;
    let address: IpAddr = match address.len() {
        4 => Ipv4Addr::from(*address.first_chunk::<4>()?).into(),
        _ => Ipv6Addr::from(*address.first_chunk::<16>()?).into(),
    };
    Some((IpNet::new(address, length).ok()?.trunc(), u64::from_ne_bytes(value)))
}

#[cfg(test)]
mod tests;
