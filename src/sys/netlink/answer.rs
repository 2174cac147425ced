//! What the datagrams of `nf_tables` say: the answer to a question, and the verdict on a transaction. No socket is
//! needed for it, and what is read may be any bytes at all.

use std::io;

use nix::errno::Errno;

use super::message::{self, HEADER, NLMSG_ERROR};
use crate::attribute::{find_text, find_u32};
use crate::backend::nftables::wire::Message;

/// `NFNL_SUBSYS_NFTABLES`, the upper byte of every message's kind.
pub(super) const SUBSYSTEM: u16 = 10;
/// `struct nfgenmsg`
pub(super) const GENERIC: usize = 4;

/// An error's code, and behind it the header of the message that it is about, unless the kernel says more.
const ERROR_ATTRIBUTES: usize = 4 + HEADER;
/// `NLM_F_ACK_TLVS`
const HAS_ATTRIBUTES: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`, `NLMSGERR_ATTR_OFFS`
const ERROR_WORDS: u16 = 1;
const ERROR_OFFSET: u16 = 2;

/// Why a transaction did not happen. Nothing of it did.
#[derive(Debug)]
pub enum Refusal {
    /// There is another generation than the one that it was meant for: somebody changed something.
    Changed,
    /// It is more than this socket can send at once. Without the right to more that is twice the setting
    /// `net.core.wmem_max`.
    TooBig,
    /// The kernel had no memory to take it.
    NoMemory,
    /// The right to administer this network namespace is lacking.
    Denied,
    /// The kernel does not accept a message.
    Refused {
        /// Which, of those given; `None`: all of them together.
        message: Option<usize>,
        /// Why.
        errno: i32,
        /// Why, in the kernel's words.
        words: Option<String>,
        /// The attribute at fault, as its place in the message's body.
        offset: Option<usize>,
    },
    /// There was no answer, or none that makes sense.
    Io(io::Error),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EMSGSIZE => Self::TooBig,
            Errno::ENOBUFS | Errno::ENOMEM => Self::NoMemory,
            Errno::EPERM => Self::Denied,
            _ => Self::Io(errno.into()),
        }
    }
}

/// The answer to one question, datagram by datagram.
#[derive(Debug)]
pub struct Answer {
    sequence: u32,
    /// What was told so far.
    pub messages: Vec<Message>,
    /// Whether it changed while it was told.
    pub interrupted: bool,
}

impl Answer {
    /// To the question of this number; nothing is told yet.
    pub fn to(sequence: u32) -> Self {
        Self { sequence, messages: Vec::new(), interrupted: false }
    }

    /// Takes a datagram. `true`: that was all.
    ///
    /// # Errors
    /// The kernel's, instead of an answer.
    pub fn take(&mut self, datagram: &[u8]) -> Result<bool, Errno> {
        for message in message::parse(datagram).filter(|message| message.sequence == self.sequence) {
            self.interrupted |= message.interrupted();
            match message.end() {
                Some(Ok(())) => return Ok(true),
                Some(Err(errno)) => return Err(Errno::from_raw(errno)),
                None => self.messages.extend(read(&message)),
            }
        }
        Ok(false)
    }
}

/// What the kernel says to a transaction, datagram by datagram.
#[derive(Debug)]
pub struct Verdict {
    first: u32,
    last: usize,
    /// Whether it said yes.
    pub done: bool,
}

impl Verdict {
    /// On a transaction of this many changes and at least one, whose own first message has this number.
    pub fn on(changes: usize, first: u32) -> Self {
        Self { first, last: changes.saturating_sub(1), done: false }
    }

    /// Takes a datagram.
    ///
    /// # Errors
    /// Why the transaction did not happen.
    pub fn take(&mut self, datagram: &[u8]) -> Result<(), Refusal> {
        for message in message::parse(datagram) {
            let place = usize::try_from(message.sequence.wrapping_sub(self.first)).unwrap_or(usize::MAX);
            match message.end() {
                Some(Err(errno)) if place <= self.last + 1 => {
                    return Err(refusal(&message, place.checked_sub(1), errno));
                }
                Some(Ok(())) if place == self.last + 1 => self.done = true,
                _ => {}
            }
        }
        Ok(())
    }
}

fn read(message: &message::Message<'_>) -> Option<Message> {
    let [kind, subsystem] = message.kind.to_le_bytes();
    let (family, body) = (*message.payload.first()?, message.payload.get(GENERIC..)?);
    (u16::from(subsystem) == SUBSYSTEM).then(|| Message {
        kind: kind.into(),
        flags: message.flags,
        family,
        body: body.to_vec(),
    })
}

fn refusal(message: &message::Message<'_>, place: Option<usize>, errno: i32) -> Refusal {
    let said = match message.payload.get(ERROR_ATTRIBUTES..) {
        Some(said) if message.kind == NLMSG_ERROR && message.flags & HAS_ATTRIBUTES != 0 => said,
        _ => &[],
    };
    match (place, errno) {
        (None, libc::ERESTART) => Refusal::Changed,
        (None, libc::EPERM) => Refusal::Denied,
        _ => {
            // The kernel's numbers for itself are in the machine's byte order.
            let offset = find_u32(said, ERROR_OFFSET).map(u32::to_be).and_then(|at| usize::try_from(at).ok());
            Refusal::Refused {
                message: place,
                errno,
                words: find_text(said, ERROR_WORDS),
                offset: offset.and_then(|at| at.checked_sub(HEADER + GENERIC)),
            }
        }
    }
}
