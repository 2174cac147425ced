//! The sidecar's IPv6 source address `::6` on the loopback interface. Envoy binds it for the connections it opens
//! to the application; IPv4 needs nothing, because all of 127.0.0.0/8 is there anyway.

use std::io;

use crate::host::{Interfaces, PASSTHROUGH};
use crate::sys::netlink;

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
    pub fn new(interfaces: &Interfaces, recorded: bool) -> Self {
        Self {
            interface: interfaces.loopback().to_owned(),
            present: interfaces.has(PASSTHROUGH),
            recorded,
            added_now: false,
        }
    }

    /// Whether something has to be done for it to be there, or not to be there if it is ours.
    pub fn differs(&self, wanted: bool) -> bool {
        if wanted { !self.present } else { self.present && (self.recorded || self.added_now) }
    }

    /// The interface's name.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Whether it is there now.
    pub fn is_there(&self) -> bool {
        self.present
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
            self.added_now =
                netlink::add_address(&self.interface, PASSTHROUGH, PREFIX).inspect_err(|_| {
                    // It was not there, but is perhaps now, if only the answer was lost.
                    let _ = netlink::remove_address(&self.interface, PASSTHROUGH, PREFIX);
                })?;
        } else {
            netlink::remove_address(&self.interface, PASSTHROUGH, PREFIX)?;
            self.added_now = false;
        }
        self.present = wanted;
        Ok(())
    }
}
