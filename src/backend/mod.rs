//! How a plan is said and applied: one folder for each way.

pub mod firewalld;
pub mod iptables;
pub mod nftables;
