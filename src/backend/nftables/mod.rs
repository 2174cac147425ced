//! `nf_tables` by the kernel's own netlink: one table of ours, no program, no child process.

pub mod change;
pub mod commit;
pub mod decode;
mod elements;
pub mod encode;
mod expression;
pub mod foreign;
pub mod infer;
pub mod lower;
pub mod model;
pub mod observe;
pub mod refusal;
pub mod replay;
pub mod send;
pub mod set;
mod statement;
pub mod text;
pub mod wire;
