//! Capabilities of the calling thread: which it has, and which a refusal is about.
#![allow(unsafe_code, reason = "capget and capset have no wrapper in libc")]

use std::io;

use nix::errno::Errno;

/// A capability; the numbers are those of the kernel's `include/uapi/linux/capability.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Right {
    /// Sockets of other users.
    SetUid = 7,
    /// Firewalls, addresses and interfaces.
    NetAdmin = 12,
    /// Raw sockets, by which legacy iptables talks to the kernel.
    NetRaw = 13,
    /// Namespaces.
    SysAdmin = 21,
}

impl Right {
    /// As containers are given it; `capabilities(7)` puts `CAP_` before it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SetUid => "SETUID",
            Self::NetAdmin => "NET_ADMIN",
            Self::NetRaw => "NET_RAW",
            Self::SysAdmin => "SYS_ADMIN",
        }
    }
}

/// `_LINUX_CAPABILITY_VERSION_3`: sets of 64 bits, in two halves.
const VERSION: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`; PID 0 is the calling thread.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn read() -> io::Result<[Half; 2]> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut sets = [Half::default(); 2];
    // SAFETY: both pointers are to live values of the layouts that this version of the call reads and writes.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) })?;
    Ok(sets)
}

/// Empties the effective set of the calling thread.
pub(super) fn give_up() -> io::Result<()> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut sets = read()?;
    for half in &mut sets {
        half.effective = 0;
    }
    // SAFETY: as above; only the calling thread changes.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) })?;
    Ok(())
}

/// Which of these this thread lacks; none where the kernel does not tell.
fn lacking(wanted: &[Right]) -> Vec<Right> {
    let Ok([low, _]) = read() else { return Vec::new() };
    wanted.iter().copied().filter(|right| low.effective & (1 << (*right as u32)) == 0).collect()
}

/// What to do after the kernel refused something that takes these rights: which are missing and where to add them.
pub fn remedy(wanted: &[Right]) -> String {
    in_words(wanted, &lacking(wanted))
}

/// The same of a program that may have been refused for another reason; `None` if nothing is missing.
pub fn remedy_if_lacking(wanted: &[Right]) -> Option<String> {
    let missing = lacking(wanted);
    (!missing.is_empty()).then(|| in_words(wanted, &missing))
}

fn in_words(wanted: &[Right], missing: &[Right]) -> String {
    let list = |rights: &[Right], before: &str, between: &str| {
        let names: Vec<String> = rights.iter().map(|right| format!("{before}{}", right.name())).collect();
        names.join(between)
    };
    if missing.is_empty() {
        let owner = "as root of the user namespace that owns this network namespace";
        let all = list(wanted, "CAP_", ", ");
        return format!(
            "this process has {all}: run it {owner}, or look at the security policy (AppArmor, SELinux, seccomp)"
        );
    }
    let names = list(missing, "CAP_", " and ");
    let docker = list(missing, "--cap-add ", " ");
    let pod = list(missing, "", ", ");
    format!(
        "this process lacks {names}; add it with 'docker run {docker}', in a pod with \
         'securityContext.capabilities.add: [{pod}]', in a unit of systemd to CapabilityBoundingSet"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_where_to_add_it() {
        let both = [Right::NetAdmin, Right::NetRaw];
        assert_eq!(
            in_words(&both, &both),
            "this process lacks CAP_NET_ADMIN and CAP_NET_RAW; add it with 'docker run --cap-add NET_ADMIN --cap-add \
             NET_RAW', in a pod with 'securityContext.capabilities.add: [NET_ADMIN, NET_RAW]', in a unit of systemd to \
             CapabilityBoundingSet"
        );
        assert!(in_words(&both, &[Right::NetRaw]).starts_with("this process lacks CAP_NET_RAW; "));
        assert!(
            in_words(&both, &[]).starts_with("this process has CAP_NET_ADMIN, CAP_NET_RAW: run it as root")
        );
    }

    #[test]
    fn a_thread_without_any_lacks_all() {
        let all = [Right::SetUid, Right::NetAdmin, Right::NetRaw, Right::SysAdmin];
        let missing = std::thread::spawn(move || give_up().map(|()| lacking(&all)));
        assert_eq!(missing.join().unwrap().unwrap(), all);
    }
}
