//! The door to `nf_tables`: questions, and transactions of any size. What the messages say is the caller's business.
//!
//! A transaction is one datagram: a first message with the generation that it is meant for, the changes, and a last
//! message. The kernel works through it before `sendto` returns, so all that it has to say is there to be read then.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, NetlinkAddr, SockProtocol, recv, sendto, setsockopt, sockopt};

pub use super::answer::Refusal;
use super::answer::{Answer, GENERIC, SUBSYSTEM, Verdict};
use super::message::{HEADER, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use super::{LISTINGS, Socket, with_buffer};
use crate::attribute::{Attributes, find_u32};
use crate::backend::nftables::wire::Message;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_BATCH_GENID`
const BATCH_GENERATION: u16 = 1;
const GET_GENERATION: u16 = 16;
/// `NFTA_GEN_ID`
const GENERATION_ID: u16 = 1;

/// Room for the errors of a few thousand messages.
const ERRORS: usize = 1 << 20;

/// A socket to `nf_tables` of the network namespace in which it was opened.
///
/// Closing any such socket after a transaction that deleted something waits until the kernel is done with deleting,
/// several milliseconds. So it is left to the next question.
pub struct Door {
    socket: Option<Socket>,
    sequence: u32,
    /// Whether something that was said may not have been heard.
    deaf: bool,
}

impl Door {
    /// Opens it.
    ///
    /// # Errors
    /// The kernel's: [`Errno::EPROTONOSUPPORT`] where it has no netfilter.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
        Ok(Self { socket: Some(socket), sequence: 0, deaf: false })
    }

    /// Closes it. A table whose owner it is goes with it.
    pub fn close(mut self) {
        self.socket = None;
    }

    /// The number of the last transaction that anybody made in this network namespace.
    ///
    /// # Errors
    /// The kernel's: [`Errno::EPERM`] without the right to administer it, [`Errno::EINVAL`] where it has no
    /// `nf_tables`.
    pub fn generation(&mut self) -> io::Result<u32> {
        let answer = self.ask(&Message { kind: GET_GENERATION, ..Message::default() })?;
        let generation = answer.iter().find_map(|message| find_u32(&message.body, GENERATION_ID));
        generation.ok_or_else(|| Errno::EBADMSG.into())
    }

    /// Asks for one thing.
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::NotFound`] where it is not there.
    pub fn ask(&mut self, question: &Message) -> io::Result<Vec<Message>> {
        Ok(self.exchange(question, NLM_F_ACK)?.0)
    }

    /// Asks for a list, again while it changes as it is made.
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::NotFound`] where there is nothing that could have such a list.
    pub fn dump(&mut self, question: &Message) -> io::Result<Vec<Message>> {
        for _ in 0..LISTINGS {
            if let (list, false) = self.exchange(question, NLM_F_DUMP)? {
                return Ok(list);
            }
        }
        Err(io::Error::other("the lists of nf_tables keep changing"))
    }

    /// The answer, and whether it changed while it was made.
    fn exchange(&mut self, question: &Message, flags: u16) -> Result<(Vec<Message>, bool), Errno> {
        let sequence = self.next(1);
        let mut bytes = Vec::new();
        let kind = SUBSYSTEM << 8 | question.kind;
        write(&mut bytes, kind, question.flags | flags, sequence, [question.family, 0, 0, 0], &question.body);
        self.send(&bytes)?;
        // Unless it ends, there may be more.
        let deaf = std::mem::replace(&mut self.deaf, true);
        with_buffer(|buffer| {
            let mut answer = Answer::to(sequence);
            loop {
                let size = self.receive(buffer, MsgFlags::empty())?;
                let told = answer.take(buffer.get(..size).ok_or(Errno::EMSGSIZE)?);
                if told != Ok(false) {
                    self.deaf = deaf;
                }
                if told? {
                    return Ok((answer.messages, answer.interrupted));
                }
            }
        })
    }

    /// Makes all these changes, or none of them.
    ///
    /// # Errors
    /// Why none was made.
    pub fn commit(&mut self, changes: &[Message], generation: u32) -> Result<(), Refusal> {
        if changes.is_empty() {
            return Ok(());
        }
        let first = self.next(changes.len() + 2);
        let bytes = batch(changes, generation, first);
        self.make_room(bytes.len());
        self.send(&bytes)?;
        drop(bytes);
        let verdict = with_buffer(|buffer| self.verdict(Verdict::on(changes.len(), first), buffer));
        self.deaf |= verdict.is_err();
        verdict
    }

    /// What the kernel has said.
    fn verdict(&self, mut verdict: Verdict, buffer: &mut [u8]) -> Result<(), Refusal> {
        loop {
            let size = match self.receive(buffer, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::ETIMEDOUT) => break,
                // Errors were lost for want of room; at least one was not.
                Err(Errno::ENOBUFS) => continue,
                other => other.map_err(|errno| Refusal::Io(errno.into()))?,
            };
            let datagram = buffer.get(..size).ok_or_else(|| Refusal::Io(io::Error::from(Errno::EMSGSIZE)))?;
            verdict.take(datagram)?;
        }
        if verdict.done {
            Ok(())
        } else {
            Err(Refusal::Io(io::Error::other("the kernel did not confirm the change")))
        }
    }

    /// The first of that many numbers that were not used yet.
    fn next(&mut self, count: usize) -> u32 {
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(u32::try_from(count).unwrap_or(u32::MAX));
        first
    }

    fn make_room(&self, size: usize) {
        // Without the right to more there is what an ordinary socket may have; sending tells whether that is enough.
        let Some(socket) = &self.socket else { return };
        let _ = setsockopt(&socket.fd, sockopt::SndBufForce, &size)
            .or_else(|_| setsockopt(&socket.fd, sockopt::SndBuf, &size));
        let _ = setsockopt(&socket.fd, sockopt::RcvBufForce, &ERRORS)
            .or_else(|_| setsockopt(&socket.fd, sockopt::RcvBuf, &ERRORS));
    }

    fn fd(&self) -> Result<RawFd, Errno> {
        self.socket.as_ref().map(|socket| socket.fd.as_raw_fd()).ok_or(Errno::EBADF)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.fd()?, bytes, &kernel, MsgFlags::empty()).map(drop)
    }

    /// How long the next datagram is, which may be more than there was room for.
    fn receive(&self, buffer: &mut [u8], flags: MsgFlags) -> Result<usize, Errno> {
        loop {
            match recv(self.fd()?, buffer, flags | MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT),
                other => return other,
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take().filter(|_| !self.deaf) {
            socket.keep();
        }
    }
}

/// Has a socket's answers say as much as they can; without it they only say less.
#[allow(unsafe_code, reason = "nix knows no options of netlink sockets")]
pub(super) fn say_more(fd: &OwnedFd) {
    let on: libc::c_int = 1;
    let Ok(size) = libc::socklen_t::try_from(size_of_val(&on)) else { return };
    for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK] {
        // SAFETY: the pointer is to an integer of that size, which the kernel reads during the call alone.
        unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), size) };
    }
}

/// The datagram of a transaction. Only the last change is acknowledged: the kernel does so when all is done.
fn batch(changes: &[Message], generation: u32, first: u32) -> Vec<u8> {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    let generic = [0, 0, high, low];
    let size: usize = changes.iter().map(|change| HEADER + GENERIC + change.body.len() + 3).sum();
    let mut bytes = Vec::with_capacity(size + 64);
    let guard: Vec<u8> = Attributes::new().number(BATCH_GENERATION, generation).into();
    let mut sequence = first;
    write(&mut bytes, BATCH_BEGIN, 0, sequence, generic, &guard);
    for (place, change) in changes.iter().enumerate() {
        sequence = sequence.wrapping_add(1);
        let flags = if place + 1 == changes.len() { change.flags | NLM_F_ACK } else { change.flags };
        let kind = SUBSYSTEM << 8 | change.kind;
        write(&mut bytes, kind, flags, sequence, [change.family, 0, 0, 0], &change.body);
    }
    write(&mut bytes, BATCH_END, 0, sequence.wrapping_add(1), generic, &[]);
    bytes
}

fn write(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, generic: [u8; GENERIC], body: &[u8]) {
    let length = u32::try_from(HEADER + GENERIC + body.len()).unwrap_or(u32::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(generic);
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}
