//! `nf_tables` by the kernel's own netlink: one table of ours, no program, no child process.

pub mod change;
pub mod lower;
pub mod model;
pub mod set;
pub mod text;
