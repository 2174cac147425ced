//! `tproxy verify`: what it says of hosts in order and of hosts that are not, and that it keeps to itself.

mod attacked;
mod bad_input;
mod beside;
mod blame;
mod broken;
mod documented;
mod endless;
mod healthy;
mod install;
mod native;
mod next;
mod odd;
mod others;
mod owners;
mod quiet;
mod routed;
mod said;
mod sidecar;
mod slow;
mod stuck;
mod together;
mod unheard;
mod unrouted;

pub use said::{Said, verify};
