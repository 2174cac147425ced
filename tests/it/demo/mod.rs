//! The demonstration: what it shows is true, and nothing of it is left, whatever happens to it.

mod faults;
mod room;
mod shown;
mod stopped;
