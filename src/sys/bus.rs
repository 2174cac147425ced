//! One question to the system bus: which process has a name (D-Bus specification, "Message Protocol" and
//! `org.freedesktop.DBus.GetConnectionUnixProcessID`). A library for the whole protocol would be larger than tproxy.
#![allow(unsafe_code, reason = "SO_PASSRIGHTS has no wrapper")]

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, sockopt};

use super::{files, socket};

/// Where the system bus is on every distribution ("Well-known Message Bus Instances").
pub const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// How long the bus may take for the whole talk; it is a millisecond.
const PATIENCE: Duration = Duration::from_secs(2);

/// An answer is a hundred bytes; a signal of the bus can come before it.
const LONGEST: usize = 64 * 1024;
const MESSAGES: usize = 16;

/// Whether a socket takes open files of its other end (`SO_PASSRIGHTS`, `include/uapi/asm-generic/socket.h`, since Linux
/// 6.16).
const PASS_RIGHTS: libc::c_int = 83;

const THE_BUS: &str = "org.freedesktop.DBus";

/// Types of messages.
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;

/// Fields of a message's head.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// The process that has a name on the bus of this socket, by its ID in our PID namespace. `None`: no process has it.
///
/// # Errors
/// There is no bus, it is not root's, another user could put one of theirs in its place, it is in another PID namespace,
/// or it does not answer in time. After a signal it is not waited for.
pub fn owner(bus: &Path, name: &str) -> io::Result<Option<u32>> {
    let mut talk = Talk { stream: dial(bus)?, end: Instant::now() + PATIENCE };
    // The digits of the UID, in hexadecimal ASCII.
    let uid: String = nix::unistd::geteuid().to_string().chars().flat_map(|digit| ['3', digit]).collect();
    talk.stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
    if !line(&mut talk)?.starts_with(b"OK ") {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the bus lets nobody in"));
    }
    talk.stream.write_all(b"BEGIN\r\n")?;
    talk.stream.write_all(&call(1, "Hello", None))?;
    talk.stream.write_all(&call(2, "GetConnectionUnixProcessID", Some(name)))?;
    for _ in 0..MESSAGES {
        match message(&mut talk)? {
            Message { kind: RETURN, reply_to: 2, body } => {
                let pid = body.get(..4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
                return pid.map(Some).ok_or_else(|| malformed("an answer without a number"));
            }
            // The name has no owner; a service that could be started is not.
            Message { kind: ERROR, reply_to: 2, .. } => return Ok(None),
            Message { kind: ERROR, reply_to: 1, .. } => return Err(malformed("it does not say hello")),
            _ => {}
        }
    }
    Err(malformed("no answer among its messages"))
}

/// What the bus says, until its time is over.
struct Talk {
    stream: UnixStream,
    end: Instant,
}

impl Read for Talk {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if Instant::now() >= self.end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket::read_until(&self.stream, room, self.end)
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Connects. A bus that has no room for another connection is not waited for.
fn dial(bus: &Path) -> io::Result<UnixStream> {
    let bus = &files::place(bus).map_err(io::Error::other)?;
    let found = fs::symlink_metadata(bus)?;
    if !found.file_type().is_socket() || found.uid() != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a socket of root's"));
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    refuse_files(&fd);
    connect(fd.as_raw_fd(), &UnixAddr::new(bus)?)?;
    // Of the process that began to listen, before it gave up being root.
    let who = getsockopt(&fd, sockopt::PeerCredentials)?;
    if who.uid() != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the bus is not root's"));
    }
    if who.pid() == 0 {
        return Err(io::Error::other("the bus is in another PID namespace"));
    }
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false)?;
    // What is said to it has room in any socket, so this is not waited for.
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Files that nobody asked for are closed here, which can take for ever (`SO_LINGER`). Kernels that cannot refuse them are
/// left to the bus, which sends none to who has not asked for them.
fn refuse_files(fd: &OwnedFd) {
    let off: libc::c_int = 0;
    let length = libc::socklen_t::try_from(size_of_val(&off)).unwrap_or_default();
    // SAFETY: the kernel reads a number of that size.
    let _ = unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, PASS_RIGHTS, (&raw const off).cast(), length)
    };
}

/// A line of the first phase, in which nothing follows that was not asked for.
fn line(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while !line.ends_with(b"\r\n") {
        if line.len() > 1024 {
            return Err(malformed("an endless line"));
        }
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(line)
}

/// A call of the bus itself.
fn call(serial: u32, member: &str, argument: Option<&str>) -> Vec<u8> {
    let mut body = Vec::new();
    if let Some(argument) = argument {
        put_string(&mut body, argument);
    }
    let order = if cfg!(target_endian = "little") { b'l' } else { b'B' };
    let mut bytes = vec![order, CALL, 0, 1];
    bytes.extend(length(&body).to_ne_bytes());
    bytes.extend(serial.to_ne_bytes());
    let mut fields = Vec::new();
    let strings = [
        (PATH, b'o', "/org/freedesktop/DBus"),
        (INTERFACE, b's', THE_BUS),
        (MEMBER, b's', member),
        (DESTINATION, b's', THE_BUS),
    ];
    for (field, kind, value) in strings {
        align(&mut fields, 8);
        fields.extend([field, 1, kind, 0]);
        put_string(&mut fields, value);
    }
    if argument.is_some() {
        align(&mut fields, 8);
        fields.extend([SIGNATURE, 1, b'g', 0, 1, b's', 0]);
    }
    bytes.extend(length(&fields).to_ne_bytes());
    // Sixteen bytes by now, so the fields are aligned here as they were there.
    bytes.extend(fields);
    align(&mut bytes, 8);
    bytes.extend(body);
    bytes
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn align(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn put_string(bytes: &mut Vec<u8>, text: &str) {
    align(bytes, 4);
    bytes.extend(length(text.as_bytes()).to_ne_bytes());
    bytes.extend(text.bytes());
    bytes.push(0);
}

/// What is of interest of a message.
struct Message {
    kind: u8,
    /// The serial number of the call that it answers; 0: none.
    reply_to: u32,
    body: Vec<u8>,
}

fn message(stream: &mut impl Read) -> io::Result<Message> {
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    let order = if cfg!(target_endian = "little") { b'l' } else { b'B' };
    if head[0] != order {
        return Err(malformed("another byte order"));
    }
    let number = |at: usize| {
        let bytes = [head[at], head[at + 1], head[at + 2], head[at + 3]];
        usize::try_from(u32::from_ne_bytes(bytes)).unwrap_or(usize::MAX)
    };
    let (body, fields) = (number(4), number(12));
    if body > LONGEST || fields > LONGEST {
        return Err(malformed("a message that is too long"));
    }
    let mut rest = vec![0; fields.next_multiple_of(8) + body];
    stream.read_exact(&mut rest)?;
    let reply_to = reply_serial(&rest[..fields]).unwrap_or(0);
    Ok(Message { kind: head[1], reply_to, body: rest.split_off(fields.next_multiple_of(8)) })
}

/// The call that a message answers, of the fields of its head. Each is a number, the type of its value, and that.
fn reply_serial(fields: &[u8]) -> Option<u32> {
    let number = |at: usize| Some(u32::from_ne_bytes(fields.get(at..at + 4)?.try_into().ok()?));
    let mut at = 0_usize;
    loop {
        at = at.next_multiple_of(8);
        let [field, 1, kind, 0] = *fields.get(at..at + 4)? else { return None };
        at += 4;
        at = match kind {
            b'u' if field == REPLY_SERIAL => return number(at),
            b'u' => at + 4,
            b's' | b'o' => at + 4 + usize::try_from(number(at)?).ok()? + 1,
            b'g' => at + 1 + usize::from(*fields.get(at)?) + 1,
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn calls_have_the_form_of_the_specification() {
        let bytes = call(2, "Hello", Some("a.b"));
        let read = message(&mut &bytes[..]).unwrap();
        assert_eq!((read.kind, read.reply_to), (CALL, 0));
        assert_eq!(read.body, [&3u32.to_ne_bytes()[..], b"a.b\0"].concat());
        assert_eq!(bytes.len() % 8, 0, "a body of eight bytes after an aligned head");
    }

    #[test]
    fn the_answered_call_is_found_behind_other_fields() {
        let mut fields = Vec::new();
        fields.extend([DESTINATION, 1, b's', 0]);
        put_string(&mut fields, ":1.7");
        align(&mut fields, 8);
        fields.extend([SIGNATURE, 1, b'g', 0, 1, b'u', 0]);
        align(&mut fields, 8);
        fields.extend([REPLY_SERIAL, 1, b'u', 0]);
        fields.extend(2u32.to_ne_bytes());
        assert_eq!(reply_serial(&fields), Some(2));
        assert_eq!(reply_serial(&fields[..fields.len() - 1]), None);
    }

    #[test]
    fn without_a_bus_there_is_an_error() {
        assert!(owner(Path::new("/nonexistent/bus"), "a.b").is_err());
    }

    #[test]
    fn a_bus_that_another_user_could_have_put_there_is_not_asked() {
        let dir = std::env::temp_dir().join(format!("tproxy-bus-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        let _bus = std::os::unix::net::UnixListener::bind(dir.join("bus")).unwrap();
        let error = owner(&dir.join("bus"), "a.b").unwrap_err();
        fs::remove_dir_all(&dir).unwrap();
        assert!(error.to_string().contains("mode 0777"), "{error}");
    }

    proptest! {
        #[test]
        fn no_message_breaks_it(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = message(&mut &bytes[..]);
            for (at, byte) in (if cfg!(target_endian = "little") { [b'l', RETURN] } else { [b'B', RETURN] }).into_iter().enumerate() {
                if let Some(place) = bytes.get_mut(at) { *place = byte; }
            }
            for at in [6, 7, 14, 15] {
                if let Some(place) = bytes.get_mut(at) { *place = 0; }
            }
            let _ = message(&mut &bytes[..]);
            let _ = reply_serial(&bytes);
        }
    }
}
