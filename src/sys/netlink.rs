//! The kernel's netlink sockets, as far as they save a child process: which `nf_tables` tables there are, who
//! listens, and one IPv6 address more or less on an interface.

pub mod answer;
pub mod conntrack;
pub mod dump;
pub mod events;
pub mod link;
mod message;
pub mod names;
pub mod nftables;
pub mod route;
pub mod routing;
pub mod rules;
pub mod ruleset;
pub mod sockets;
pub mod streams;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;

use crate::plan::Family;
use message::{Message, Request};

/// The kernel answers at once; this only keeps us from waiting for an answer that is not one.
const PATIENCE: TimeVal = TimeVal::new(5, 0);

/// The largest batch the kernel puts into one answer is 32 KiB (`netlink_dump` in `net/netlink/af_netlink.c`).
const ANSWER: usize = 64 * 1024;

/// How often a listing is begun again that changed while it was read.
const LISTINGS: usize = 20;

/// The names of the `nf_tables` tables of the family `ip` or `ip6`, those of the `iptables` (nft) tools included.
/// Tables of the family `inet` are not among them. Empty where the kernel has no `nf_tables`.
///
/// # Errors
/// The kernel's; without `CAP_NET_ADMIN` that is "operation not permitted".
pub fn nft_table_names(family: Family) -> io::Result<Vec<String>> {
    table_names(message::number(family))
}

/// The names of the `nf_tables` tables of the family `inet`, which holds rules for both IPv4 and IPv6.
///
/// # Errors
/// As those of [`nft_table_names`].
pub fn nft_inet_table_names() -> io::Result<Vec<String>> {
    table_names(message::NFPROTO_INET)
}

/// The names of all `nf_tables` tables of the families `ip` and `ip6`.
///
/// # Errors
/// As those of [`nft_table_names`].
pub fn nft_tables() -> io::Result<Vec<(Family, String)>> {
    let of = |message: &Message<'_>, family| {
        message::table_name(message, message::number(family)).map(|name| (family, name))
    };
    list(&message::list_tables(0), |message| of(message, Family::V4).or_else(|| of(message, Family::V6)))
}

fn table_names(family: u8) -> io::Result<Vec<String>> {
    list(&message::list_tables(family), |message| message::table_name(message, family))
}

/// The `nf_tables` chains of the family `ip` or `ip6`, each as the names of its table and of itself.
///
/// # Errors
/// As those of [`nft_table_names`].
pub fn nft_chain_names(family: Family) -> io::Result<Vec<(String, String)>> {
    list(&message::list_chains(family), |message| message::chain_name(message, family))
}

/// Whether any rule of this `nf_tables` table of the family `ip` or `ip6` has these bytes somewhere: a comment is
/// in a rule as it is typed. Other tables are not read, which may be long.
///
/// # Errors
/// As those of [`nft_table_names`].
pub fn nft_rules_mention(family: Family, table: &str, bytes: &[u8]) -> io::Result<bool> {
    Ok(!nft_rules_mentioning(family, table, bytes)?.is_empty())
}

/// For each rule of it that has them, in the order of each chain: its chain, and of how many matches and targets a program
/// of iptables prints it at least.
///
/// # Errors
/// As those of [`nft_table_names`].
pub fn nft_rules_mentioning(family: Family, table: &str, bytes: &[u8]) -> io::Result<Vec<(String, usize)>> {
    let holds = |message: &Message<'_>| {
        let mentioned = || message.payload.windows(bytes.len()).any(|window| window == bytes);
        let holds = message::is_rule_of(message, family, table) && mentioned();
        holds.then(|| Some((message::chain_of_rule(message)?, ruleset::extensions_of_rule(message))))?
    };
    list(&message::list_rules_of(family, table), holds)
}

/// The chain of each rule of it, in the order of each chain, and whether the rule has those bytes in it.
///
/// # Errors
/// As those of [`nft_table_names`].
pub fn nft_rules_in_order(family: Family, table: &str, bytes: &[u8]) -> io::Result<Vec<(String, bool)>> {
    let read = |message: &Message<'_>| {
        let chain =
            message::is_rule_of(message, family, table).then(|| message::chain_of_rule(message))??;
        Some((chain, message.payload.windows(bytes.len()).any(|window| window == bytes)))
    };
    list(&message::list_rules_of(family, table), read)
}

/// The names of the `nf_tables` tables of the family `ip` or `ip6` that have a rule with an expression such as the
/// programs of iptables do not write, so that they probably cannot print it either.
///
/// # Errors
/// As those of [`nft_table_names`].
pub fn nft_tables_with_native_rules(family: Family) -> io::Result<BTreeSet<String>> {
    let native = |message: &Message<'_>| ruleset::table_of_native_rule(message);
    Ok(list(&message::list_rules(family), native)?.into_iter().collect())
}

/// Everything that `read` finds in the answer to a request of nfnetlink, begun again when it changed meanwhile.
fn list<T>(request: &Request, read: impl Fn(&Message<'_>) -> Option<T>) -> io::Result<Vec<T>> {
    match (0..LISTINGS).find_map(|_| list_once(request, &read).transpose()) {
        Some(Ok(found)) => Ok(found),
        Some(Err(errno)) if absent(errno) => Ok(Vec::new()),
        Some(Err(errno)) => Err(errno.into()),
        None => Err(io::Error::other("the lists of nf_tables keep changing")),
    }
}

/// What a kernel answers that has no netlink, no nfnetlink or no `nf_tables`; nfnetlink says EINVAL for a subsystem
/// that it does not know.
fn absent(errno: Errno) -> bool {
    use Errno::{EAFNOSUPPORT, EINVAL, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT};
    matches!(errno, EAFNOSUPPORT | EINVAL | ENOENT | EOPNOTSUPP | EPROTONOSUPPORT)
}

/// `None`: the list changed while it was read.
fn list_once<T>(
    request: &Request,
    read: impl Fn(&Message<'_>) -> Option<T>,
) -> Result<Option<Vec<T>>, Errno> {
    let mut found = Some(Vec::new());
    ask(SockProtocol::NetlinkNetFilter, request, |message| {
        if message.interrupted() {
            found = None;
        } else if let Some(found) = &mut found {
            found.extend(read(message));
        }
    })?;
    Ok(found)
}

/// The TCP ports on which sockets of a family listen in the caller's network namespace. Takes microseconds, where
/// `/proc/net/tcp` takes milliseconds to walk the table of connections. `None`: this kernel cannot tell.
///
/// # Errors
/// The kernel's.
pub fn listening_tcp_ports(family: Family) -> io::Result<Option<Vec<u16>>> {
    let mut ports = Vec::new();
    let asked = ask(SockProtocol::NetlinkSockDiag, &message::list_listeners(family), |message| {
        ports.extend(message::listening_port(message));
    });
    match asked {
        Ok(()) => Ok(Some(ports)),
        Err(errno) if absent(errno) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Adds an address to an interface, usable at once (no duplicate address detection). `false`: it was there.
///
/// # Errors
/// The kernel's: no such interface, IPv6 disabled there, not permitted.
pub fn add_address(interface: &str, addr: Ipv6Addr, prefix: u8) -> io::Result<bool> {
    match change_address(message::add_address, interface, addr, prefix) {
        Err(Errno::EEXIST) => Ok(false),
        other => other.map(|()| true).map_err(io::Error::from),
    }
}

/// Removes an address from an interface. `false`: it was not there, or neither was the interface.
///
/// # Errors
/// The kernel's: not permitted.
pub fn remove_address(interface: &str, addr: Ipv6Addr, prefix: u8) -> io::Result<bool> {
    match change_address(message::remove_address, interface, addr, prefix) {
        Err(Errno::EADDRNOTAVAIL | Errno::ENODEV) => Ok(false),
        other => other.map(|()| true).map_err(io::Error::from),
    }
}

fn change_address(
    request: fn(u32, Ipv6Addr, u8) -> Request,
    interface: &str,
    addr: Ipv6Addr,
    prefix: u8,
) -> Result<(), Errno> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    ask(SockProtocol::NetlinkRoute, &request(index, addr, prefix), |_| ())
}

/// Sends a request of this protocol, and hands over every message of the answer until it is complete.
fn ask(protocol: SockProtocol, request: &Request, each: impl FnMut(&Message<'_>)) -> Result<(), Errno> {
    let socket = Socket::open(protocol)?;
    let told = socket.exchange(request, each)?;
    socket.keep();
    told
}

/// A socket of a protocol, of the network namespace that the thread was in when it was made.
struct Socket {
    fd: OwnedFd,
    protocol: SockProtocol,
}

thread_local! {
    static BUFFER: RefCell<[u8; ANSWER]> = const { RefCell::new([0; ANSWER]) };
    /// Sockets that wait for the next question: a run asks some thirty times, and to make one each time takes longer than
    /// most answers. A thread that goes to another network namespace does so before it asks, or calls [`forget`].
    static KEPT: RefCell<Vec<Socket>> = const { RefCell::new(Vec::new()) };
}

/// Closes the sockets that this thread keeps: it goes to another network namespace, is of another process now, or needs the
/// descriptors for programs.
pub(super) fn forget() {
    KEPT.take();
}

/// Lends room for an answer. A run asks some twenty times; this memory is there already, and of it only what an answer
/// fills is ever touched.
fn with_buffer<T>(body: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with(|buffer| match buffer.try_borrow_mut() {
        Ok(mut buffer) => body(&mut buffer[..]),
        // Whoever asks meanwhile has room of its own.
        Err(_) => body(&mut vec![0; ANSWER]),
    })
}

impl Socket {
    /// The one that is kept, or a new one.
    fn open(protocol: SockProtocol) -> Result<Self, Errno> {
        let kept = KEPT.with_borrow_mut(|kept| {
            kept.iter().position(|socket| socket.protocol == protocol).map(|at| kept.swap_remove(at))
        });
        if let Some(socket) = kept {
            return Ok(socket);
        }
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        setsockopt(&fd, ReceiveTimeout, &PATIENCE)?;
        if protocol == SockProtocol::NetlinkNetFilter {
            nftables::say_more(&fd);
        }
        Ok(Self { fd, protocol })
    }

    /// Leaves it to the next question. Only after an answer that was complete: what is left of another one would be
    /// taken for that of the next.
    fn keep(self) {
        KEPT.with_borrow_mut(|kept| kept.push(self));
    }

    /// What the kernel said at the end of the answer.
    ///
    /// # Errors
    /// There was no complete answer, and the socket is of no use any more.
    fn exchange(
        &self,
        request: &Request,
        each: impl FnMut(&Message<'_>),
    ) -> Result<Result<(), Errno>, Errno> {
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.fd.as_raw_fd(), request.bytes(), &kernel, MsgFlags::empty())?;
        with_buffer(|buffer| self.listen(request, buffer, each))
    }

    fn listen(
        &self,
        request: &Request,
        buffer: &mut [u8],
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<Result<(), Errno>, Errno> {
        loop {
            let size = match recv(self.fd.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT),
                other => other?,
            };
            // MSG_TRUNC makes the kernel tell the true size.
            let answer = buffer.get(..size).ok_or(Errno::EMSGSIZE)?;
            for message in message::parse(answer).filter(|message| message.sequence == request.sequence()) {
                match message.end() {
                    Some(said) => return Ok(said.map_err(Errno::from_raw)),
                    None => each(&message),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
