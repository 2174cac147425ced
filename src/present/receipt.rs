//! What a run did.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::backend::Backend;
use crate::plan::Family;
use crate::status::model::{Finding, Saved};
use crate::text::{escape, hanging};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `tproxy install`
    Install,
    /// `tproxy uninstall`
    Uninstall,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// What was asked for.
    pub action: Action,
    /// Whether anything had to be done for it.
    pub changed: bool,
    /// Where rules are now, or were before an uninstall: in several places if somebody installed by several ways.
    pub backends: Vec<Backend>,
    /// How many rules of ours there are now, or were before an uninstall.
    pub rules: RuleCounts,
    /// Rules that stay because nobody knows whose they are.
    pub unattributed: Vec<String>,
    /// What keeps the sidecar from working, if anything does: stands in place of "you can now run kuma-dp".
    pub instead: Option<String>,
    /// What an uninstall left, or could not look at.
    pub left: Vec<Finding>,
    /// Of an uninstall, files from which rules come back.
    pub saved: Vec<Saved>,
}

/// How many rules there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleCounts {
    /// In the tables that everybody shares, which are each of one family.
    pub families: BTreeMap<Family, usize>,
    /// In our own table, which is of both.
    pub native: Option<usize>,
}

impl RuleCounts {
    /// Each with what it counts.
    fn each(&self) -> impl Iterator<Item = (String, usize)> {
        let families = self.families.iter().map(|(family, count)| (family.to_string(), *count));
        families.chain(self.native.map(|count| ("nftables".to_owned(), count)))
    }
}

/// Each of them as lines that are not too long.
pub fn lines(text: &str) -> String {
    text.lines().map(|line| hanging(line, 2) + "\n").collect()
}

impl Receipt {
    /// Of a run that left nothing behind that should be said.
    pub fn new(action: Action, changed: bool, backends: Vec<Backend>, rules: RuleCounts) -> Self {
        let (unattributed, left, saved) = (Vec::new(), Vec::new(), Vec::new());
        Self { action, changed, backends, rules, unattributed, instead: None, left, saved }
    }

    /// For people. The words that kumactl ends with are in it, because scripts look for them.
    pub fn text(&self) -> String {
        let variants = self.backends.iter().filter_map(|backend| backend.variant());
        let variants: Vec<_> = variants.map(|variant| variant.to_string()).collect();
        let variant =
            if variants.is_empty() { String::new() } else { format!(" ({})", variants.join(" and ")) };
        let shared = self.rules.families.iter().map(|(family, count)| format!("{count} {family}"));
        let shared = shared.collect::<Vec<_>>().join(" and ");
        let shared = (!shared.is_empty()).then(|| format!("{shared} rules{variant}"));
        let native = self.rules.native.map(|count| format!("{count} nftables rules"));
        let rules = shared.into_iter().chain(native).collect::<Vec<_>>().join(" and ");
        let text = match (self.action, self.changed) {
            (Action::Install, true) => {
                let next = self.instead.as_deref();
                let next = next.unwrap_or("You can now run kuma-dp with the transparent-proxy feature enabled");
                format!("transparent proxy setup completed successfully: {rules}\n{next}\n")
            }
            (Action::Install, false) => format!(
                "transparent proxy setup completed successfully: all {rules} were there already, \
                 nothing was written{}\n",
                self.instead.as_ref().map_or(String::new(), |instead| format!("\n{instead}"))
            ),
            (Action::Uninstall, true) if rules.is_empty() => {
                "transparent proxy cleanup completed successfully: no rules were left\n".to_owned()
            }
            (Action::Uninstall, true) => {
                format!("transparent proxy cleanup completed successfully: {rules} removed\n")
            }
            (Action::Uninstall, false) => {
                "transparent proxy cleanup completed successfully: nothing was installed, nothing was changed\n"
                    .to_owned()
            }
        };
        let Some(exceptions) = self.exceptions() else { return lines(&text) };
        let text = text.replacen("completed successfully", &format!("completed, but for {exceptions}"), 1);
        self.left.iter().fold(lines(&text), |mut text, left| {
            let fix = left.fix.as_ref().map_or(String::new(), |fix| format!("; {fix}"));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {}", hanging(&format!("{}{fix}", escape(&left.what)), 4));
            text
        })
    }

    /// What keeps the word "successfully" from being true: scripts look for it.
    fn exceptions(&self) -> Option<String> {
        let rules = match self.unattributed.len() {
            0 => None,
            1 => Some("1 rule that may be its own".to_owned()),
            more => Some(format!("{more} rules that may be its own")),
        };
        let left = match self.left.len() {
            0 => None,
            1 => Some("what is listed below".to_owned()),
            more => Some(format!("{more} things listed below")),
        };
        let files: Vec<_> =
            self.saved.iter().filter(|saved| saved.lines.is_ok()).map(|saved| escape(&saved.file)).collect();
        let saved = match files.as_slice() {
            [] => None,
            [one] => Some(format!("the rules saved in {one}, which come back when that file is loaded")),
            [one, more @ ..] => Some(format!(
                "the rules saved in {one} and {} more, which come back when those are loaded",
                if more.len() == 1 { "1 file".to_owned() } else { format!("{} files", more.len()) }
            )),
        };
        let all: Vec<_> = rules.into_iter().chain(left).chain(saved).collect();
        (!all.is_empty()).then(|| all.join(" and "))
    }

    /// The one way, unless there are several or none.
    fn backend(&self) -> Option<Backend> {
        match self.backends.as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// For programs, with further keys.
    pub fn json(&self, more: Vec<(&str, Value)>) -> String {
        let rules: serde_json::Map<_, _> =
            self.rules.each().map(|(what, count)| (what.to_lowercase(), json!(count))).collect();
        let mut all = json!({
            "schema": 1,
            "action": match self.action {
                Action::Install => "install",
                Action::Uninstall => "uninstall",
            },
            "changed": self.changed,
            "backend": self.backend().map(Backend::name),
            "variant": self.backend().and_then(Backend::variant).map(|variant| variant.to_string()),
            "rules": rules,
            "unattributed": self.unattributed,
        });
        if self.action == Action::Uninstall {
            let removed = self.backends.iter().map(|backend| {
                json!({ "backend": backend.name(), "variant": backend.variant().map(|variant| variant.to_string()) })
            });
            all["removed"] = removed.collect();
            all["left"] = self.left.iter().map(super::finding).collect();
            all["saved"] = self.saved.iter().map(super::saved).collect();
        }
        for (key, value) in more {
            all[key] = value;
        }
        super::pretty(&all)
    }
}
