//! Keeps rules over a start or reload of firewalld, which empties the tables of the nft variant.

use std::path::Path;

use crate::backend::firewalld;
use crate::exit::Failure;
use crate::plan::Plan;

/// Puts the rules into firewalld's configuration where that is wanted; where it is not, says that there are some
/// from an earlier time.
///
/// # Errors
/// The file cannot be read or written.
pub fn keep(wanted: bool, plan: &Plan, comments: bool) -> Result<(), Failure> {
    let path = Path::new(firewalld::DIRECT_XML);
    if !wanted {
        if holds_ours(path) {
            tracing::warn!(
                "{} still has the rules of an installation with --store-firewalld, and firewalld's next reload \
                 brings those back; install with --store-firewalld again to bring the file up to date",
                path.display()
            );
        }
        return Ok(());
    }
    let stored = firewalld::store(path, plan, comments)?;
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

/// firewalld's configuration before our rules were taken out, if there were any.
#[derive(Debug)]
pub struct Withdrawn(Option<String>);

/// Takes the rules out of firewalld's configuration.
///
/// # Errors
/// The file cannot be read or written, or others' rules in it lead to our chains.
pub fn withdraw(force: bool) -> Result<Withdrawn, Failure> {
    let path = Path::new(firewalld::DIRECT_XML);
    let before = std::fs::read_to_string(path).ok();
    let changed = firewalld::withdraw(path, force)?;
    Ok(Withdrawn(before.filter(|_| changed)))
}

impl Withdrawn {
    /// Whether there were any.
    pub fn any(&self) -> bool {
        self.0.is_some()
    }

    /// Puts them back.
    pub fn put_back(&self) {
        let path = Path::new(firewalld::DIRECT_XML);
        if let Some(Err(error)) = self.0.as_ref().map(|text| std::fs::write(path, text)) {
            tracing::warn!("{} could not be put back: {error}", path.display());
        }
    }
}

fn holds_ours(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    matches!(firewalld::remove(&text, true), Ok(Some(_)))
}
