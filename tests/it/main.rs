//! Everything that needs more than one module, or the built program.

mod cli;
mod demo;
mod differential;
mod doors;
mod envoy;
mod firewalld;
mod injection;
mod kernel;
mod laws;
mod legacy;
mod nftables;
mod pure;
mod readme;
mod status;
mod support;
mod sys;
mod verify;
