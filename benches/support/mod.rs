//! What the benchmarks share.

pub mod clock;
pub mod lab;
pub mod options;
