use std::ffi::CString;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::sys::netns::testing::apart;

/// `enum bpf_cmd`
const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE: libc::c_long = 2;
const PROGRAM_LOAD: libc::c_long = 5;
const ATTACH: libc::c_long = 8;

fn made(command: libc::c_long, attribute: Attribute) -> OwnedFd {
    let mut attribute = attribute;
    let fd = bpf(command, &mut attribute.0).unwrap();
    // SAFETY: the kernel has just made it.
    unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).unwrap()) }
}

fn number(fd: &OwnedFd) -> u32 {
    u32::try_from(fd.as_raw_fd()).unwrap()
}

/// A map as systemd makes one, with one network.
fn list(address: &[u8], length: u32, verdict: u64) -> OwnedFd {
    let key = [&length.to_ne_bytes()[..], address].concat();
    let size = u32::try_from(key.len()).unwrap();
    // Type, sizes of key and value, room, and BPF_F_NO_PREALLOC.
    let map =
        made(MAP_CREATE, Attribute::new(72).word(0, TRIE).word(4, size).word(8, 8).word(12, 4).word(16, 1));
    let value = verdict.to_ne_bytes();
    let update =
        Attribute::new(32).word(0, number(&map)).address(8, key.as_ptr()).address(16, value.as_ptr());
    bpf(MAP_UPDATE, &mut { update }.0).unwrap();
    map
}

/// A program that lets everything pass, and refers to maps.
fn program(maps: &[OwnedFd]) -> OwnedFd {
    let mut code = Vec::new();
    for map in maps {
        // Loads the map into a register: two instructions of eight bytes.
        code.extend([0x18, 0x11, 0, 0]);
        code.extend(number(map).to_ne_bytes());
        code.extend([0; 8]);
    }
    code.extend([0xb7, 0, 0, 0, 1, 0, 0, 0]);
    code.extend([0x95, 0, 0, 0, 0, 0, 0, 0]);
    let license = CString::new("GPL").unwrap();
    let mut load = Attribute::new(128)
        .word(0, FILTER)
        .word(4, u32::try_from(code.len() / 8).unwrap())
        .address(8, code.as_ptr())
        .address(16, license.as_ptr().cast());
    load.0[48..60].copy_from_slice(b"sd_fw_egress");
    // What it is to be attached as.
    made(PROGRAM_LOAD, load.word(68, EGRESS))
}

/// A control group of our own with a process in it; both go with it.
struct Group(PathBuf, Child);

impl Group {
    fn make() -> io::Result<Self> {
        let mount =
            mounts()?.into_iter().next().ok_or_else(|| io::Error::other("no control groups are mounted"))?;
        let path = mount.join(format!("tproxy-test-{}", std::process::id()));
        fs::create_dir(&path)?;
        let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        fs::write(path.join("cgroup.procs"), child.id().to_string())?;
        Ok(Self(path, child))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.1.kill();
        let _ = self.1.wait();
        // The kernel takes a moment to see that it is empty.
        while fs::remove_dir(&self.0).is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY)) {
            std::thread::yield_now();
        }
    }
}

#[test]
fn filters_of_a_control_group_are_read() {
    apart(|| {
        let mut a_map = Attribute::new(72).word(0, TRIE).word(4, 8).word(8, 8).word(12, 1).word(16, 1);
        let allowed = bpf(MAP_CREATE, &mut a_map.0).map_err(io::Error::from);
        // SAFETY: the kernel has just made it.
        drop(allowed.as_ref().map(|fd| unsafe { OwnedFd::from_raw_fd(RawFd::try_from(*fd).unwrap()) }));
        let group = match allowed.and_then(|_| Group::make()) {
            Ok(group) => group,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "CI must have control groups: {error}");
                return eprintln!("skipped: no control group can be made: {error}");
            }
        };
        let of_group = |found: Vec<Filtered>| {
            found.into_iter().find(|found| found.path.ends_with(&format!("-{}", std::process::id())))
        };
        assert_eq!(of_group(filtered(&BTreeSet::new()).unwrap()), None);
        let maps = [list(&[10, 0, 0, 0], 8, 1), list(&[0; 4], 0, 2), list(&[0; 16], 0, 2)];
        let program = program(&maps);
        let dir = fs::File::open(&group.0).unwrap();
        let at = u32::try_from(dir.as_raw_fd()).unwrap();
        bpf(ATTACH, &mut Attribute::new(20).word(0, at).word(4, number(&program)).word(8, EGRESS).0).unwrap();
        let found = of_group(filtered(&BTreeSet::new()).unwrap()).expect("the group is listed");
        assert_eq!(found.processes, [group.1.id()].into());
        let lists = Lists {
            allowed: vec!["10.0.0.0/8".parse().unwrap()],
            denied: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        };
        assert_eq!(found.programs, [Filter { name: "sd_fw_egress".into(), lists: Some(lists) }]);
        // However many other groups there are, those of the first processes are looked at.
        let mount = mounts().unwrap().remove(0);
        let of = |first: &[u32]| of_group(below(&mount, &first.iter().copied().collect(), 0));
        assert_eq!((of(&[group.1.id()]), of(&[])), (Some(found), None));
        // In another network namespace nobody is in it.
        let elsewhere = apart(|| of_group(filtered(&BTreeSet::new()).unwrap()));
        assert_eq!(elsewhere, Some(None));
    });
}

#[test]
fn what_is_allowed_counts_first() {
    let net = |text: &str| vec![text.parse().unwrap()];
    let lists = Lists { allowed: net("10.0.0.0/8"), denied: net("0.0.0.0/0") };
    let pass = |addr: &str| lists.pass(addr.parse().unwrap());
    assert_eq!([pass("10.1.1.1"), pass("127.0.0.1"), pass("::1")], [true, false, true]);
}

#[test]
fn keys_are_networks() {
    let key = |length: u32, address: &[u8]| [&length.to_ne_bytes()[..], address].concat();
    let read = |key: &[u8]| network(key, 2u64.to_ne_bytes()).map(|(net, verdict)| (net.to_string(), verdict));
    assert_eq!(read(&key(8, &[10, 1, 1, 1])), Some(("10.0.0.0/8".into(), 2)));
    assert_eq!(read(&key(33, &[10, 1, 1, 1])), None);
    assert_eq!(read(&key(128, &[0; 16])), Some(("::/128".into(), 2)));
    assert_eq!(read(&[1, 2]), None);
}
