//! What a change of direct.xml adds and removes, element by element. Pure.

use super::document::Document;
use super::{Error, SKELETON, shown};

/// Elements as they stand in the file, control characters escaped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Those that the file gets.
    pub add: Vec<String>,
    /// Those that it loses.
    pub remove: Vec<String>,
}

/// Of one text and a later one. `None`: no file.
///
/// # Errors
/// One of them is not one that firewalld could read.
pub fn between(before: Option<&str>, after: Option<&str>) -> Result<Changes, Error> {
    let elements = |text: Option<&str>| {
        let text = text.filter(|text| !text.trim().is_empty()).unwrap_or(SKELETON);
        let document = Document::parse(text)?;
        Ok::<_, Error>(document.items.iter().map(|item| shown(text, item)).collect::<Vec<_>>())
    };
    let mut remove = elements(before)?;
    let mut add = Vec::new();
    for element in elements(after)? {
        match remove.iter().position(|before| *before == element) {
            Some(same) => drop(remove.remove(same)),
            None => add.push(element),
        }
    }
    Ok(Changes { add, remove })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_elements_are_counted() {
        let rule =
            |chain: &str| format!("<rule ipv='ipv4' table='nat' chain='{chain}' priority='0'>-j X</rule>");
        let file = |chains: &[&str]| {
            format!("<direct>{}</direct>", chains.iter().map(|chain| rule(chain)).collect::<String>())
        };
        let changes = |before: &[&str], after: &[&str]| between(Some(&file(before)), Some(&file(after)));
        assert_eq!(changes(&["A", "B"], &["B", "A"]), Ok(Changes::default()));
        assert_eq!(changes(&["A", "A"], &["A"]), Ok(Changes { add: vec![], remove: vec![rule("A")] }));
        assert_eq!(changes(&[], &["B"]), Ok(Changes { add: vec![rule("B")], remove: vec![] }));
        assert_eq!(between(None, Some(" ")), Ok(Changes::default()));
        assert!(between(None, Some("<direct>")).is_err());
    }
}
