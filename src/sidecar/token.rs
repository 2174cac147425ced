//! Answers with a word that nobody else knows: whoever gets it was here.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use super::{Channel, Connection, Service};
use crate::sys::socket;

/// Bytes of a DNS message's header: its number, flags, and how many entries follow.
const HEADER: usize = 12;

/// One question, and three more records of which there are none: a form that is wrong.
const COUNTS: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 3];

/// Who answers? (`id.server`, type TXT, class CHAOS; RFC 4892.)
const WHO: &[u8; 15] = b"\x02id\x06server\x00\x00\x10\x00\x03";

/// Bytes of what is asked.
const QUESTION: usize = HEADER + WHO.len() + 8;

/// The service.
#[derive(Debug)]
pub struct Tokens {
    token: Token,
    /// Original destinations of connections that are answered. All others are somebody else's and are treated as if
    /// nobody listened.
    ours: BTreeSet<IpAddr>,
    /// Ports from which questions came.
    heard: Mutex<BTreeSet<u16>>,
}

/// A random word of 8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token([u8; 8]);

impl Token {
    /// A new one.
    pub fn random() -> Self {
        // Keys of a map's hasher are random, and there is no need for more than that.
        Self(RandomState::new().build_hasher().finish().to_ne_bytes())
    }

    /// What to ask a sidecar with: who it is, in a message that claims more than it has, and the word behind it. What is
    /// of the class CHAOS is for the server itself to answer, and dnsmasq and `CoreDNS` keep to that; what has a wrong
    /// form, Envoy and kuma-dp turn down before they look at the name. So none of them asks anybody else, and each
    /// answers, which shows the way back.
    pub fn question(self) -> [u8; QUESTION] {
        let mut message = [0; QUESTION];
        message[..2].copy_from_slice(&self.0[..2]);
        message[4..HEADER].copy_from_slice(&COUNTS);
        message[HEADER..HEADER + WHO.len()].copy_from_slice(WHO);
        message[HEADER + WHO.len()..].copy_from_slice(&self.0);
        message
    }

    /// A number as random as the word.
    pub fn seed(self) -> u64 {
        u64::from_ne_bytes(self.0)
    }

    /// What is answered to it.
    pub fn answer(self) -> [u8; 8] {
        self.0.map(|byte| !byte)
    }

    /// It as text.
    fn word(self) -> String {
        format!("{:016x}", u64::from_be_bytes(self.0))
    }

    /// The line for a connection.
    fn line(self, channel: Channel, original: &str) -> String {
        let channel = match channel {
            Channel::Outbound => "outbound",
            Channel::Inbound => "inbound",
        };
        format!("{} {channel} {original}\n", self.word())
    }

    /// What such a line says; `None` if it is somebody else's.
    pub fn read_line(self, line: &str) -> Option<(Channel, Option<SocketAddr>)> {
        let mut words = line.trim_end().split(' ');
        if words.next()? != self.word() {
            return None;
        }
        let channel = match words.next()? {
            "outbound" => Channel::Outbound,
            "inbound" => Channel::Inbound,
            _ => return None,
        };
        Some((channel, words.next()?.parse().ok()))
    }
}

impl Tokens {
    /// Answers connections that were to go to one of these addresses.
    pub fn new(token: Token, ours: BTreeSet<IpAddr>) -> Self {
        Self { token, ours, heard: Mutex::default() }
    }

    /// Forgets that a question came from a port.
    pub fn forget(&self, port: u16) {
        if let Ok(mut ports) = self.heard.lock() {
            ports.remove(&port);
        }
    }

    /// Whether a question came from a port, wherever its answer went.
    pub fn heard(&self, port: u16) -> bool {
        self.heard.lock().is_ok_and(|ports| ports.contains(&port))
    }
}

impl Service for Tokens {
    fn connection(&self, connection: Connection) {
        let Connection { channel, mut stream, original, .. } = connection;
        let original = match original {
            Ok(addr) if !self.ours.contains(&addr.ip()) => {
                let _ = socket::reset_on_close(&stream);
                return;
            }
            Ok(addr) => addr.to_string(),
            Err(_) => "unknown".to_owned(),
        };
        // A probe that is gone already has no use for it.
        let _ = stream.write_all(self.token.line(channel, &original).as_bytes());
    }

    fn question(&self, question: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
        if question != self.token.question() {
            return None;
        }
        if let Ok(mut heard) = self.heard.lock() {
            heard.insert(from.port());
        }
        Some(self.token.answer().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_which_port_and_where_to() {
        let token = Token::random();
        for (channel, original) in
            [(Channel::Outbound, "192.0.2.1:80"), (Channel::Inbound, "[2001:db8::1]:80")]
        {
            let line = token.line(channel, original);
            assert_eq!(token.read_line(&line), Some((channel, Some(original.parse().unwrap()))));
            assert_eq!(Token::random().read_line(&line), None, "somebody else's");
        }
        assert_eq!(token.read_line(&token.line(Channel::Inbound, "unknown")), Some((Channel::Inbound, None)));
        assert_eq!(token.read_line("SSH-2.0-OpenSSH_9.2\r\n"), None);
    }

    #[test]
    fn only_the_own_question_is_answered() {
        let token = Token::random();
        let tokens = Tokens::new(token, BTreeSet::new());
        let from = "127.0.0.1:1".parse().unwrap();
        assert!(!tokens.heard(1));
        assert_eq!(tokens.question(&token.question(), from), Some(token.answer().to_vec()));
        assert!(tokens.heard(1) && !tokens.heard(2));
        assert_eq!(tokens.question(b"anything", from), None);
        assert!(!token.question().ends_with(&token.answer()));
    }

    /// Of a class that nobody asks others about, and of a form that nobody reads further.
    #[test]
    fn what_is_asked_is_nothing_to_pass_on() {
        let asked = Token::random().question();
        assert_eq!(asked[2..HEADER], [0, 0, 0, 1, 0, 0, 0, 0, 0, 3]);
        assert_eq!(&asked[HEADER..HEADER + WHO.len()], WHO);
    }
}
