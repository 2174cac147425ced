//! What the command line points at: configuration files, standard input, the environment.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};

use crate::apply::store::State;
use crate::config::text::quoted;
use crate::config::{self, File};

/// The largest configuration that is read, in bytes: room for tens of thousands of addresses, and an end to
/// `--config /dev/zero`.
const LARGEST: u64 = 4 << 20;

/// What messages call standard input.
const STDIN: &str = "<stdin>";

/// Reads configuration files in their order; `-` is standard input, and nothing when it is named again.
pub fn files(names: &[String]) -> (Vec<File>, Vec<String>) {
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    let mut stdin_read = false;
    for name in names {
        if name == "-" && std::mem::replace(&mut stdin_read, true) {
            files.push(File { name: STDIN.into(), text: String::new(), recorded: false });
            continue;
        }
        match file(name) {
            Ok(file) => files.push(file),
            Err(problem) => problems.push(problem),
        }
    }
    (files, problems)
}

fn file(name: &str) -> Result<File, String> {
    let read = if name == "-" { text(io::stdin().lock()) } else { fs::File::open(name).and_then(text) };
    let shown = if name == "-" { STDIN } else { name };
    match read {
        // What an installation recorded can be installed again.
        Ok(text) => {
            let recorded = State::config_in(&text);
            Ok(File { name: shown.into(), recorded: recorded.is_some(), text: recorded.unwrap_or(text) })
        }
        // kumactl 2.9 and 2.10 took the document itself, and scripts still pass it.
        Err(_) if name != "-" && fs::symlink_metadata(name).is_err() && config::is_document(name) => {
            Ok(File { name: config::DOCUMENT.into(), recorded: false, text: name.to_owned() })
        }
        Err(error) => Err(format!("cannot read the configuration file {}: {error}", quoted(shown))),
    }
}

fn text(source: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    source.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The variables that set something, in a stable order.
pub fn variables() -> (Vec<(String, String)>, Vec<String>) {
    let (mut variables, mut problems) = (Vec::new(), Vec::new());
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| config::is_variable(name)) else { continue };
        match value.to_str() {
            Some(value) => variables.push((name.to_owned(), value.to_owned())),
            None => problems.push(format!(
                "invalid value {} for the variable {name}: it is not UTF-8 text",
                quoted(&OsStr::to_string_lossy(&value))
            )),
        }
    }
    variables.sort();
    (variables, problems)
}
