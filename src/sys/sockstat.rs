//! Whether there are sockets at all, which the kernel counts. To list connections it looks through a table whose size
//! does not depend on how many there are: a fifth of a millisecond each time, also in a pod where nobody has a socket yet.

use super::proc;

/// How many sockets there are, of both families; `None` where the kernel does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    tcp: Option<u64>,
    udp: Option<u64>,
}

impl Counts {
    /// Whether there is known to be no TCP socket: none that listens, none that is connected, and none that outlives its
    /// process.
    pub fn are_without_tcp(self) -> bool {
        self.tcp == Some(0)
    }

    /// Whether there is known to be no UDP socket.
    pub fn are_without_udp(self) -> bool {
        self.udp == Some(0)
    }
}

/// Those of the network namespace of the calling thread.
pub fn counts() -> Counts {
    // Not /proc/net: that is the network namespace of the process's first thread.
    let read = |file: &str| proc::text(&format!("/proc/thread-self/net/{file}"));
    let four = read("sockstat").unwrap_or_default();
    let six = read("sockstat6");
    // Without IPv6 there is no such file.
    let six = |line| six.as_ref().map_or(Some(0), |text| number(text, line, "inuse"));
    let tcp = || Some(number(&four, "TCP:", "inuse")? + number(&four, "TCP:", "tw")? + six("TCP6:")?);
    let udp = || Some(number(&four, "UDP:", "inuse")? + six("UDP6:")?);
    Counts { tcp: tcp(), udp: udp() }
}

/// The number behind a name in the line that begins so.
fn number(text: &str, line: &str, name: &str) -> Option<u64> {
    let mut words = text.lines().find_map(|text| text.strip_prefix(line))?.split_ascii_whitespace();
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const TEXT: &str = "sockets: used 9\nTCP: inuse 4 orphan 0 tw 2 alloc 7 mem 1\nUDP: inuse 3 mem 2\n";

    #[test]
    fn numbers_are_found_by_line_and_name() {
        assert_eq!(number(TEXT, "TCP:", "inuse"), Some(4));
        assert_eq!(number(TEXT, "TCP:", "tw"), Some(2));
        assert_eq!(number(TEXT, "UDP:", "tw"), None);
        assert_eq!(number("TCP: inuse", "TCP:", "inuse"), None);
    }

    #[test]
    fn every_socket_counts_until_it_is_over() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            crate::sys::netns::testing::apart(|| {
                crate::sys::netlink::link::bring_up("lo").unwrap();
                assert!(counts().are_without_tcp());
                let Ok(listener) = TcpListener::bind(at) else { return };
                assert!(!counts().are_without_tcp(), "it listens");
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (server, _) = listener.accept().unwrap();
                drop((listener, client));
                assert!(!counts().are_without_tcp(), "one end is open");
                drop(server);
                assert!(!counts().are_without_tcp(), "it is not over yet");
            });
        }
    }
}
