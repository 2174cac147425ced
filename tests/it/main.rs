//! Everything that needs more than one module, or the built program.

mod cli;
mod pure;
mod readme;
