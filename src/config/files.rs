//! One configuration file onto the configuration so far.

use std::collections::BTreeSet;

use super::Executables;
use super::document::{self, Node};
use super::field::{Field, Item};
use super::layers::{File, Work};
use super::origin::Origin;
use super::settings::{self, SETTINGS, Setting};
use super::text::{nearest, quoted};
use super::values::InvalidValue;

/// Applies a file; later layers see what it set.
pub(super) fn apply(work: &mut Work, file: &File) {
    match document::parse(&file.text) {
        Ok(Node::Null) => {}
        Ok(Node::Map(entries)) => Walk { work, file }.section("", &entries, &[]),
        Ok(_) => work.problems.push(format!(
            "{}: a configuration file holds keys with values, such as 'kumaDPUser: kuma-dp'",
            Origin::within(&file.name, None)
        )),
        Err(malformed) => {
            let origin = Origin::within(&file.name, malformed.spot);
            work.problems.push(format!("{origin}: this cannot be read as YAML or JSON: {}", malformed.why));
        }
    }
}

struct Walk<'a> {
    work: &'a mut Work,
    file: &'a File,
}

impl Walk<'_> {
    /// The place of an entry; looked up only while the problems are few.
    fn origin(&self, path: &[usize]) -> Origin {
        let spot = self.work.spot_of_problem(&self.file.text, path);
        Origin::within(&self.file.name, spot)
    }

    fn section(&mut self, prefix: &str, entries: &[(String, Node)], path: &[usize]) {
        let mut earlier = BTreeSet::new();
        for (index, (key, node)) in entries.iter().enumerate() {
            let path = [path, &[index]].concat();
            let full = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            if !earlier.insert(key.to_ascii_lowercase()) {
                let origin = self.origin(&path);
                self.work.problems.push(format!(
                    "the key {} ({origin}) is there twice; keep one of the two",
                    quoted(&full)
                ));
            } else if key.contains('.') {
                let origin = self.origin(&path);
                self.work.problems.push(format!(
                    "unknown key {} ({origin}); write what stands before each '.' as a section of its own",
                    quoted(&full)
                ));
            } else if full.eq_ignore_ascii_case("ebpf") {
                self.ebpf(node, &path);
            } else if let Some(setting) = settings::by_key(&full) {
                self.setting(setting, node, &path);
            } else if let Some(section) = section_named(&full) {
                self.subsection(section, node, &path);
            } else {
                let origin = self.origin(&path);
                let meant = self.work.lists().then(|| format!("; {}", suggestion(prefix, key)));
                let meant = meant.unwrap_or_default();
                self.work.problems.push(format!("unknown key {} ({origin}){meant}", quoted(&full)));
            }
        }
    }

    fn subsection(&mut self, section: &str, node: &Node, path: &[usize]) {
        match node {
            Node::Map(entries) => self.section(section, entries, path),
            Node::Null => {}
            _ => {
                let origin = self.origin(path);
                let children = children(section).join(", ");
                self.work.problems.push(format!("{section} ({origin}) is a section; it may hold {children}"));
            }
        }
    }

    fn setting(&mut self, setting: &'static Setting, node: &Node, path: &[usize]) {
        if let (Field::Programs(_), true) = (setting.field, self.file.recorded) {
            return self.leave_programs(setting, node, path);
        }
        let items = match (setting.field, node) {
            (Field::Programs(_), Node::Map(entries)) => self.programs(setting, entries, path),
            (Field::Programs(_), Node::Null) => Some(Vec::new()),
            _ => match setting.field.cut_node(node) {
                Ok(items) => Some(items),
                Err((below, why)) => {
                    let origin = self.origin(&[path, &below].concat());
                    self.complain(setting, node, &origin, &why);
                    None
                }
            },
        };
        let Some(items) = items else {
            self.work.unsettled.insert(setting.key);
            return;
        };
        let (text, name) = (&self.file.text, &self.file.name);
        let here = self.work.spot_of_value(text, path);
        self.work.assign(setting, &items, true, |work, below| {
            let spot = match below {
                Some(below) if !below.is_empty() => work.spot_of_problem(text, &[path, below].concat()),
                _ => here,
            };
            Origin::within(name, spot)
        });
    }

    fn leave_programs(&mut self, setting: &Setting, node: &Node, path: &[usize]) {
        if !matches!(node, Node::Map(entries) if !entries.is_empty()) {
            return;
        }
        let naming = self.origin(path).naming(setting.key);
        let flag = setting.flag.unwrap_or(setting.key);
        self.work.notes.push(format!(
            "{naming}: the programs in a record are not run; to run them, name them with --{flag}"
        ));
    }

    fn complain(&mut self, setting: &Setting, node: &Node, origin: &Origin, why: &InvalidValue) {
        let value = match node {
            Node::Float(text) => format!(" {}", quoted(text)),
            _ => String::new(),
        };
        let naming = origin.naming(setting.key);
        self.work.problems.push(format!("invalid value{value} for {naming}: {why}"));
    }

    /// The section with a path for each program, as the `name:path` that flags and variables use.
    fn programs(
        &mut self,
        setting: &'static Setting,
        entries: &[(String, Node)],
        path: &[usize],
    ) -> Option<Vec<Item>> {
        let mut items = Vec::new();
        let before = self.work.problems.len();
        for (index, (key, node)) in entries.iter().enumerate() {
            let path = [path, &[index]].concat();
            let known = Executables::NAMES.into_iter().find(|name| name.eq_ignore_ascii_case(key));
            match (known, node) {
                (Some(name), Node::Scalar(program)) if !program.is_empty() => {
                    items.push(Item { text: format!("{name}:{program}"), within: None, path: vec![index] });
                }
                (Some(_), Node::Scalar(_) | Node::Null) => {}
                (Some(name), _) => {
                    let naming = self.origin(&path).naming(&format!("{}.{name}", setting.key));
                    self.work
                        .problems
                        .push(format!("invalid value for {naming}: expected the path of a program"));
                }
                (None, _) => {
                    let origin = self.origin(&path);
                    let near = self.work.lists().then(|| nearest(key, Executables::NAMES)).flatten();
                    let meant = match near {
                        Some(meant) => format!("did you mean '{}.{meant}'?", setting.key),
                        None => format!("{} may hold {}", setting.key, Executables::NAMES.join(", ")),
                    };
                    let full = format!("{}.{key}", setting.key);
                    self.work.problems.push(format!("unknown key {} ({origin}); {meant}", quoted(&full)));
                }
            }
        }
        (self.work.problems.len() == before).then_some(items)
    }

    fn ebpf(&mut self, node: &Node, path: &[usize]) {
        let Node::Map(entries) = node else { return };
        let switch = entries.iter().enumerate().find(|(_, (key, _))| key.eq_ignore_ascii_case("enabled"));
        if let Some((index, (_, Node::Scalar(text)))) = switch {
            let naming = self.origin(&[path, &[index]].concat()).naming("ebpf.enabled");
            let text = match super::text::yaml_switch(text) {
                Some(on) => on.to_string(),
                None => text.clone(),
            };
            self.work.ebpf(&naming, true, &text);
        }
    }
}

/// The section of that name, in its own spelling.
fn section_named(full: &str) -> Option<&'static str> {
    SETTINGS.iter().find_map(|setting| {
        let rest = setting.key.get(full.len()..)?;
        (setting.key.is_char_boundary(full.len())
            && rest.starts_with('.')
            && setting.key[..full.len()].eq_ignore_ascii_case(full))
        .then(|| &setting.key[..full.len()])
    })
}

/// The keys and sections directly below a section.
fn children(section: &str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for setting in SETTINGS {
        let below = if section.is_empty() {
            Some(setting.key)
        } else {
            setting.key.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'))
        };
        let Some(name) = below.and_then(|rest| rest.split('.').next()) else { continue };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// What an unknown key most likely should have been: a neighbour spelt alike, else the same word elsewhere, else
/// everything that the section knows.
fn suggestion(section: &str, key: &str) -> String {
    let full = |name: &str| if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
    if let Some(name) = nearest(key, children(section)) {
        return format!("did you mean '{}'?", full(name));
    }
    let word = |setting: &&Setting| setting.key.rsplit('.').next().unwrap_or_default();
    let elsewhere = SETTINGS.iter().filter(|setting| word(setting).eq_ignore_ascii_case(key));
    let elsewhere = elsewhere.map(|setting| format!("'{}'", setting.key)).collect::<Vec<_>>();
    if !elsewhere.is_empty() {
        return format!("did you mean {}?", elsewhere.join(" or "));
    }
    let known = children(section).join(", ");
    if section.is_empty() {
        format!("a file may hold {known}")
    } else {
        format!("{section} may hold {known}")
    }
}
