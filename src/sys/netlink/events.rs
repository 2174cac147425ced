//! What changes `nf_tables`, told by the kernel as it happens: the multicast group of its notifications. Each
//! transaction is a run of messages, one for each object, and ends with the new generation and who made it.
//!
//! Numbers are those of the kernel's `include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
    sockopt,
};

use super::message::{self, Message, attributes};
use super::{ANSWER, absent};
use crate::sys::signal::{self, Interrupted, Wait};

/// `NFNLGRP_NFTABLES` is group 7; the address takes a bit for each group.
const GROUP: u32 = 1 << 6;
/// Room for the notifications of a very large transaction, in bytes.
const ROOM: usize = 8 << 20;
const SUBSYSTEM: u16 = 10;
const NEWGEN: u16 = 15;
/// `struct nfgenmsg`.
const HEADER: usize = 4;

/// A committed transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transaction {
    /// Whose, numbered as in the first PID namespace.
    pub pid: Option<u32>,
    /// The name of that process's program, cut off after 15 bytes.
    pub program: Option<String>,
    /// What it did, object by object.
    pub changes: Vec<Change>,
    /// The kernel had more to tell than we had room for.
    pub lost: bool,
}

impl Transaction {
    /// Takes a datagram, whatever is in it: this one goes on, or is done and the next one begins.
    pub fn take(&mut self, datagram: &[u8], done: &mut Vec<Self>) {
        for message in message::parse(datagram) {
            read(&message, self, done);
        }
    }
}

/// One object of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Added, or removed.
    pub added: bool,
    /// What it is.
    pub object: Object,
    /// The table's family as the kernel numbers it: 1 both, 2 IPv4, 10 IPv6, others.
    pub family: u8,
    /// Its table.
    pub table: String,
    /// Its chain, of a rule; itself, of a chain.
    pub chain: Option<String>,
    /// The whole message, in which a rule's comment and the chains it leads to stand as they are.
    pub bytes: Vec<u8>,
}

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// A table.
    Table,
    /// A chain.
    Chain,
    /// A rule.
    Rule,
    /// A set, its elements, a counter and so on.
    Other,
}

/// The notifications of this network namespace.
pub struct Events {
    socket: OwnedFd,
    buffer: Vec<u8>,
    pending: Transaction,
}

impl Events {
    /// From now on. `None` where the kernel has no `nf_tables`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Option<Self>> {
        match Self::subscribe() {
            Ok(events) => Ok(Some(events)),
            Err(errno) if absent(errno) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn subscribe() -> Result<Self, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
        // Without the right to more there is less room, and what does not fit is told of as lost.
        if setsockopt(&socket, sockopt::RcvBufForce, &ROOM).is_err() {
            let _ = setsockopt(&socket, sockopt::RcvBuf, &ROOM);
        }
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
        Ok(Self { socket, buffer: vec![0; ANSWER], pending: Transaction::default() })
    }

    /// Waits for at most so long; the transactions that arrived, none if none did.
    ///
    /// # Errors
    /// A signal arrived, or the wait itself failed.
    pub fn wait(&mut self, time: Duration) -> Result<Vec<Transaction>, Stopped> {
        match signal::wait(Some(self.socket.as_fd()), time) {
            Ok(true) => {}
            Ok(false) => return Ok(Vec::new()),
            Err(Wait::Interrupted(interrupted)) => return Err(Stopped::Interrupted(interrupted)),
            Err(Wait::Io(error)) => return Err(Stopped::Io(error)),
        }
        let mut done = Vec::new();
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Ok(size) => match self.buffer.get(..size) {
                    Some(datagram) => self.pending.take(datagram, &mut done),
                    None => self.pending.lost = true,
                },
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(Errno::ENOBUFS) => {
                    done.push(Transaction { lost: true, ..std::mem::take(&mut self.pending) });
                }
                Err(errno) => return Err(Stopped::Io(errno.into())),
            }
        }
        Ok(done)
    }
}

/// Why a wait ended without an answer.
#[derive(Debug)]
pub enum Stopped {
    /// A signal arrived.
    Interrupted(Interrupted),
    /// The wait failed.
    Io(io::Error),
}

/// Adds a message to the transaction under way, or ends it.
fn read(message: &Message<'_>, pending: &mut Transaction, done: &mut Vec<Transaction>) {
    if message.kind >> 8 != SUBSYSTEM {
        return;
    }
    let Some(body) = message.payload.get(HEADER..) else { return };
    let find = |kind: u16| attributes(body).find(|(of, _)| *of == kind).map(|(_, value)| value);
    let kind = message.kind & 0xff;
    if kind == NEWGEN {
        let number = |value: &[u8]| value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        let mut transaction = std::mem::take(pending);
        transaction.pid = find(2).and_then(number);
        transaction.program = find(3).map(text);
        done.push(transaction);
        return;
    }
    let (object, added) = match kind {
        0 => (Object::Table, true),
        2 => (Object::Table, false),
        3 => (Object::Chain, true),
        5 => (Object::Chain, false),
        6 => (Object::Rule, true),
        8 => (Object::Rule, false),
        9 | 12 | 18 | 22 => (Object::Other, true),
        11 | 14 | 20 | 24 => (Object::Other, false),
        _ => return,
    };
    let chain = match object {
        Object::Chain => find(3),
        Object::Rule => find(2),
        Object::Table | Object::Other => None,
    };
    pending.changes.push(Change {
        added,
        object,
        family: message.payload.first().copied().unwrap_or_default(),
        table: find(1).map(text).unwrap_or_default(),
        chain: chain.map(text),
        bytes: body.to_vec(),
    });
}

fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sys::netns::testing::apart;
    use crate::sys::run::{Command, run};

    #[test]
    fn a_transaction_is_told_with_who_made_it() {
        let done = apart(|| {
            let mut events = Events::open().unwrap().expect("nf_tables");
            assert_eq!(events.wait(Duration::ZERO).unwrap(), []);
            let nft = |script: &str| {
                let command = Command::new("nft", ["-f", "-"], Duration::from_secs(20));
                assert!(run(&Command { stdin: script.into(), ..command }).unwrap().success());
            };
            nft("add table ip t\nadd chain ip t c\nadd rule ip t c tcp dport 1 accept comment \"hello\"\n");
            nft("flush ruleset\n");
            let mut done = Vec::new();
            while done.len() < 2 {
                done.extend(events.wait(Duration::from_secs(20)).unwrap());
            }
            done
        });
        let Some(done) = done else { return };
        assert_eq!(done.len(), 2, "{done:?}");
        for transaction in &done {
            assert_eq!(transaction.program.as_deref(), Some("nft"));
            assert!(transaction.pid.is_some() && !transaction.lost);
        }
        let objects = |nth: usize| -> Vec<_> {
            done[nth]
                .changes
                .iter()
                .map(|c| (c.added, c.object, c.table.as_str(), c.chain.as_deref()))
                .collect()
        };
        assert_eq!(
            objects(0),
            [
                (true, Object::Table, "t", None),
                (true, Object::Chain, "t", Some("c")),
                (true, Object::Rule, "t", Some("c"))
            ]
        );
        assert!(objects(1).contains(&(false, Object::Rule, "t", Some("c"))), "{:?}", objects(1));
        let comment = |c: &Change| c.bytes.windows(5).any(|part| part == b"hello");
        assert!(done[0].changes.iter().any(comment));
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200), low in 0u16..30) {
            let message = Message { kind: SUBSYSTEM << 8 | low, payload: &bytes, ..Message::default() };
            read(&message, &mut Transaction::default(), &mut Vec::new());
        }
    }
}
