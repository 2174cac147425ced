//! The `tproxy` command.

use std::process::ExitCode;

use tproxy::cli::{self, Stop};

/// musl's own allocator gives memory back to the kernel, and asks for it anew, some seventy times in one installation,
/// which takes longer than the packets' new way does. Whoever forks has one thread here ([`tproxy::sys::detach`]), so
/// that no child begins with this allocator's lock held.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

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
