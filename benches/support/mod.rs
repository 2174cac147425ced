//! What the benchmarks share.

pub mod clock;
pub mod exclusions;
pub mod lab;
pub mod options;
