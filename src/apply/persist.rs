//! Keeps rules over a start or reload of firewalld, which empties the tables of the nft variant.

use std::path::Path;

use crate::backend::iptables::tools::Variant;
use crate::backend::{Backend, firewalld};
use crate::exit::Failure;
use crate::plan::Plan;

/// Puts the rules of a plan into firewalld's configuration where that is wanted; where it is not, says what firewalld
/// will do.
///
/// # Errors
/// The file cannot be read or written.
pub fn keep(
    wanted: bool,
    plan: impl FnOnce() -> Plan,
    backend: Backend,
    comments: bool,
) -> Result<(), Failure> {
    let path = Path::new(firewalld::DIRECT_XML);
    if backend == Backend::Nftables {
        return without_file(wanted);
    }
    if !wanted {
        if holds_ours(path) {
            tracing::warn!(
                "{} still has the rules of an installation with --store-firewalld, and firewalld's next reload \
                 brings those back; install with --store-firewalld again to bring the file up to date",
                path.display()
            );
        } else if backend == Backend::Iptables(Variant::Nft) && firewalld::rules_here() {
            tracing::warn!(
                "firewalld is running here, and when it starts or reloads it drops these rules; to keep them, \
                 install with --store-firewalld"
            );
        }
        return Ok(());
    }
    let stored = firewalld::store(path, &plan(), comments)?;
    for note in stored.notes.iter().chain(&stored.replaced) {
        tracing::warn!("{}: {note}", path.display());
    }
    if stored.changed {
        tracing::info!(
            "the rules are stored in {}; firewalld reads it when it starts or reloads",
            path.display()
        );
    }
    Ok(())
}

/// firewalld leaves tables of others alone, so ours needs no entry in its configuration; one that is there would
/// bring iptables rules back.
fn without_file(wanted: bool) -> Result<(), Failure> {
    if wanted {
        tracing::info!(
            "firewalld leaves the table inet kuma_mesh alone, so nothing is stored in its configuration"
        );
    }
    withdraw(false).map(|_| ())
}

/// Takes the rules out of firewalld's configuration. Whether there were any.
///
/// # Errors
/// The file cannot be read or written, or others' rules in it lead to our chains.
pub fn withdraw(force: bool) -> Result<bool, Failure> {
    firewalld::withdraw(Path::new(firewalld::DIRECT_XML), force)
}

fn holds_ours(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    matches!(firewalld::remove(&text, true), Ok(Some(_)))
}
