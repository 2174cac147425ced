//! A direct.xml as text with the places of its elements.

use std::fmt::Write as _;
use std::ops::Range;

use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::entries::{Entry, EntryRule, is_our_priority};
use super::{Error, args};
use crate::plan::{OwnChain, Table};

/// What XML calls white space.
pub(super) const BLANK: [char; 4] = [' ', '\t', '\r', '\n'];

/// A direct.xml as text with the places of its elements.
pub(super) struct Document<'a> {
    text: &'a str,
    root: Root,
    /// The root's children, in order.
    pub(super) items: Vec<Item>,
}

enum Root {
    /// `<direct>` … `</direct>`; where the end tag begins.
    Open { end: usize },
    /// `<direct/>`; where it ends.
    Empty { end: usize },
}

/// A child of the root.
#[derive(Debug, Default)]
pub(super) struct Item {
    /// From its first `<` to behind its last `>`.
    pub(super) span: Range<usize>,
    name: String,
    ipv: String,
    table: String,
    chain: String,
    priority: String,
    content: String,
    /// It has content that is not text, or an entity that only its author knows.
    opaque: bool,
}

impl Item {
    /// Whether it may be replaced or removed.
    pub(super) fn is_ours(&self) -> bool {
        match self.name.as_str() {
            "chain" => self.is_in_our_chain(),
            "rule" => self.is_in_our_chain() || self.is_our_rule(),
            _ => false,
        }
    }

    /// A rule of somebody else in a chain of ours.
    pub(super) fn is_intruder(&self) -> bool {
        self.name == "rule" && self.is_in_our_chain() && !self.is_our_rule()
    }

    /// Whether it would fail without our chains.
    pub(super) fn leads_to_us(&self) -> bool {
        self.words().is_some_and(|words| args::leads_to_us(&words))
    }

    /// Whether it says the same.
    pub(super) fn is(&self, entry: &Entry) -> bool {
        let place = (self.ipv.as_str(), self.table.as_str(), self.chain.as_str());
        place == (entry.ipv, entry.table, entry.chain)
            && match &entry.rule {
                None => self.name == "chain",
                Some(EntryRule { priority, args }) => {
                    self.name == "rule"
                        && self.priority.trim().parse() == Ok(*priority)
                        && self.words().is_some_and(|words| Some(words) == args::split(args))
                }
            }
    }

    fn is_in_our_chain(&self) -> bool {
        self.is_ip() && self.table == Table::Nat.name() && OwnChain::named(&self.chain).is_some()
    }

    fn is_our_rule(&self) -> bool {
        let ours = |words: Vec<String>| {
            let numbered = self.priority.trim().parse().is_ok_and(is_our_priority);
            args::is_tagged(&words) || numbered && !args::has_comment(&words)
        };
        self.is_ip() && self.words().is_some_and(ours)
    }

    fn is_ip(&self) -> bool {
        matches!(self.ipv.as_str(), "ipv4" | "ipv6")
    }

    /// An attribute with an entity that only its author knows has no value here, and so the element is not ours.
    fn read_attributes(&mut self, tag: &BytesStart<'_>) -> Result<(), String> {
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(|error| error.to_string())?;
            let field = match attribute.key.as_ref() {
                "ipv" => &mut self.ipv,
                "table" => &mut self.table,
                "chain" => &mut self.chain,
                "priority" => &mut self.priority,
                _ => continue,
            };
            *field = attribute.normalized_value(XmlVersion::Implicit1_0).unwrap_or_default().into_owned();
        }
        Ok(())
    }

    fn words(&self) -> Option<Vec<String>> {
        if self.opaque { None } else { args::split(&self.content) }
    }
}

impl<'a> Document<'a> {
    /// Finds the elements.
    pub(super) fn parse(text: &'a str) -> Result<Self, Error> {
        Parser::new(text).parse().map(|(root, items)| Self { text, root, items })
    }

    /// The text without these items, which are in its order, and with these entries: where the first of the items
    /// was, or else behind everything.
    pub(super) fn replace(&self, gone: &[&Item], entries: &[Entry]) -> String {
        let entries: Vec<String> = entries.iter().map(Entry::xml).collect();
        self.replace_by(gone, entries.iter().map(String::as_str))
    }

    /// The same with elements as they stood in another file.
    pub(super) fn replace_by<'e>(&self, gone: &[&Item], elements: impl Iterator<Item = &'e str>) -> String {
        let newline = if self.text.contains("\r\n") { "\r\n" } else { "\n" };
        let mut block = String::new();
        for element in elements {
            // Writing to a String cannot fail.
            let _ = write!(block, "{newline}  {element}");
        }
        let Some(first) = gone.first() else { return self.append(&block, newline) };
        let mut out = self.text[..self.line_start(first)].to_owned() + &block;
        let mut kept = first.span.end;
        for item in &gone[1..] {
            out.push_str(&self.text[kept..self.line_start(item)]);
            kept = item.span.end;
        }
        out + &self.text[kept..]
    }

    /// Those of its elements that are ours.
    pub(super) fn ours(&self) -> Vec<&Item> {
        self.items.iter().filter(|item| item.is_ours()).collect()
    }

    /// An element as it stands in the text.
    pub(super) fn raw(&self, item: &Item) -> &'a str {
        &self.text[item.span.clone()]
    }

    fn append(&self, block: &str, newline: &str) -> String {
        match &self.root {
            _ if block.is_empty() => self.text.to_owned(),
            Root::Open { end } => {
                let (before, after) = self.text.split_at(self.text[..*end].trim_end_matches(BLANK).len());
                format!("{before}{block}{after}")
            }
            Root::Empty { end } => {
                let (before, after) = self.text.split_at(*end);
                let tag = before.strip_suffix("/>").unwrap_or(before).trim_end_matches(BLANK);
                format!("{tag}>{block}{newline}</direct>{after}")
            }
        }
    }

    /// Where an element begins together with the line break and the indent that [`Self::replace`] puts before one.
    fn line_start(&self, item: &Item) -> usize {
        let before = self.text[..item.span.start].trim_end_matches([' ', '\t']);
        let before = before.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        before.map_or(item.span.start, str::len)
    }
}

struct Parser<'a> {
    text: &'a str,
    reader: Reader<&'a [u8]>,
    /// What the reader passes over and does not count.
    offset: usize,
    root: Option<Root>,
    items: Vec<Item>,
    /// How many elements are open.
    depth: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let xml = text.strip_prefix('\u{feff}').unwrap_or(text);
        let offset = text.len() - xml.len();
        Self { text, reader: Reader::from_str(xml), offset, root: None, items: Vec::new(), depth: 0 }
    }

    fn parse(mut self) -> Result<(Root, Vec<Item>), Error> {
        loop {
            let start = self.place(self.reader.buffer_position());
            let event = match self.reader.read_event() {
                Ok(event) => event,
                Err(error) => return Err(self.error(self.place(self.reader.error_position()), &error)),
            };
            let span = start..self.place(self.reader.buffer_position());
            match event {
                Event::Start(tag) => {
                    self.element(&tag, span).map_err(|reason| self.error(start, &reason))?;
                    self.depth += 1;
                }
                Event::Empty(tag) => {
                    self.element(&tag, span.clone()).map_err(|reason| self.error(start, &reason))?;
                    if self.depth == 0 {
                        self.root = Some(Root::Empty { end: span.end });
                    }
                }
                Event::End(_) => self.end(span),
                Event::Text(text) => self.content(&text.xml10_content()),
                Event::CData(text) => self.content(&text.xml10_content()),
                Event::GeneralRef(entity) => {
                    self.entity(&entity).map_err(|error| self.error(start, &error))?;
                }
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
                Event::Eof => break,
            }
        }
        match self.root {
            Some(root) if self.depth == 0 => Ok((root, self.items)),
            Some(_) => Err(self.error(self.text.len(), &"the file ends within an element")),
            None => Err(self.error(self.text.len(), &"there is no <direct> in it")),
        }
    }

    fn place(&self, position: u64) -> usize {
        usize::try_from(position).unwrap_or(usize::MAX).saturating_add(self.offset)
    }

    fn error(&self, position: usize, reason: &dyn std::fmt::Display) -> Error {
        let line = self.text.get(..position).unwrap_or(self.text).split('\n').count();
        Error::Malformed { line, reason: reason.to_string() }
    }

    fn element(&mut self, tag: &BytesStart<'_>, span: Range<usize>) -> Result<(), String> {
        let mut item = Item { span, name: tag.name().as_ref().to_owned(), ..Item::default() };
        item.read_attributes(tag)?;
        match self.depth {
            0 if self.root.is_some() || item.name != "direct" => {
                return Err(format!("<{}> where one <direct> is expected", item.name));
            }
            0 => self.root = Some(Root::Open { end: item.span.end }),
            1 => self.items.push(item),
            _ => self.nothing_to_read(),
        }
        Ok(())
    }

    fn end(&mut self, span: Range<usize>) {
        // The reader has checked that it belongs to an open element.
        self.depth -= 1;
        match (self.depth, self.items.last_mut()) {
            (0, _) => self.root = Some(Root::Open { end: span.start }),
            (1, Some(item)) => item.span.end = span.end,
            _ => {}
        }
    }

    fn content(&mut self, text: &str) {
        if let (2.., Some(item)) = (self.depth, self.items.last_mut()) {
            item.content.push_str(text);
        }
    }

    fn nothing_to_read(&mut self) {
        if let (2.., Some(item)) = (self.depth, self.items.last_mut()) {
            item.opaque = true;
        }
    }

    fn entity(&mut self, entity: &BytesRef<'_>) -> Result<(), quick_xml::Error> {
        match entity.resolve_char_ref()? {
            Some(c) => self.content(c.encode_utf8(&mut [0; 4])),
            None => match resolve_predefined_entity(entity) {
                Some(text) => self.content(text),
                None => self.nothing_to_read(),
            },
        }
        Ok(())
    }
}
