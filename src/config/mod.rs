//! What is wanted: the typed configuration, its value grammars, and the layers it is put together from.
//!
//! Pure: nothing here reads files, the environment or the host. Whoever calls hands the text in.

mod checks;
mod command;
pub mod document;
pub mod duration;
pub mod field;
mod files;
mod layers;
mod origin;
mod schema;
pub mod settings;
pub mod show;
mod table;
pub mod text;
pub mod values;

#[cfg(test)]
mod tests;

pub use command::{Written, install_command, is_short, leaving_alone};
pub use document::is_document;
pub use layers::{File, Flag, LISTED, Layers, Problems, Resolved, is_variable, resolve, resolve_anyway};
pub use origin::{DOCUMENT, Origin, Sources};
pub use schema::{
    Comments, Config, Dns, Executables, Inbound, LogRules, Outbound, Redirect, Retry, VirtualNetworks,
};
