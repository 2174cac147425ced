//! A configuration file as a tree, and the line on which each part of it stands.
//!
//! The YAML library tells positions only for errors. So a line is found by reading the text once more and failing
//! at the part in question: slow for one that asks about thousands of parts, so who asks limits that, and always right.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

/// What a file holds at some place. JSON is read as the YAML that it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// Nothing, or `null`.
    Null,
    /// A text, a whole number or a boolean, in the words of the file.
    Scalar(String),
    /// A number with a fraction or an exponent; no setting wants one, and its text is not what was typed.
    Float(String),
    /// A list.
    List(Vec<Node>),
    /// A section, in the order of the file, with whatever it has twice.
    Map(Vec<(String, Node)>),
}

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1.
    pub column: usize,
}

/// Why a text is not a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The place at fault, where the library tells it.
    pub spot: Option<Spot>,
    /// What is wrong, without the place.
    pub why: String,
}

/// How many lists and sections can begin with a bracket or a brace. The YAML library looks at all that are open for
/// each word, so that a text of many takes time with the square of its size; settings have two dozen.
const BRACKETS: usize = 256;

/// How many directives can give names to tags. The library compares each with all before it, and no setting has a tag.
const DIRECTIVES: usize = 16;

/// Why a text is refused before the library sees it.
fn costly(text: &str) -> Option<Malformed> {
    let spot = |at: usize| {
        let (line, begun) =
            (text[..at].matches('\n').count() + 1, text[..at].rfind('\n').map_or(0, |at| at + 1));
        Some(Spot { line, column: text[begun..at].chars().count() + 1 })
    };
    if let Some((at, _)) = text.match_indices(['[', '{']).nth(BRACKETS) {
        let why = format!("more than {BRACKETS} of '[' and '{{' in one file");
        return Some(Malformed { spot: spot(at), why });
    }
    let (at, _) = text.match_indices("%TAG").nth(DIRECTIVES)?;
    Some(Malformed { spot: spot(at), why: format!("more than {DIRECTIVES} of '%TAG' in one file") })
}

/// Reads a text as one YAML or JSON document; an empty one is `Null`. That takes time and memory in proportion to the
/// text.
pub fn parse(text: &str) -> Result<Node, Malformed> {
    if text.trim().is_empty() {
        return Ok(Node::Null);
    }
    if let Some(malformed) = costly(text) {
        return Err(malformed);
    }
    // Without aliases a document has fewer parts than bytes, and its words are no longer than they are in the text, but
    // for the three bytes of some escapes of two.
    let room = Cell::new(1000 + 4 * text.len());
    Tree(&room).deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| {
        let why = error.to_string();
        let spot = spot(&error);
        if indented_with_tab(text, spot.map(|spot| spot.line)) {
            return Malformed { spot, why: "a tab; YAML is indented with spaces".to_owned() };
        }
        let why = match why.split(" at line ").next().unwrap_or_default() {
            why if why.contains("more than one document") => "it holds more than one document",
            why => why,
        };
        let why = why.to_owned();
        Malformed { spot, why }
    })
}

/// Whether a text that names no file is a configuration: a section with keys, or the beginning of one that is wrong
/// farther on.
pub fn is_document(text: &str) -> bool {
    if let Ok(node) = parse(text) {
        return matches!(node, Node::Map(_));
    }
    let begins = text.trim_start();
    let first = begins.lines().next().unwrap_or_default();
    begins.starts_with('{') || begins.contains('\n') && first.contains(':')
}

/// Whether a line (from 1) begins with a tab, which the YAML library reports as a character that starts nothing.
fn indented_with_tab(text: &str, line: Option<usize>) -> bool {
    let line = line.and_then(|line| text.lines().nth(line.checked_sub(1)?)).unwrap_or_default();
    line.chars().take_while(char::is_ascii_whitespace).any(|c| c == '\t')
}

/// The place of a part: the path counts entries of sections and lists from 0, the last step may be either.
pub fn spot_of(text: &str, path: &[usize]) -> Option<Spot> {
    let found = Seek(path).deserialize(serde_yaml::Deserializer::from_str(text));
    found.err().and_then(|error| spot(&error))
}

fn spot(error: &serde_yaml::Error) -> Option<Spot> {
    error.location().map(|place| Spot { line: place.line(), column: place.column() })
}

/// Reads a tree, as long as there is room for it: an alias repeats what it stands for.
#[derive(Clone, Copy)]
struct Tree<'a>(&'a Cell<usize>);

impl Tree<'_> {
    /// Takes room for a part.
    fn take<E: serde::de::Error>(self, bytes: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(1 + bytes).ok_or_else(|| E::custom("aliases repeat too much"))?;
        self.0.set(left);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        self.take(0)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without a YAML tag")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value.to_string()))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Node, E> {
        self.take(value.len())?;
        Ok(Node::Scalar(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        Err(A::Error::custom("a tag (a word that begins with '!') cannot be used here"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(self)? {
            let key = match key {
                Node::Scalar(key) | Node::Float(key) => key,
                Node::Null => String::new(),
                Node::List(_) | Node::Map(_) => {
                    return Err(A::Error::custom("a key has to be a single word"));
                }
            };
            entries.push((key, map.next_value_seed(self)?));
        }
        Ok(Node::Map(entries))
    }
}

/// Walks to a part and fails there.
struct Seek<'a>(&'a [usize]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.0.is_empty() {
            deserializer.deserialize_any(Here)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a section or a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((target, rest)) = self.0.split_first() else { return Ok(()) };
        for _ in 0..*target {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        seq.next_element_seed(Seek(rest)).map(|_| ())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((target, rest)) = self.0.split_first() else { return Ok(()) };
        for _ in 0..*target {
            if map.next_entry::<IgnoredAny, IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        if rest.is_empty() {
            return map.next_key_seed(Seek(rest)).map(|_| ());
        }
        match map.next_key::<IgnoredAny>()? {
            Some(_) => map.next_value_seed(Seek(rest)),
            None => Ok(()),
        }
    }
}

/// Accepts nothing, so that the library reports where it stands.
struct Here;

impl Visitor<'_> for Here {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("to stop here")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "\
# a comment
verbose: yes

redirect:
  inbound:
    port: \"15006\"
    excludePorts: [22,
      80]
  dns: {enabled: true,
        port: 15053}
wait: 5
";

    #[test]
    fn reads_scalars_in_the_words_of_the_file() {
        let Ok(Node::Map(entries)) = parse(FILE) else { panic!("not a section") };
        assert_eq!(entries[0], ("verbose".into(), Node::Scalar("yes".into())));
        assert_eq!(entries[2], ("wait".into(), Node::Scalar("5".into())));
        let odd = "a: 99999999999999999999\nb: -1\nc: 0777\nd: 1.10\ne:\nf: ~\ng: ''\nh: True\ni: 0x10\n";
        let Ok(Node::Map(entries)) = parse(odd) else { panic!("not a section") };
        let values = entries.into_iter().map(|(_, value)| value).collect::<Vec<_>>();
        let scalar = |text: &str| Node::Scalar(text.into());
        assert_eq!(
            values,
            [
                scalar("99999999999999999999"),
                scalar("-1"),
                scalar("0777"),
                Node::Float("1.1".into()),
                Node::Null,
                Node::Null,
                scalar(""),
                scalar("true"),
                scalar("16"),
            ]
        );
    }

    #[test]
    fn finds_lines() {
        for (path, line) in [
            (&[0][..], 2),
            (&[1], 4),
            (&[1, 0], 5),
            (&[1, 0, 0], 6),
            (&[1, 0, 1], 7),
            (&[1, 0, 1, 0], 7),
            (&[1, 0, 1, 1], 8),
            (&[1, 1, 1], 10),
            (&[2], 11),
        ] {
            assert_eq!(spot_of(FILE, path).map(|spot| spot.line), Some(line), "{path:?}");
        }
        assert_eq!(spot_of(FILE, &[9]), None);
    }

    #[test]
    fn json_is_fine_with_tabs_and_lines() {
        let json = "{\n\t\"wait\": 3,\n\t\"redirect\": {\n\t\t\"dns\": {\"enabled\": true}\n\t}\n}\n";
        assert!(matches!(parse(json), Ok(Node::Map(_))));
        assert_eq!(spot_of(json, &[1, 0]).map(|spot| spot.line), Some(4));
    }

    #[test]
    fn empty_texts_are_nothing() {
        for text in ["", "\n", "# only a comment\n", "---\n", "null"] {
            assert_eq!(parse(text), Ok(Node::Null), "{text:?}");
        }
    }

    #[test]
    fn a_tab_is_called_a_tab() {
        for (text, line) in [("a:\n\tb: 1\n", 2), ("a:\n  b: 1\n \tc: 2\n", 3)] {
            let error = parse(text).unwrap_err();
            assert!(error.why.contains("a tab"), "{error:?}");
            assert_eq!(error.spot.map(|spot| spot.line), Some(line), "{error:?}");
        }
        assert!(!parse("a:\tb\n  c: [\n").unwrap_err().why.contains("a tab"));
    }

    #[test]
    fn what_is_no_document_says_where() {
        for (text, line) in [
            ("a: [1\n", None),
            ("a: 1\n  b: 2\n", Some(2)),
            ("a: 'x\n", None),
            ("? [1, 2]\n: 3\n", None),
            ("a: *missing\n", Some(1)),
            ("a: 1\n---\nb: 2\n", None),
            ("a: !secret x\n", Some(1)),
            ("@\n", Some(1)),
        ] {
            let error = parse(text).unwrap_err();
            assert!(!error.why.is_empty() && !error.why.contains(" at line "), "{text:?}: {error:?}");
            if line.is_some() {
                assert_eq!(error.spot.map(|spot| spot.line), line, "{text:?}: {error:?}");
            }
        }
        assert!(parse(&"[".repeat(10_000)).is_err());
        // A few lines that would unfold to 9^9 values.
        let mut bomb = "a0: &a0 [x]\n".to_owned();
        for n in 1..10 {
            let nine = vec![format!("*a{}", n - 1); 9].join(", ");
            bomb = format!("{bomb}a{n}: &a{n} [{nine}]\n");
        }
        assert!(parse(&bomb).is_err());
        // One list that is repeated as often as it is long.
        let squared = format!("a: &a [{}]\nb: [{}]\n", "x, ".repeat(9000), "*a, ".repeat(9000));
        assert!(parse(&squared).unwrap_err().why.contains("aliases"));
        assert!(parse("a: &a [1, 2]\nb: *a\nc: *a\n").is_ok());
        let many = parse(&format!("a:\n{}", "- []\n".repeat(300))).unwrap_err();
        assert_eq!(
            (many.spot.map(|spot| spot.line), many.why.as_str()),
            (Some(258), "more than 256 of '[' and '{' in one file")
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-c:,\\[\\]{}&*!|>'\"\n -]{0,40}", path in prop::collection::vec(0usize..3, 0..4)) {
            let _ = (parse(&text), spot_of(&text, &path));
        }
    }
}
