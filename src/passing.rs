//! Which failures pass by themselves: a lack of memory, of processes or of descriptors, and programs that crashed.
//! They say nothing of what a host can do, so nothing is left out and no other backend is taken because of them.

/// A failure that may be gone in a moment, so that trying again is worth it.
pub trait Passing {
    /// Whether this is one.
    fn is_passing(&self) -> bool;
}

impl Passing for std::io::Error {
    fn is_passing(&self) -> bool {
        self.raw_os_error().is_some_and(is_passing_errno)
    }
}

/// Of a system call: the kernel had no memory, no process, no descriptor or no time for it.
pub fn is_passing_errno(errno: i32) -> bool {
    is_passing_answer(errno) || matches!(errno, libc::EMFILE | libc::ENFILE | libc::ETIMEDOUT | libc::ETXTBSY)
}

/// The same of what the kernel answers to a message. There `ENFILE` says that a set is full, which it stays.
pub fn is_passing_answer(errno: i32) -> bool {
    matches!(errno, libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN | libc::EINTR)
}

/// What programs, their libraries and the dynamic linker print of these reasons, in lower case. `iptc_strerror` of
/// libiptc and `nft_strerror` of the nft variant have words of their own for `ENOMEM`, the rest is `strerror`'s; the
/// linker has numbers where it cannot load the words.
const WORDS: [&str; 12] = [
    "memory allocation problem",
    "cannot allocate memory",
    "can't alloc memory",
    "can't allocate memory",
    "out of memory",
    "memory exhausted",
    "no buffer space available",
    "resource temporarily unavailable",
    "too many open files",
    "interrupted system call",
    "failed to map segment from shared object",
    "cannot create shared object descriptor",
];

/// Whether a program that failed says that it was for one of these reasons.
pub fn says_so(words: &str) -> bool {
    let words = words.to_lowercase();
    WORDS.iter().any(|reason| words.contains(reason)) || words.lines().any(linker_says_so)
}

/// Whether the linker could not load something for want of it: `…shared object file: Error 24`, with the number of
/// `EAGAIN`, `ENOMEM`, `ENFILE` or `EMFILE`.
fn linker_says_so(line: &str) -> bool {
    let number = line.trim_end().rsplit_once("shared object file: error ").map(|(_, number)| number);
    number.is_some_and(|number| matches!(number, "11" | "12" | "23" | "24"))
}

/// Whether a child that ended so was ended by a signal, or says that a child of its own was: a shell adds 128 to the
/// number of the signal.
pub fn is_crash(code: Option<i32>, signal: Option<i32>) -> bool {
    /// The last real-time signal.
    const MOST: i32 = 64;
    signal.is_some() || code.is_some_and(|code| (129..=128 + MOST).contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by iptables 1.8.2 to 1.8.13 of both variants, by their libraries, by the linker and by shells.
    #[test]
    fn what_passes_by_itself_is_told_from_what_a_host_cannot_do() {
        for passing in [
            "iptables-nft-restore v1.8.9 (nf_tables): Could not fetch rule set generation id: Memory allocation problem",
            "iptables-restore v1.8.2 (nf_tables): Could not fetch rule set generation id: Resource temporarily unavailable",
            "iptables-nft-restore v1.8.9 (nf_tables): line 2: RULE_APPEND failed (Cannot allocate memory): rule in chain OUTPUT",
            "iptables-restore v1.8.11 (nf_tables): \nline 4: TABLE_ADD failed (No buffer space available): table raw",
            "iptables-restore: line 7 failed: Memory allocation problem.",
            "iptables-legacy-restore: line 12 failed: Resource temporarily unavailable.",
            "iptables-restore v1.8.7 (legacy): can't initialize iptables table `nat': Memory allocation problem",
            "ip6tables-nft-restore: Failed to initialize nft: Too many open files in system",
            "iptables-restore: Failed to initialize nft: Too many open files",
            "iptables: can't alloc memory!",
            "Can't alloc memory",
            "xtables_malloc: Cannot allocate memory",
            "iptables-restore: out of memory",
            "sh: 1: Cannot fork: Resource temporarily unavailable",
            "iptables-restore: error while loading shared libraries: libmnl.so.0: cannot open shared object file: Error 24",
            "iptables-restore: error while loading shared libraries: libxtables.so.12: failed to map segment from shared object",
            "/usr/lib/xtables/libxt_comment.so: failed to map segment from shared object\nCouldn't load match `comment':No such file or directory",
            "sendmsg() failed: No buffer space available",
        ] {
            assert!(says_so(passing), "{passing}");
        }
        for lasting in [
            "",
            "iptables-restore: line 7 failed",
            "iptables-nft-restore v1.8.9 (nf_tables): line 2: RULE_APPEND failed (Operation not supported): rule in chain OUTPUT",
            "iptables-nft-restore v1.8.9 (nf_tables): line 2: RULE_APPEND failed (No such file or directory): rule in chain OUTPUT",
            "iptables-restore v1.8.9 (legacy): can't initialize iptables table `nat': Table does not exist (do you need to insmod?)",
            "iptables-restore v1.8.9 (legacy): iptables-restore: unable to initialize table 'raw'",
            "iptables-restore v1.8.9 (legacy): Couldn't load match `owner':No such file or directory",
            "iptables v1.8.4 (nf_tables): Could not fetch rule set generation id: Permission denied (you must be root)",
            "iptables v1.8.7 (nf_tables): Could not fetch rule set generation id: Invalid argument",
            "iptables-restore: Failed to initialize nft: Protocol not supported",
            "iptables-restore: error while loading shared libraries: libmnl.so.0: cannot open shared object file: No such file or directory",
            "line 5: CHAIN_DEL failed (Device or resource busy): chain KUMA_MESH_INBOUND",
            "something else failed: Error 12",
        ] {
            assert!(!says_so(lasting), "{lasting}");
        }
    }

    #[test]
    fn an_end_by_a_signal_is_a_crash_also_behind_a_shell() {
        for (code, signal, crash) in [
            (None, Some(9), true),
            (None, Some(6), true),
            (Some(134), None, true),
            (Some(137), None, true),
            (Some(128), None, false),
            (Some(127), None, false),
            (Some(255), None, false),
            (Some(4), None, false),
            (Some(0), None, false),
        ] {
            assert_eq!(is_crash(code, signal), crash, "{code:?} {signal:?}");
        }
    }

    #[test]
    fn a_full_set_stays_full() {
        for errno in [libc::ENOMEM, libc::ENOBUFS, libc::EAGAIN, libc::EINTR] {
            assert!(is_passing_errno(errno) && is_passing_answer(errno));
        }
        assert!(is_passing_errno(libc::ENFILE) && !is_passing_answer(libc::ENFILE));
        for errno in [libc::EPERM, libc::ENOENT, libc::EOPNOTSUPP, libc::EACCES, libc::ENODEV] {
            assert!(!is_passing_errno(errno));
        }
    }
}
