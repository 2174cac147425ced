//! Packets that leave the machine under test.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};

use super::Lab;

/// What arrives at the neighbour, by whatever interface.
pub struct Capture(OwnedFd);

impl Capture {
    /// From now on.
    pub fn begin(lab: &Lab) -> Self {
        Self(lab.peer().run(|| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
                .expect("a packet socket")
        }))
    }

    /// The packets so far, but for what neighbours say to each other by themselves.
    pub fn packets(&self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut bytes = [0; 2048];
        while let Ok(size) = recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            let frame = &bytes[..size];
            let meant = match frame.get(12..14) {
                // IPv4 and its question who has an address.
                Some([0x08, 0x00 | 0x06]) => true,
                // ICMPv6, and hop-by-hop options in front of it, are multicast and router discovery, and a host that
                // looks whether an address is free; one with an address of its own looks for somebody.
                Some([0x86, 0xdd]) => match frame.get(20) {
                    Some(58) => frame.get(54) == Some(&135) && frame.get(22..38) != Some(&[0; 16]),
                    Some(0) => false,
                    _ => true,
                },
                _ => false,
            };
            if meant {
                packets.push(frame.to_vec());
            }
        }
        packets
    }

    /// There was none.
    #[track_caller]
    pub fn assert_nothing(&self) {
        let sent = self.packets();
        let all: Vec<String> = sent.iter().map(|packet| format!("{packet:02x?}").replace(", ", "")).collect();
        assert!(sent.is_empty(), "{} packets left:\n{}", sent.len(), all.join("\n"));
    }
}
