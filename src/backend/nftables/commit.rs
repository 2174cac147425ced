//! Brings our table to what is wanted of it, in one transaction.

use std::io;

use crate::sys::netlink::nftables::Door;

use super::change::{Change, SetChange, Wanted};
use super::decode::Observed;
use super::encode;
use super::foreign::known;
use super::observe::observe;
use super::send::{SendError, send};
use super::wire::Message;

/// How often it is begun again because somebody else's change came between looking and changing. Each time takes a
/// fraction of a millisecond, so this outlasts whoever changes rules one by one.
const TRIES: usize = 200;

/// Makes the table what is wanted, or removes it.
///
/// # Errors
/// Why it is as it was before; [`SendError::Changed`] only when others never stop changing the firewall.
pub fn bring(wanted: Option<&Wanted>) -> Result<(), SendError> {
    bring_from(None, wanted)
}

/// The same. `seen` is the table as it was at a generation of the kernel's: as long as it is that one, it need not be read
/// again.
///
/// # Errors
/// As those of [`bring`].
pub fn bring_from(seen: Option<(u32, Option<&Observed>)>, wanted: Option<&Wanted>) -> Result<(), SendError> {
    let mut door = Door::open().map_err(unread)?;
    let mut whole = false;
    for round in 0..TRIES {
        let now;
        let (generation, table) = if let Some(seen) = seen.filter(|_| round == 0) {
            seen
        } else {
            now = observe(&mut door).map_err(unread)?;
            (now.generation, now.table.as_ref())
        };
        if table.is_some_and(|table| table.owned_by.is_some()) {
            return Err(SendError::Owned);
        }
        let change = Change::to(table, wanted, whole);
        if change.is_nothing() {
            return Ok(());
        }
        let (elements, restored) =
            (matches!(change, Change::Elements(_)), matches!(change, Change::Restore(_)));
        match (send(&mut door, &messages(change), generation), wanted) {
            (Err(SendError::Changed), _) => {}
            // Some kernels do not let intervals change that touch each other; the whole table always can.
            (Err(SendError::Refused(_)), _) if elements => whole = true,
            // Not with what others had put there; then at least our own part of it, and whoever asked is told.
            (Err(refused @ SendError::Refused(_)), Some(Wanted::Former(former))) if restored => {
                return bring(Some(&Wanted::New(known(&former.table)))).and(Err(refused));
            }
            (done, _) => return done,
        }
    }
    Err(SendError::Changed)
}

fn unread(error: io::Error) -> SendError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => SendError::Denied,
        io::ErrorKind::Unsupported => SendError::Unsupported,
        io::ErrorKind::ResourceBusy => SendError::Changed,
        _ => SendError::Unread(error),
    }
}

/// What is sent for a change.
pub fn messages(change: Change) -> Vec<Message> {
    match change {
        Change::Nothing => Vec::new(),
        Change::Create(table) => encode::create(&table),
        Change::Replace(table) => encode::replace(&table),
        Change::Elements(sets) => {
            let each =
                |SetChange { set, key, add, delete }: SetChange| encode::elements(&set, key, &add, &delete);
            sets.into_iter().flat_map(each).collect()
        }
        Change::Restore(messages) => encode::in_the_place_of_any(messages),
        Change::Remove => encode::remove(),
    }
}
