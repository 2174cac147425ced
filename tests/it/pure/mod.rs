//! What can be said without a kernel: plans as text, and the laws of transitions on a model of `iptables-restore`.

mod comments;
pub mod configs;
mod costs;
mod derived;
pub mod golden;
mod inference;
mod judged;
mod laws;
mod model;
mod purity;
mod records;
mod sentences;
mod verdicts;
