//! The only doors to the kernel: child processes, netlink, namespaces, file locks, signals.
//!
//! `unsafe` lives here and nowhere else, each block with its reason.

pub mod alive;
pub mod bus;
pub mod cgroup;
pub mod detach;
pub mod files;
pub mod first;
pub mod lock;
pub mod memory;
pub mod moment;
pub mod netlink;
pub mod netns;
pub mod private;
pub mod proc;
pub mod raw;
pub mod rights;
pub mod run;
pub mod secure;
pub mod signal;
pub mod socket;
pub mod sockstat;
pub mod threads;
pub mod turn;
pub mod user;
pub mod watch;
pub mod xtables;

mod holder;
mod open_files;
mod poll;

pub use holder::{Holder, ancestry, is_stopped, process_command, user_of, writing_errors_to};
pub use open_files::socket_holders;

pub(crate) use crate::text::escape;
