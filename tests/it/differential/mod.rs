//! The native table does what the iptables rules do: for configurations, hosts and packets at random, first as both
//! are said, then as the kernel does it.

mod case;
mod kernel;
mod machine;
mod meaning;
mod native;
mod packet;
mod planned;
mod wire;
