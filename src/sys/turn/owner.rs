//! Whose a taken name is, and so how long it is waited for.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, setsockopt, socket, sockopt};

use crate::sys::netlink::names::{self, Named};

/// The receive buffer of a run's socket. Nothing is ever received there. More than `net.core.rmem_max` can be asked for
/// by `SO_RCVBUFFORCE` alone, which needs `CAP_NET_ADMIN` in the initial user namespace, and the kernel shows it to
/// everybody: it is proof that a process made the socket that may change the firewall. The kernel limits it to this.
const PROOF: usize = (i32::MAX / 2) as usize;

/// How often the kernel is asked before a socket that is connected is believed to have the name: a list may miss
/// the one that listens.
const LOOKS: usize = 3;

/// Whose a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nobody's any more.
    Nobody,
    /// Another user's, who is not root of this user namespace.
    Stranger(u32),
    /// Of a process of root's (the socket with this inode) that may change the firewall: a run of ours.
    Proven(u32),
    /// Of a process of root's that does not prove it. In a user namespace nobody can.
    Unproven(u32),
    /// The kernel does not tell.
    Unknown,
}

/// A stream socket that proves what this process may, if it may.
pub(super) fn socket_with_proof() -> io::Result<OwnedFd> {
    let socket = stream()?;
    if let Err(errno) = setsockopt(&socket, sockopt::RcvBufForce, &PROOF) {
        tracing::debug!("other runs will not wait long for this one: SO_RCVBUFFORCE: {errno}");
    }
    Ok(socket)
}

pub(super) fn stream() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Unix, SockType::Stream, flags, None)?)
}

/// Whether root of this user namespace, or the user of this process, is not to be waited for as a stranger.
pub(super) fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// Asks the kernel whose the name is.
pub(super) fn owner(name: &[u8]) -> Owner {
    let mut owner = None;
    for _ in 0..LOOKS {
        let found = match names::named(name) {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!("who has the name '{}': {error}", name.escape_ascii());
                return Owner::Unknown;
            }
        };
        let seen = judge(&found, most_without_proof());
        // Of several looks, the one counts that makes this process wait.
        owner = owner.filter(|_| matches!(seen, Owner::Stranger(_))).or(Some(seen));
        // One that is not connected has bound the name for certain.
        if found.iter().any(|socket| !socket.connected) {
            break;
        }
    }
    owner.unwrap_or(Owner::Nobody)
}

/// `without_proof` is the largest receive buffer that any process can give its socket.
fn judge(found: &[Named], without_proof: u32) -> Owner {
    let bound = found.iter().find(|socket| !socket.connected);
    let of = |socket: &Named| match socket.uid {
        Some(uid) if !is_trusted(uid) => Owner::Stranger(uid),
        _ if !socket.connected && socket.receive_buffer > without_proof => Owner::Proven(socket.inode),
        Some(_) => Owner::Unproven(socket.inode),
        None => Owner::Unknown,
    };
    match (bound, found) {
        (Some(socket), _) => of(socket),
        (None, []) => Owner::Nobody,
        // One of them has bound the name; a run's socket is never connected. One of root's may be it.
        (None, [first, rest @ ..]) => rest.iter().map(of).fold(of(first), |owner, other| match owner {
            Owner::Stranger(_) => other,
            _ => owner,
        }),
    }
}

/// What `SO_RCVBUF` gives at most.
fn most_without_proof() -> u32 {
    let most = || -> io::Result<usize> {
        let probe = stream()?;
        setsockopt(&probe, sockopt::RcvBuf, &PROOF)?;
        Ok(getsockopt(&probe.as_fd(), sockopt::RcvBuf)?)
    };
    // Where that fails, nothing counts as proof.
    most().ok().and_then(|bytes| bytes.try_into().ok()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRANGER: u32 = 5700;

    fn socket(connected: bool, uid: Option<u32>, receive_buffer: u32) -> Named {
        Named { connected, uid, inode: 7, receive_buffer }
    }

    #[test]
    fn root_with_proof_is_a_run_and_nobody_else() {
        let judge = |sockets: &[Named]| judge(sockets, 1000);
        assert_eq!(judge(&[]), Owner::Nobody);
        assert_eq!(judge(&[socket(false, Some(0), 1001)]), Owner::Proven(7));
        assert_eq!(judge(&[socket(false, Some(0), 1000)]), Owner::Unproven(7));
        // A large buffer is no proof of a stranger's, and none of a socket that is connected.
        assert_eq!(judge(&[socket(false, Some(STRANGER), 1001)]), Owner::Stranger(STRANGER));
        assert_eq!(judge(&[socket(true, Some(0), 1001)]), Owner::Unproven(7));
        // Kernels before 5.3.
        assert_eq!(judge(&[socket(false, None, 1001)]), Owner::Proven(7));
        assert_eq!(judge(&[socket(false, None, 1000)]), Owner::Unknown);
    }

    #[test]
    fn the_one_that_bound_the_name_counts() {
        let judge = |sockets: &[Named]| judge(sockets, 1000);
        let accepted = socket(true, Some(STRANGER), 1);
        assert_eq!(judge(&[accepted, socket(false, Some(0), 1001)]), Owner::Proven(7));
        assert_eq!(judge(&[accepted, accepted]), Owner::Stranger(STRANGER));
        for sockets in [[accepted, socket(true, Some(0), 1)], [socket(true, Some(0), 1), accepted]] {
            assert_eq!(judge(&sockets), Owner::Unproven(7));
        }
    }

    #[test]
    fn root_alone_can_prove_it() {
        let read = |socket: &OwnedFd| getsockopt(&socket.as_fd(), sockopt::RcvBuf).unwrap();
        let most = usize::try_from(most_without_proof()).unwrap();
        assert!(most >= read(&stream().unwrap()));
        let proof = read(&socket_with_proof().unwrap());
        assert!(proof <= most || nix::unistd::geteuid().is_root());
    }
}
