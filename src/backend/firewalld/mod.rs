//! Persistence through firewalld: our rules in `/etc/firewalld/direct.xml`.
//!
//! Whenever firewalld starts or reloads it empties the tables of `iptables` (nft), ours included, and then puts in
//! place what direct.xml has. So what should survive that must be in this file too.
//!
//! The file is the administrator's. It is never written anew from what was understood of it: our elements are cut
//! out of the text and put into the text, and every other byte stays.
//!
//! Ours are, within the root element: the chains of our four names in `nat` and whatever rules are in them; rules
//! with the owner tag as their whole `--comment`; and, for installs without comments, rules without any comment at
//! one of the priorities that [`entries`] gives out.

pub(crate) mod args;
mod back;
mod changes;
mod document;
mod entries;
mod file;
mod home;
mod rfc3964;

pub use changes::Changes;
pub use file::{
    Backup, DIRECT_XML, Stored, check_readable, check_storable, store, store_changes, withdraw,
    withdraw_changes,
};
pub use home::why_not_here;
pub use rfc3964::ipv6_warning;

use crate::plan::{OWNER_TAG, OwnChain, Plan};
use document::{Document, Item};

/// The file where there was none; without rules, firewalld takes it for an absent one.
const SKELETON: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<direct>\n</direct>\n";

/// Why a direct.xml stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It cannot be read as XML.
    #[error("line {line}: {reason}")]
    Malformed {
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// Rules that are not ours lead to our chains, and firewalld would refuse the file without the chains.
    #[error("rules of others lead to our chains:\n  {}", .0.join("\n  "))]
    StillUsed(
        /// The elements as they stand in the file, control characters escaped.
        Vec<String>,
    ),
}

/// A direct.xml with our rules in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The whole file. The same as before if our rules were in it already.
    pub text: String,
    /// Elements of others in our chains that are gone now, control characters escaped.
    pub replaced: Vec<String>,
    /// What firewalld cannot be told: one sentence each.
    pub notes: Vec<String>,
}

/// Puts the rules of a plan into a direct.xml, in place of those that are there.
///
/// # Errors
/// The file is not one that firewalld could read.
pub fn merge(existing: Option<&str>, plan: &Plan, comments: bool) -> Result<Merged, Error> {
    let text = existing.filter(|text| !text.trim().is_empty()).unwrap_or(SKELETON);
    let document = Document::parse(text)?;
    let ours = document.items.iter().filter(|item| item.is_ours()).collect::<Vec<_>>();
    let replaced =
        ours.iter().filter(|item| item.is_intruder()).map(|item| shown(text, item)).collect::<Vec<_>>();
    let (entries, notes) = entries::of(plan, comments);
    let same =
        ours.len() == entries.len() && entries.iter().all(|entry| ours.iter().any(|item| item.is(entry)));
    let text = if same { text.to_owned() } else { document.replace(&ours, &entries) };
    Ok(Merged { text, replaced, notes })
}

/// Takes our rules out of a direct.xml; `None` if there are none in it.
///
/// # Errors
/// The file has our names in it but is not one that firewalld could read, or rules of others lead to our chains;
/// with `force` those are taken out too.
pub fn remove(existing: &str, force: bool) -> Result<Option<String>, Error> {
    if existing.trim().is_empty() {
        return Ok(None);
    }
    let document = match Document::parse(existing) {
        // Whatever is wrong with a file that never heard of us, an uninstall need not stop for it.
        Err(_) if !mentions_us(existing) => return Ok(None),
        document => document?,
    };
    let (mut gone, others) = document.items.iter().partition::<Vec<_>, _>(|item| item.is_ours());
    if gone.is_empty() {
        return Ok(None);
    }
    let users = others.into_iter().filter(|item| item.leads_to_us()).collect::<Vec<_>>();
    if force {
        gone.extend(users);
        gone.sort_unstable_by_key(|item| item.span.start);
    } else if !users.is_empty() {
        return Err(Error::StillUsed(users.into_iter().map(|item| shown(existing, item)).collect()));
    }
    Ok(Some(document.replace(&gone, &[])))
}

/// Whether firewalld is at work in this network namespace. It has a table of its own there, unless it was told not to
/// use nftables.
pub fn rules_here() -> bool {
    // Who may not ask cannot install either.
    crate::sys::netlink::nft_inet_table_names()
        .is_ok_and(|names| names.iter().any(|name| name == "firewalld"))
}

/// Whether any of the names that are ours is in the text at all.
fn mentions_us(text: &str) -> bool {
    text.contains(OWNER_TAG) || OwnChain::ALL.iter().any(|chain| text.contains(chain.name()))
}

/// An element as it stands in the file.
fn shown(text: &str, item: &Item) -> String {
    crate::sys::escape(&text[item.span.clone()])
}

#[cfg(test)]
mod tests;
