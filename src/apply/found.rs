//! What is found where the record of an installation should be.

use std::io::ErrorKind;
use std::path::Path;

use crate::exit::{Exit, Failure};
use crate::sys::files::{Entry, Unread};
use crate::text::escape;

use super::closed::unread;
use super::state::{SCHEMA, State};
use super::store::LARGEST;

/// Rules named one by one that a record claims and that are none of ours.
const NAMED: usize = 5;

/// What is found where a record should be.
#[derive(Debug, Clone)]
pub enum Found {
    /// Nothing.
    Missing,
    /// Something, but no record that this version knows, or none that counts; its text, where that was read. What an
    /// installation added beside rules is not known then.
    Unusable(Option<Vec<u8>>),
    /// A record.
    Record(Box<State>),
}

impl Found {
    /// Reads it, and warns of what is passed over.
    ///
    /// # Errors
    /// There is something, but it is no file ([`Exit::Usage`]), or it cannot be read now.
    pub fn read(record: &Entry) -> Result<Self, Failure> {
        let path = record.path();
        let text = match record.read(LARGEST) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(Self::Missing),
            Err(error @ Unread::Foreign { .. }) => {
                tracing::warn!("{} is passed over: {error}", path.display());
                return Ok(Self::Unusable(None));
            }
            Err(error) => return Err(unread(&path, &error)),
        };
        let read = match serde_json::from_slice::<State>(&text) {
            Ok(state) if is_whole(&state, &text) => Ok(state),
            Ok(_) => Err("it says nothing of an installation".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let mut state = match read {
            Ok(state) => state,
            Err(why) => {
                tracing::warn!("{} is not a state file: {why}", path.display());
                return Ok(Self::Unusable(Some(text)));
            }
        };
        if state.schema != SCHEMA {
            tracing::warn!(
                "{} has a format that this version does not know; it is passed over",
                path.display()
            );
            return Ok(Self::Unusable(Some(text)));
        }
        let foreign = state.forget_foreign_rules();
        for rule in foreign.iter().take(NAMED) {
            tracing::warn!(
                "{} names a rule that no installation of its configuration writes, so it stays: -t {} -A {} {}",
                path.display(),
                escape(&rule.table),
                escape(&rule.chain),
                escape(&rule.args)
            );
        }
        if foreign.len() > NAMED {
            tracing::warn!("{} names {} more of them", path.display(), foreign.len() - NAMED);
        }
        Ok(Self::Record(Box::new(state)))
    }

    /// The record, if it is one.
    pub fn state(self) -> Option<State> {
        match self {
            Self::Record(state) => Some(*state),
            Self::Missing | Self::Unusable(_) => None,
        }
    }

    /// Whether an installation may have added `::6` that is there, and no record tells.
    pub fn hides_address(&self) -> bool {
        match self {
            Self::Missing => false,
            Self::Unusable(_) => true,
            Self::Record(state) => state.unsure_of_address && !state.added_passthrough,
        }
    }
}

/// Whether a text is what some version wrote. What misses in it counts as if it was not done, and a list without names
/// is taken for one, too.
fn is_whole(state: &State, text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"{") && !state.version.is_empty()
}

/// Whether no file has that name, as far as that can be seen.
pub(super) fn is_missing(path: &Path) -> bool {
    let kind = path.symlink_metadata().map_err(|error| error.kind());
    matches!(kind, Err(ErrorKind::NotFound | ErrorKind::NotADirectory))
}

/// After everything else was removed: the address that may be an installation's.
pub(super) fn address_left(interface: &str, record: &Path) -> Failure {
    let record = record.display();
    let message = format!(
        "no rules of an installation are left, but the address ::6 of {interface} is: whether an installation added it \
         is not known, because {record} is of no use"
    );
    let hint = format!(
        "run 'ip -6 addr del ::6/128 dev {interface}', or remove that file if something else needs the address; then run \
         the command again"
    );
    Failure::new(Exit::Left, message).hint(hint)
}
