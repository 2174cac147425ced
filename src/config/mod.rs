//! What is wanted: the typed configuration, its value grammars, and the layers it is put together from.
//!
//! Pure: nothing here reads files, the environment or the host. Whoever calls hands the text in.

mod schema;
pub mod values;

pub use schema::{
    Comments, Config, Dns, Executables, Inbound, LogRules, Outbound, Redirect, Retry, VirtualNetworks,
};
