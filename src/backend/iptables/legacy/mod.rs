//! Tables of the legacy variant without its programs: the kernel hands them out, and all that has to be known of most
//! of them is that nothing in them is ours. What is ours is read and changed by the programs.

mod table;
mod target;
mod words;

use std::io;

use crate::plan::{Family, Table};
use crate::sys::xtables;

use super::save::Saved;
pub use table::LegacyTable;
pub use target::words as target_words;
pub use words::match_words;

/// Tables of a family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Legacy(Vec<LegacyTable>);

/// Reads those that there are and that can hold rules of ours. Creates none.
///
/// # Errors
/// The kernel's; a table that makes no sense.
pub fn read(family: Family) -> io::Result<Legacy> {
    read_ours(family, &names(family)?)
}

/// Reads those of these tables, which there are, that can hold rules of ours.
///
/// # Errors
/// As those of [`read`].
pub fn read_ours(family: Family, names: &[String]) -> io::Result<Legacy> {
    read_tables(family, names.iter().filter(|name| Table::ALL.iter().any(|table| table.name() == **name)))
}

/// Reads these tables, which there are.
///
/// # Errors
/// As those of [`read`].
pub fn read_named(family: Family, names: &[String]) -> io::Result<Legacy> {
    read_tables(family, names.iter())
}

/// Reads all that there are. Creates none.
///
/// # Errors
/// As those of [`read`].
pub fn read_all(family: Family) -> io::Result<Legacy> {
    read_named(family, &names(family)?)
}

fn read_tables<'a>(family: Family, names: impl Iterator<Item = &'a String>) -> io::Result<Legacy> {
    let read = |name: &String| {
        let xtables::Table { hooks, entries } = xtables::read(family, name)?;
        LegacyTable::decode(family, name, &hooks, entries)
            .ok_or_else(|| io::Error::other(format!("the table {name} makes no sense")))
    };
    names.map(read).collect::<io::Result<_>>().map(Legacy)
}

/// The tables that there are here.
///
/// # Errors
/// The list is there and cannot be read. That says nothing of the tables, so they do not count as gone.
pub fn names(family: Family) -> io::Result<Vec<String>> {
    // This thread's, as sockets are.
    let path = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    match std::fs::read_to_string(path) {
        Ok(names) => Ok(names.lines().map(str::to_owned).collect()),
        // Not there, or not readable in a user namespace without the right: no such tables to be seen.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EACCES)) => Ok(Vec::new()),
        Err(error) => Err(io::Error::new(error.kind(), format!("{path} cannot be read: {error}"))),
    }
}

impl Legacy {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether anything of an installation is in them.
    pub fn is_ours(&self) -> bool {
        self.0.iter().any(LegacyTable::is_ours)
    }

    /// Whether Docker's embedded DNS server is set up: its chain is in the nat table.
    pub fn has_docker_dns(&self) -> bool {
        self.0.iter().any(|table| table.translates_in("DOCKER_OUTPUT"))
    }

    /// Whether a table's chain drops what no rule decides about.
    pub fn drops(&self, table: &str, chain: &str) -> bool {
        self.0.iter().any(|of| of.name() == table && of.drops(chain))
    }

    /// What a save program would print of them, with what rules counted or without.
    pub fn saved(&self, counted: bool) -> Saved {
        Saved { tables: self.0.iter().map(|table| table.saved(counted)).collect() }
    }
}

#[cfg(test)]
mod tests;
