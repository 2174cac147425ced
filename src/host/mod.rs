//! What is there: users, interfaces, IPv6, DNS servers. Reads only.

mod facts;

pub use facts::{HostFacts, Ipv6Support, Resolver};
