//! The sidecar's IPv6 source address `::6` on the loopback interface. Envoy binds it for the connections it opens
//! to the application; IPv4 needs nothing, because all of 127.0.0.0/8 is there anyway.

use std::io;
use std::net::Ipv6Addr;

use crate::sys::netlink;

const ADDRESS: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);
const PREFIX: u8 = 128;

/// The address, whether it is there, and whether that is our doing.
#[derive(Debug)]
pub struct Passthrough {
    interface: String,
    present: bool,
    /// An earlier run added it, or meant to and was killed.
    recorded: bool,
    added_now: bool,
}

impl Passthrough {
    /// As it is now; `recorded` is what the state file says.
    pub fn new(interface: &str, recorded: bool) -> Self {
        Self { interface: interface.to_owned(), present: is_assigned(), recorded, added_now: false }
    }

    /// Whether it is there.
    pub fn is_present(&self) -> bool {
        self.present
    }

    /// Whether something has to be done for it to be there, or not to be there if it is ours.
    pub fn differs(&self, wanted: bool) -> bool {
        if wanted { !self.present } else { self.present && (self.recorded || self.added_now) }
    }

    /// Whether, with this wanted, its being there is our doing.
    pub fn ours(&self, wanted: bool) -> bool {
        wanted && (self.recorded || self.added_now || !self.present)
    }

    /// Adds it, or removes it if it is ours.
    ///
    /// # Errors
    /// The kernel's; IPv6 may be switched off on the interface.
    pub fn bring(&mut self, wanted: bool) -> io::Result<()> {
        if !self.differs(wanted) {
            return Ok(());
        }
        if wanted {
            self.added_now = netlink::add_address(&self.interface, ADDRESS, PREFIX)?;
        } else {
            netlink::remove_address(&self.interface, ADDRESS, PREFIX)?;
            self.added_now = false;
        }
        self.present = wanted;
        Ok(())
    }
}

fn is_assigned() -> bool {
    nix::ifaddrs::getifaddrs().is_ok_and(|mut addresses| {
        addresses.any(|interface| {
            interface
                .address
                .and_then(|a| a.as_sockaddr_in6().map(|six| six.ip() == ADDRESS))
                .unwrap_or(false)
        })
    })
}
