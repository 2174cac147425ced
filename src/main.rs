//! The `tproxy` command.

use std::process::ExitCode;

use tproxy::cli::{self, Stop};
use tproxy::exit::{Exit, Failure};
use tproxy::sys::{memory, secure, signal};

#[global_allocator]
static HEAP: memory::Heap = memory::Heap::new();

fn main() -> ExitCode {
    memory::prepare();
    signal::outlive_file_limits();
    // Before anything is read that the starter chose.
    if secure::has_borrowed_rights() {
        let failure = Failure::new(
            Exit::Usage,
            "this program was given rights that its starter lacks (set-user-ID, set-group-ID or capabilities of the \
             file), and does not run with those",
        );
        cli::log::failure(&failure.hint("take them from the file, and run it as root, as with sudo"));
        return ExitCode::from(Exit::Usage as u8);
    }
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
