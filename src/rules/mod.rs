//! Anybody's live rules: one small model, a reader for each source, and what they do to a packet of which perhaps not
//! everything is known. Pure.
//!
//! What a rule asks for is held, does not hold, or cannot be told; nothing is guessed. Rules are walked as the kernel
//! walks them, and each that may do something to the packet is named with how sure that is.

pub mod model;
pub mod nft;
pub mod numbers;
pub mod owner;
pub mod show;
pub mod walk;
pub mod words;
pub mod xt;

#[cfg(test)]
mod tests;
