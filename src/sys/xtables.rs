//! Tables of `x_tables`, the firewall of iptables' legacy variant, as the kernel hands them out.
//!
//! Numbers and layouts are those of `include/uapi/linux/netfilter_ipv4/ip_tables.h`, and of `ip6_tables.h` beside it.
#![allow(unsafe_code, reason = "getsockopt with these options has no wrapper")]

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

use super::socket;
use crate::plan::Family;

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`
const GET_INFO: libc::c_int = 64;
/// `IPT_SO_GET_ENTRIES` and `IP6T_SO_GET_ENTRIES`
const GET_ENTRIES: libc::c_int = 65;

/// `XT_TABLE_MAXNAMELEN`, the zero at the end included.
const NAME: usize = 32;
/// The size of `struct ipt_getinfo`: the name, which hooks there are, where each begins and where its policy is, and how
/// many entries of how many bytes in all.
const INFO: usize = 84;
const VALID_HOOKS: usize = 32;
const HOOK_ENTRY: usize = 36;
const SIZE: usize = 80;
/// Where the entries are in `struct ipt_get_entries`: counters of 64 bits align them.
const ENTRIES: usize = 40;

/// How often a table is read again that changed between two questions. A read takes microseconds.
const TRIES: usize = 20;

/// A table as the kernel keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// Where the chain of each hook begins in the entries: prerouting, input, forward, output, postrouting.
    pub hooks: [Option<u32>; 5],
    /// `struct ipt_entry` after `struct ipt_entry`, or `struct ip6t_entry`.
    pub entries: Vec<u8>,
}

/// Reads a table of the calling thread's network namespace. A table that is not there is created by that, so only those
/// may be asked for that `/proc/net/ip_tables_names` or `ip6_tables_names` lists.
///
/// # Errors
/// The kernel's, such as [`io::ErrorKind::PermissionDenied`] without the right to administer the network namespace;
/// [`io::ErrorKind::ResourceBusy`] where the table never stands still; [`io::ErrorKind::Unsupported`] in a program of
/// 32 bits, because the layouts are those of 64.
pub fn read(family: Family, table: &str) -> io::Result<Table> {
    if cfg!(not(target_pointer_width = "64")) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // Any socket of the family will do. A raw one, which iptables itself takes, needs one more capability.
    let socket = socket::udp(match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    })?;
    for _ in 0..TRIES {
        match read_once(&socket, family, table) {
            Err(Errno::EAGAIN) => {}
            other => return Ok(other?),
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "the table changes again and again"))
}

/// `EAGAIN`: the table changed meanwhile.
fn read_once(socket: &OwnedFd, family: Family, table: &str) -> Result<Table, Errno> {
    // The name has to end with a zero.
    if table.len() >= NAME {
        return Err(Errno::EINVAL);
    }
    let info = || {
        let mut info = [0; INFO];
        info[..table.len()].copy_from_slice(table.as_bytes());
        ask(socket, family, GET_INFO, &mut info).map(|()| info)
    };
    let before = info()?;
    let number = |at: usize| before[at..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
    let valid = number(VALID_HOOKS);
    let mut hooks = [None; 5];
    for (hook, entry) in hooks.iter_mut().enumerate() {
        *entry = (valid & 1 << hook != 0).then(|| number(HOOK_ENTRY + 4 * hook));
    }
    let size = number(SIZE);
    let mut entries = vec![0; ENTRIES + size as usize];
    entries[..table.len()].copy_from_slice(table.as_bytes());
    entries[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    ask(socket, family, GET_ENTRIES, &mut entries)?;
    // The kernel itself notices another size, but not that chains of the same size begin elsewhere.
    if info()? != before {
        return Err(Errno::EAGAIN);
    }
    entries.drain(..ENTRIES);
    Ok(Table { hooks, entries })
}

/// Asks; the question is at the beginning of the room for the answer.
fn ask(socket: &OwnedFd, family: Family, option: libc::c_int, room: &mut [u8]) -> Result<(), Errno> {
    let level = match family {
        Family::V4 => libc::IPPROTO_IP,
        Family::V6 => libc::IPPROTO_IPV6,
    };
    let full = libc::socklen_t::try_from(room.len()).map_err(|_| Errno::EMSGSIZE)?;
    let mut size = full;
    // SAFETY: the descriptor is open. The kernel reads and writes within `size` bytes, which are those of `room`: it
    // refuses another size than that of its answer, the entries included.
    Errno::result(unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, room.as_mut_ptr().cast(), &raw mut size)
    })?;
    // Another option of that number, of a kernel without legacy tables, would have answered something else.
    if size == full { Ok(()) } else { Err(Errno::ENOPROTOOPT) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netns::testing::apart;
    use crate::sys::user::run_as;

    /// An entry's size, and beyond that of a policy and of the end of all.
    const SIZES: [(Family, u32); 2] = [(Family::V4, 112), (Family::V6, 168)];
    const POLICY: u32 = 40;
    const END: u32 = 64;

    #[test]
    fn a_new_table_has_its_policies_alone() {
        apart(|| {
            for (family, entry) in SIZES {
                // Asking makes it, in a namespace that goes at the end.
                let Ok(nat) = read(family, "nat") else {
                    eprintln!("skipped: this kernel has no legacy tables");
                    continue;
                };
                let one = entry + POLICY;
                assert_eq!(nat.hooks, [Some(0), Some(one), None, Some(2 * one), Some(3 * one)]);
                assert_eq!(nat.entries.len() as u64, u64::from(4 * one + entry + END));
            }
        });
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        apart(|| {
            for family in Family::BOTH {
                for name in ["", "nosuchtable", "a name that is too long for any table"] {
                    assert!(read(family, name).is_err(), "{family} {name:?}");
                }
            }
        });
    }

    #[test]
    fn it_needs_the_right() {
        apart(|| {
            for family in Family::BOTH {
                let refused = run_as(65534, || read(family, "nat")).unwrap().unwrap_err();
                assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{family}");
            }
        });
    }
}
