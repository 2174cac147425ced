//! The `tproxy` command.
fn main() {}
