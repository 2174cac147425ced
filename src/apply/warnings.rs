//! What an installation lacks, told when it is certain which installation it will be.

use crate::exit::HINT;

/// Warnings, each with its one next step.
#[derive(Debug, Default)]
pub struct Warnings {
    held: Option<Vec<(String, Option<String>)>>,
}

impl Warnings {
    /// Said at once, or kept until [`Warnings::say`].
    pub fn new(kept: bool) -> Self {
        Self { held: kept.then(Vec::new) }
    }

    /// Says it, or keeps it to say it later.
    pub fn warn(&mut self, what: String, hint: Option<String>) {
        match &mut self.held {
            Some(held) => held.push((what, hint)),
            None => say(&what, hint.as_deref()),
        }
    }

    /// Says what was kept, and everything else at once from here on.
    pub fn say(&mut self) {
        for (what, hint) in self.held.take().unwrap_or_default() {
            say(&what, hint.as_deref());
        }
    }
}

fn say(what: &str, hint: Option<&str>) {
    tracing::warn!("{what}");
    if let Some(hint) = hint {
        tracing::info!(target: HINT, "{hint}");
    }
}
