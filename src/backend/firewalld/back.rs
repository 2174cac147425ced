//! The way back of a direct.xml, which others may have changed since a run began. Pure.

use super::document::{BLANK, Document};
use super::{Error, SKELETON, mentions_us, remove};

/// What has to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Back {
    /// Our part is as it was.
    Nothing,
    /// All of it is to be as it was before: nobody else changed anything.
    Whole,
    /// This is the file with what others changed, and with our part as it was.
    Part(String),
}

/// The way from one text to an earlier one. `None`: no file.
///
/// # Errors
/// The text of now cannot be read as XML, and may have rules of ours in it or lack those that were there.
pub fn way(now: Option<&str>, before: Option<&str>) -> Result<Back, Error> {
    if now == before {
        return Ok(Back::Nothing);
    }
    let (now, before) = (content(now), content(before));
    // No run writes a file that it does not understand.
    let Ok(earlier) = Document::parse(before) else { return Ok(Back::Nothing) };
    let ours_before: Vec<&str> = earlier.ours().into_iter().map(|item| earlier.raw(item)).collect();
    let document = match Document::parse(now) {
        Err(_) if ours_before.is_empty() && !mentions_us(now) => return Ok(Back::Nothing),
        document => document?,
    };
    let ours = document.ours();
    if ours.iter().map(|item| document.raw(item)).eq(ours_before.iter().copied()) {
        return Ok(Back::Nothing);
    }
    let others = essence(&document.replace(&ours, &[]));
    // With force, rules of others that lead to ours are removed too.
    let forced = remove(before, true)?;
    let were = [Some(earlier.replace(&earlier.ours(), &[])), forced];
    if were.iter().flatten().any(|were| essence(were) == others) {
        return Ok(Back::Whole);
    }
    Ok(Back::Part(document.replace_by(&ours, ours_before.into_iter())))
}

fn content(text: Option<&str>) -> &str {
    text.filter(|text| !text.trim().is_empty()).unwrap_or(SKELETON)
}

/// What is left of a text when it does not count how it is laid out.
fn essence(text: &str) -> String {
    text.replace(BLANK, "").replace("<direct/>", "<direct></direct>")
}
