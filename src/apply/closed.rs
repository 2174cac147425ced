//! Why there is no record to read or write: this host has no place for it, others could forge it, or it is no file.

use std::io;
use std::path::Path;
use std::sync::Once;

use nix::errno::Errno;

use super::store::DIRECTORY;
use crate::exit::{Exit, Failure};
use crate::sys::files::Unread;

/// Why a record is not read that is there.
pub(super) fn unread(path: &Path, error: &Unread) -> Failure {
    let message = format!("cannot read {}: {error}", path.display());
    if error.is_misnamed() {
        return Failure::new(Exit::Usage, message).hint("look what it is, and remove it");
    }
    Failure::new(Exit::Failed, message)
}

/// What is weaker than it should be.
pub(super) fn say_once(notes: &[String]) {
    static SAID: Once = Once::new();
    SAID.call_once(|| notes.iter().for_each(|note| tracing::info!("{note}")));
}

pub(super) fn cannot_be(what: &str, why: &io::Error) -> String {
    format!("{DIRECTORY} cannot be {what} ({why})")
}

/// Whether this host has no place for records at any time, and not just no memory now.
pub(super) fn is_lacking(error: &io::Error) -> bool {
    use Errno::{
        EACCES, EDQUOT, EISDIR, ELOOP, ENOENT, ENOLCK, ENOSPC, ENOSYS, ENOTDIR, ENOTEMPTY, EOPNOTSUPP, EPERM,
        EROFS,
    };
    let lacking = [
        EACCES, EDQUOT, EISDIR, ELOOP, ENOENT, ENOLCK, ENOSPC, ENOSYS, ENOTDIR, ENOTEMPTY, EOPNOTSUPP, EPERM,
        EROFS,
    ];
    error.raw_os_error().is_none_or(|number| lacking.contains(&Errno::from_raw(number)))
}

/// Says why the directory is not used, once.
pub(super) fn distrust(why: String) -> String {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        tracing::warn!("no record is read or written, because another user could forge it: {why}");
    });
    why
}
