//! Who has an abstract Unix address: asked of the kernel, without a connection to the socket that has it.
//!
//! Layouts are those of the kernel's `include/uapi/linux/unix_diag.h`.

use std::io;

use nix::sys::socket::SockProtocol;

use super::message::{Message, NLM_F_DUMP, Request, attributes, u32_at};
use super::{absent, ask};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_UNIX: u8 = 1;
/// `struct unix_diag_req`: family, protocol, padding, states, inode, what to show, cookie.
const REQUEST: usize = 24;
const SHOW_NAME: u32 = 0x1;
const SHOW_MEMORY: u32 = 0x20;
const SHOW_UID: u32 = 0x40;

/// `struct unix_diag_msg`: family, type, state, padding, inode, cookie.
const ANSWER: usize = 16;
const INODE: usize = 4;
const NAME: u16 = 0;
const MEMORY: u16 = 5;
const UID: u16 = 7;
/// The second number of `SK_MEMINFO_*`, in the kernel's `include/uapi/linux/sock_diag.h`.
const RECEIVE_BUFFER: usize = 4;

const STREAM: u8 = 1;
const TCP_ESTABLISHED: u8 = 1;

/// A stream socket that bears the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// Whether it is connected. Such a socket may have bound the name, or have it from the listener that accepted it,
    /// which need not exist any more. A socket that is not connected has bound it.
    pub connected: bool,
    /// The user who made it, in the caller's user namespace; the kernel's overflow UID if it has no number there.
    /// `None` before Linux 5.3.
    pub uid: Option<u32>,
    /// Its number, by which `/proc/PID/fd` names it.
    pub inode: u32,
    /// The limit of its receive buffer in bytes, as `SO_RCVBUF` reads it.
    pub receive_buffer: u32,
}

/// The stream sockets that bear an abstract name (without the zero byte before it) in the calling thread's network
/// namespace. Sockets of other types have names of their own. A list of sockets that come and go meanwhile may miss
/// some.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::Unsupported`] where it cannot tell.
pub fn named(name: &[u8]) -> io::Result<Vec<Named>> {
    let mut header = vec![AF_UNIX, 0, 0, 0];
    for word in [u32::MAX, 0, SHOW_NAME | SHOW_MEMORY | SHOW_UID, u32::MAX, u32::MAX] {
        header.extend(word.to_ne_bytes());
    }
    debug_assert_eq!(header.len(), REQUEST);
    let request = Request::new(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &header, &[]);
    let mut found = Vec::new();
    let asked = ask(SockProtocol::NetlinkSockDiag, &request, |message| found.extend(read(message, name)));
    match asked {
        Ok(()) => Ok(found),
        Err(errno) if absent(errno) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel does not tell of Unix sockets"))
        }
        Err(errno) => Err(errno.into()),
    }
}

fn read(message: &Message<'_>, wanted: &[u8]) -> Option<Named> {
    let bytes = message.payload;
    let [_, STREAM, state, ..] = bytes else { return None };
    if message.kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let attributes = || bytes.get(ANSWER..).map(attributes).into_iter().flatten();
    let attribute = |wanted| attributes().find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    if attribute(NAME)?.strip_prefix(&[0])? != wanted {
        return None;
    }
    Some(Named {
        connected: *state == TCP_ESTABLISHED,
        uid: attribute(UID).and_then(|value| u32_at(value, 0)),
        inode: u32_at(bytes, INODE)?,
        receive_buffer: attribute(MEMORY).and_then(|value| u32_at(value, RECEIVE_BUFFER)).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

    use proptest::prelude::*;

    use super::super::message::nest;
    use super::*;

    #[test]
    fn who_has_a_name_is_told() {
        let name = format!("tproxy names {}", std::process::id());
        let address = |name: &str| SocketAddr::from_abstract_name(name).unwrap();
        let listener = UnixListener::bind_addr(&address(&name)).unwrap();
        let others = ["", "x"].map(|more| address(&format!("{name}{more}")));
        let _datagrams = UnixDatagram::bind_addr(&others[0]).unwrap();
        let _longer = UnixListener::bind_addr(&others[1]).unwrap();
        let found = match named(name.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return,
            found => found.unwrap(),
        };
        let [one] = found.as_slice() else { panic!("{found:?}") };
        assert!(!one.connected && one.inode > 0 && one.receive_buffer > 0, "{one:?}");
        assert!(one.uid.is_none_or(|uid| uid == nix::unistd::geteuid().as_raw()), "{one:?}");

        let _caller = UnixStream::connect_addr(&others[0]).unwrap();
        let _accepted = listener.accept().unwrap();
        drop(listener);
        let found = named(name.as_bytes()).unwrap();
        assert!(found.iter().all(|socket| socket.connected) && found.len() == 1, "{found:?}");
    }

    fn message(payload: &[u8]) -> Message<'_> {
        Message { kind: SOCK_DIAG_BY_FAMILY, payload, ..Message::default() }
    }

    #[test]
    fn an_older_kernel_tells_less() {
        let mut payload = vec![AF_UNIX, STREAM, 10, 0, 7, 0, 0, 0];
        payload.resize(ANSWER, 0);
        payload.extend(nest(&[(NAME, b"\0name")]));
        let socket = read(&message(&payload), b"name").unwrap();
        assert_eq!(socket.uid, None);
        assert_eq!(read(&message(&payload), b"nam"), None);
        assert_eq!(read(&message(&payload[..8]), b"name"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            read(&message(&bytes), b"name");
        }
    }
}
