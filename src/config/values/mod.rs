//! The value grammars: one type per kind of value, valid by construction.
//!
//! `FromStr` is the only way in from text. An error names what is allowed; the caller adds which value it was and
//! where it came from.

mod backend;
mod networks;
mod ports;
mod users;

use std::str::FromStr;

pub use backend::BackendChoice;
pub use networks::{Cidr, InterfacePattern, IpFamilyMode, VirtualNetwork};
pub use ports::{Port, PortRange, Protocol};
pub use users::{MAX_UID, UidExclusion, UidRange, UserSpec};

/// Why a text is not a value of the wanted kind; reads on after "invalid value 'X': ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(pub String);

pub(in crate::config) fn invalid<T>(why: impl Into<String>) -> Result<T, InvalidValue> {
    Err(InvalidValue(why.into()))
}

/// A whole number that fits 32 bits; `what` says of what, for the error.
pub(in crate::config) fn whole_number(text: &str, what: &str) -> Result<u32, InvalidValue> {
    decimal(text).ok_or_else(|| InvalidValue(format!("{what} is a whole number from 0 to {}", u32::MAX)))
}

/// A decimal number without sign, and without the leading `+` that Rust's parser lets pass.
fn decimal<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
