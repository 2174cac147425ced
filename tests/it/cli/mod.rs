//! What can be typed and what comes back. Nothing here needs root or changes a firewall.

pub mod bad;
mod bad_input;
mod command;
mod config;
mod generated;
mod good_input;
mod run;
mod streams;
