//! The `tproxy` command.

use std::process::ExitCode;

use tproxy::cli::{self, Stop};

#[global_allocator]
static HEAP: tproxy::sys::memory::Heap = tproxy::sys::memory::Heap::new();

fn main() -> ExitCode {
    cli::log::set_up();
    match cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Said(code)) => ExitCode::from(code),
        Err(Stop::Failed(failure)) => {
            cli::log::failure(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}
