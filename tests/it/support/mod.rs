//! What kernel tests are written with: a machine of one's own, its neighbour, and words for what they do.

pub mod backend;
pub mod capture;
pub mod client;
pub mod command;
pub mod conntrack;
pub mod docker;
pub mod firewall;
pub mod firewalld;
pub mod generation;
pub mod injector;
pub mod kumactl;
pub mod lab;
pub mod listener;
pub mod load;
pub mod mesh;
pub mod names;
pub mod network;
pub mod ruleset;
pub mod session;
pub mod snapshot;
pub mod state;
pub mod tracer;
pub mod users;
pub mod wrappers;

pub use backend::Backend;
pub use command::Run;
pub use firewall::{Family, Variant};
pub use lab::Lab;
pub use network::Peer;
pub use ruleset::Ruleset;
pub use users::{APP, SIDECAR, as_user};
