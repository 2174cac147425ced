//! A configuration as text: the file it would be, the commented default file, the table for the documentation.

use std::fmt::Write as _;

use super::Config;
use super::field::Shown;
use super::origin::{Origin, Sources};
use super::settings::{Group, SETTINGS, Setting};

/// The configuration as a YAML file that loads back to it; with sources, each value's origin is a comment.
pub fn yaml(config: &Config, sources: Option<&Sources>) -> String {
    let mut config = config.clone();
    let mut lines = Lines::default();
    for setting in SETTINGS.iter().filter(|setting| setting.usable()) {
        lines.setting(setting, &setting.field.show(&mut config), sources);
    }
    lines.aligned()
}

/// A file with every key, its default and what it means; loading it changes nothing.
pub fn default_file() -> String {
    let mut config = Config::default();
    let mut lines = Lines::default();
    let mut out =
        String::from("# Every setting of tproxy with its default. Loading this file changes nothing.\n");
    for setting in SETTINGS.iter().filter(|setting| setting.usable()) {
        let before = lines.done.len();
        lines.enter(setting);
        let indent = lines.indent();
        lines.done.insert(before, (String::new(), String::new()));
        let mut comment = String::new();
        for sentence in setting.doc.lines() {
            for line in wrap(sentence, 100) {
                let _ = writeln!(comment, "{indent}# {line}");
            }
        }
        lines.done.push((comment.trim_end().to_owned(), String::new()));
        lines.setting(setting, &setting.field.show(&mut config), None);
    }
    out.push_str(&lines.aligned());
    out
}

/// The settings as Markdown tables, one for each group: flag, key, variable, default, meaning.
pub fn reference() -> String {
    let mut config = Config::default();
    let mut out = String::new();
    for group in Group::ALL {
        let _ = writeln!(out, "### {}\n", group.title());
        out.push_str("| flag | key | variable (after `KUMA_TRANSPARENT_PROXY_`) | default | meaning |\n");
        out.push_str("|---|---|---|---|---|\n");
        for setting in SETTINGS.iter().filter(|setting| setting.group == group && setting.usable()) {
            let flag = setting.flag.map(|flag| format!("`--{flag}`")).unwrap_or_default();
            let default = match setting.field.show(&mut config) {
                Shown::Word(word) => format!("`{word}`"),
                Shown::Text(text) if !text.is_empty() => format!("`{text}`"),
                _ => String::new(),
            };
            let doc = setting.doc.replace('\n', ". ").replace('|', "\\|").replace('*', "\\*");
            let _ = writeln!(
                out,
                "| {flag} | `{}` | `{}` | {default} | {} |",
                setting.key,
                setting.variable,
                doc.trim_end_matches('.')
            );
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// Lines of a file with their comments, and the section that is open.
#[derive(Default)]
struct Lines {
    done: Vec<(String, String)>,
    open: Vec<&'static str>,
}

impl Lines {
    fn indent(&self) -> String {
        "  ".repeat(self.open.len())
    }

    /// Opens the sections that a setting stands in.
    fn enter(&mut self, setting: &Setting) {
        let mut path = setting.key.split('.').collect::<Vec<_>>();
        path.pop();
        while !path.starts_with(&self.open) {
            self.open.pop();
        }
        for section in &path[self.open.len()..] {
            let line = format!("{}{section}:", self.indent());
            self.done.push((line, String::new()));
            self.open.push(section);
        }
    }

    fn setting(&mut self, setting: &Setting, shown: &Shown, sources: Option<&Sources>) {
        self.enter(setting);
        let name = setting.key.rsplit('.').next().unwrap_or_default();
        let origin = |key: &str| sources.map(|sources| comment(&sources.of(key))).unwrap_or_default();
        let indent = self.indent();
        let value = match shown {
            Shown::Word(word) => word.clone(),
            Shown::Text(text) => scalar(text),
            Shown::Words(words) => format!("[{}]", words.join(", ")),
            Shown::Texts(texts) => {
                format!("[{}]", texts.iter().map(|text| scalar(text)).collect::<Vec<_>>().join(", "))
            }
            Shown::Pairs(pairs) if pairs.is_empty() => "{}".into(),
            Shown::Pairs(pairs) => {
                self.done.push((format!("{indent}{name}:"), String::new()));
                for (program, path) in pairs {
                    let from = origin(&format!("{}.{program}", setting.key));
                    self.done.push((format!("{indent}  {program}: {}", scalar(path)), from));
                }
                return;
            }
        };
        self.done.push((format!("{indent}{name}: {value}"), origin(setting.key)));
    }

    /// The text, with the comments of short lines below each other.
    fn aligned(&self) -> String {
        let short =
            self.done.iter().filter(|(_, comment)| !comment.is_empty()).map(|(line, _)| line.chars().count());
        let width = short.filter(|width| *width <= 60).max().unwrap_or(0);
        let mut out = String::new();
        for (line, comment) in &self.done {
            if comment.is_empty() {
                let _ = writeln!(out, "{line}");
            } else {
                let _ = writeln!(out, "{line:<width$}  # {comment}");
            }
        }
        out
    }
}

/// An origin on one line: a file's name is the only thing in it that somebody else chose.
fn comment(origin: &Origin) -> String {
    origin
        .to_string()
        .chars()
        .filter(|c| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{85}'))
        .collect()
}

/// A free text as a YAML scalar: bare where no reader could take it for something else, else in double quotes.
fn scalar(text: &str) -> String {
    let bare = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+'))
        && super::text::yaml_switch(text).is_none()
        && !["null", "true", "false"].contains(&text.to_ascii_lowercase().as_str());
    if bare {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            ' '..='~' => out.push(c),
            _ => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
        }
    }
    out.push('"');
    out
}

/// Breaks a sentence at spaces so that no line is longer than the width, where words allow it.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let fits = lines.last().is_some_and(|line| line.is_empty() || line.len() + 1 + word.len() <= width);
        if !fits {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
