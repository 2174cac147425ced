//! Configurations, and what is wrong with files, as JSON.

use serde_json::{Value, json};

use super::pretty;
use crate::config::settings::SETTINGS;
use crate::config::{Config, Sources, show};

/// A file that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// As it was named.
    pub name: String,
    /// What is wrong with it; empty: it is valid.
    pub problems: Vec<String>,
}

/// The configuration as a document that `--config` takes; with sources, an object with that and the origins by key.
pub fn config_json(config: &Config, sources: Option<&Sources>) -> String {
    // Keys, sections and values are those of the file, whatever form it has.
    let document: Value = serde_yaml::from_str(&show::yaml(config, None)).unwrap_or_default();
    let Some(sources) = sources else { return pretty(&document) };
    let origin = |key: &'static str| (key.to_owned(), Value::from(sources.of(key).to_string()));
    let origins = SETTINGS.iter().filter(|setting| setting.usable()).map(|setting| origin(setting.key));
    pretty(&json!({ "schema": 1, "config": document, "sources": Value::Object(origins.collect()) }))
}

/// What was found in files.
pub fn checked_json(files: &[Checked]) -> String {
    let file = |file: &Checked| json!({ "file": file.name, "valid": file.problems.is_empty(), "problems": file.problems });
    pretty(&json!({
        "schema": 1,
        "valid": files.iter().all(|file| file.problems.is_empty()),
        "files": files.iter().map(file).collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{File, Layers, resolve};

    #[test]
    fn the_document_is_the_configuration() {
        let text = "{kumaDPUser: '1000', redirect: {inbound: {excludePorts: [22, 80]}, dns: {enabled: true}}, \
                    retry: {sleepBetweenRetries: 1m30s}, iptablesExecutables: {iptables: /a, iptables-save: /b, \
                    iptables-restore: /c}}";
        let load = |text: &str| {
            let file = File { name: "x".into(), text: text.into(), recorded: false };
            resolve(&Layers { files: vec![file], ..Layers::default() }).unwrap()
        };
        let loaded = load(text);
        assert_eq!(load(&config_json(&loaded.config, None)).config, loaded.config);
        let with_sources: Value =
            serde_json::from_str(&config_json(&loaded.config, Some(&loaded.sources))).unwrap();
        assert_eq!(with_sources["config"]["redirect"]["inbound"]["excludePorts"], json!([22, 80]));
        assert_eq!(with_sources["sources"]["wait"], "default");
        assert!(with_sources["sources"]["redirect.dns.enabled"].as_str().unwrap().starts_with('x'));
    }
}
