//! What is there: our own table, in full, and nothing of others'.

use std::io;

use crate::attribute::Attributes;
use crate::sys::netlink::nftables::Door;

use super::decode::{Observed, decode, is_ours};
use super::model::TABLE;
use super::wire::{self, INET, Message, message};

/// What was seen, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Nothing has changed since, as long as this is the generation.
    pub generation: u32,
    /// `None`: there is no such table.
    pub table: Option<Observed>,
}

/// How often it is read again because somebody changed something meanwhile. A read takes a fraction of a millisecond.
const TRIES: usize = 20;

/// Reads our table as it was at one moment. It takes several questions, and whoever swaps the table between two of
/// them would have us see half of each, or none.
///
/// # Errors
/// The kernel's: [`io::ErrorKind::PermissionDenied`] without the right to administer the network namespace,
/// [`io::ErrorKind::Unsupported`] where the kernel has no `nf_tables`; [`io::ErrorKind::ResourceBusy`] where the table
/// never stands still.
pub fn observe(door: &mut Door) -> io::Result<Seen> {
    let mut generation = door.generation().map_err(unsupported)?;
    let mut former: Option<Observed> = None;
    for _ in 0..TRIES {
        let Some(first) = absent(door.ask(&of_table(message::GET_TABLE, wire::table::NAME)))? else {
            // One answer cannot be of two moments.
            return Ok(Seen { generation, table: None });
        };
        let table = absent(all(door, first)).map(|told| told.map(observed));
        let now = door.generation()?;
        // Others may change the firewall all the time; a table that reads the same twice was not changed by them.
        let same = matches!((&table, &former), (Ok(Some(is)), Some(was)) if is.table == was.table);
        if now == generation || same {
            return Ok(Seen { generation, table: table? });
        }
        generation = now;
        former = table.ok().flatten();
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "somebody changes our table again and again"))
}

fn observed(told: Vec<Message>) -> Observed {
    let observed = decode(&told);
    Observed { told: told.into(), ..observed }
}

/// `None`: there is no table, or it went while it was read.
fn absent(answer: io::Result<Vec<Message>>) -> io::Result<Option<Vec<Message>>> {
    match answer {
        Ok(messages) => Ok(Some(messages)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn of_table(kind: u16, table: u16) -> Message {
    question(kind, Attributes::new().text(table, TABLE))
}

/// What the kernel tells of our table beside the table itself.
fn all(door: &mut Door, mut messages: Vec<Message>) -> io::Result<Vec<Message>> {
    // The kernel lists the chains of every table of the family, whatever table is asked for.
    messages.extend(door.dump(&of_table(message::GET_CHAIN, wire::chain::TABLE))?);
    messages.extend(door.dump(&of_table(message::GET_RULE, wire::rule::TABLE))?);
    // Only others put such things into our table.
    messages.extend(or_none(door.dump(&of_table(message::GET_OBJECT, wire::object::TABLE)))?);
    messages.extend(or_none(door.dump(&of_table(message::GET_FLOWTABLE, wire::object::TABLE)))?);
    let sets = door.dump(&of_table(message::GET_SET, wire::set::TABLE))?;
    for set in &sets {
        let Some(name) = crate::attribute::find_text(&set.body, wire::set::NAME) else { continue };
        let of_set = Attributes::new().text(wire::element::TABLE, TABLE).text(wire::element::SET, &name);
        messages.extend(door.dump(&question(message::GET_ELEMENTS, of_set))?);
    }
    messages.extend(sets);
    messages.retain(is_ours);
    Ok(messages)
}

/// Kernels before 4.10 have no objects, those before 4.16 no flowtables.
fn or_none(answer: io::Result<Vec<Message>>) -> io::Result<Vec<Message>> {
    match answer {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(Vec::new()),
        answer => answer,
    }
}

fn question(kind: u16, body: Attributes) -> Message {
    Message { kind, flags: 0, family: INET, body: body.into() }
}

/// What a kernel says that has no netfilter, no nfnetlink or no `nf_tables`; nfnetlink says "invalid argument" for a
/// part of it that is not there.
pub(super) fn unsupported(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP) => {
            io::Error::new(io::ErrorKind::Unsupported, "this kernel has no nf_tables")
        }
        _ => error,
    }
}
