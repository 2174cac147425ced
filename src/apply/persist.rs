//! Keeps rules over a start or reload of firewalld, which empties the tables of the nft variant.

use std::io;
use std::path::Path;

use crate::backend::firewalld::{Backup, Changes};
use crate::backend::iptables::tools::Variant;
use crate::backend::{Backend, firewalld};
use crate::exit::Failure;
use crate::plan::Plan;
use crate::sys::files;

use super::remains;

/// More than is read of the file, in bytes.
const LARGEST: u64 = 32 << 20;

/// What [`keep`] did to firewalld's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It did not write the file.
    AsItWas,
    /// It wrote the file.
    Written,
}

impl Kept {
    fn if_written(written: bool) -> Self {
        if written { Self::Written } else { Self::AsItWas }
    }
}

/// Whether [`keep`] may write firewalld's configuration.
pub fn may_write(wanted: bool, backend: Backend) -> bool {
    wanted || backend == Backend::Nftables
}

/// Puts the rules of a plan into firewalld's configuration where that is wanted; where it is not, says what firewalld
/// will do. The file belongs to one network namespace, and runs in others neither read nor write it.
///
/// # Errors
/// The file cannot be read or written.
pub fn keep(
    wanted: bool,
    plan: impl FnOnce() -> Plan,
    backend: Backend,
    comments: bool,
) -> Result<Kept, Failure> {
    let path = Path::new(firewalld::DIRECT_XML);
    if backend == Backend::Nftables {
        return without_file(wanted);
    }
    if wanted && let Some(why) = firewalld::why_not_here() {
        tracing::warn!("nothing is stored in {}: {why}", path.display());
        return Ok(Kept::AsItWas);
    }
    if !wanted {
        if is_to_be_read(path) && holds_ours(path) {
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
        return Ok(Kept::AsItWas);
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
    Ok(Kept::if_written(stored.changed))
}

/// What [`keep`] would change in the file.
///
/// # Errors
/// As those of [`keep`].
pub fn keep_changes(wanted: bool, plan: &Plan, backend: Backend, comments: bool) -> Result<Changes, Failure> {
    if backend == Backend::Nftables {
        return withdraw_changes(false);
    }
    if !wanted || firewalld::why_not_here().is_some() {
        return Ok(Changes::default());
    }
    firewalld::store_changes(Path::new(firewalld::DIRECT_XML), plan, comments)
}

/// What [`withdraw`] would change in the file.
///
/// # Errors
/// As those of [`withdraw`].
pub fn withdraw_changes(force: bool) -> Result<Changes, Failure> {
    let path = Path::new(firewalld::DIRECT_XML);
    if !is_to_be_read(path) {
        return Ok(Changes::default());
    }
    if let Err(failure) = firewalld::check_readable(path) {
        tracing::warn!("{}", remains::direct_xml(path, &failure.message).what);
        return Ok(Changes::default());
    }
    firewalld::withdraw_changes(path, force)
}

/// firewalld leaves tables of others alone, so ours needs no entry in its configuration; one that is there would
/// bring iptables rules back.
fn without_file(wanted: bool) -> Result<Kept, Failure> {
    if wanted {
        tracing::info!(
            "firewalld leaves the table inet kuma_mesh alone, so nothing is stored in its configuration"
        );
    }
    let withdrawn = withdraw(false)?;
    if let Withdrawn::Unread(why) = &withdrawn {
        tracing::warn!("{}", remains::direct_xml(Path::new(firewalld::DIRECT_XML), why).what);
    }
    Ok(Kept::if_written(withdrawn == Withdrawn::Gone))
}

/// What became of the rules in firewalld's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Withdrawn {
    /// There were none.
    Nothing,
    /// There were some.
    Gone,
    /// Why the file was not read.
    Unread(String),
}

/// Takes the rules out of firewalld's configuration. A file that cannot be read stops nobody.
///
/// # Errors
/// The file cannot be understood or written, or others' rules in it lead to our chains.
pub fn withdraw(force: bool) -> Result<Withdrawn, Failure> {
    let path = Path::new(firewalld::DIRECT_XML);
    if !is_to_be_read(path) {
        return Ok(Withdrawn::Nothing);
    }
    if let Err(failure) = firewalld::check_readable(path) {
        return Ok(Withdrawn::Unread(failure.message));
    }
    firewalld::withdraw(path, force).map(|gone| if gone { Withdrawn::Gone } else { Withdrawn::Nothing })
}

/// The file as it is now, to come back to. `None`: no run in this network namespace writes it, it cannot be read, or there is
/// none and the run stores nothing in it.
pub fn backup(stores: bool) -> Option<Backup> {
    let path = Path::new(firewalld::DIRECT_XML);
    if !stores && is_absent(path) {
        return None;
    }
    firewalld::why_not_here().is_none().then(|| Backup::take(path).ok()).flatten()
}

/// Reads the file where a run may write it, so that what is wrong with it is said before others wait for this run, and
/// a file system that does not answer keeps nobody else waiting.
///
/// # Errors
/// The run stores rules in it, and it cannot be read, or is not one that firewalld could read.
pub fn must_answer(stores: bool) -> Result<(), Failure> {
    let path = Path::new(firewalld::DIRECT_XML);
    if !is_to_be_read(path) {
        return Ok(());
    }
    let read = firewalld::check_readable(path);
    if !stores {
        return Ok(());
    }
    read.map_err(|failure| failure.hint("look what it is, or leave --store-firewalld out"))?;
    firewalld::check_storable(path)
}

/// Whether there may be a file, and it is about this network namespace.
fn is_to_be_read(path: &Path) -> bool {
    if is_absent(path) {
        return false;
    }
    let why_not = firewalld::why_not_here();
    if let Some(why) = &why_not {
        tracing::debug!("{} is left alone: {why}", path.display());
    }
    why_not.is_none()
}

fn is_absent(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn holds_ours(path: &Path) -> bool {
    let text = files::read(path, LARGEST).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    matches!(firewalld::remove(&text, true), Ok(Some(_)))
}
