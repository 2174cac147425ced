//! The kernel's `nf_tables` as our own messages speak to it, with real `nft` beside.

mod datagrams;
mod foreign;
mod odds;
mod random;
mod same;
mod sample;
mod size;
