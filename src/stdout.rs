//! Results on standard output.

use std::io::{self, Write as _};

use crate::exit::{Exit, Failure};

/// Prints a result. A reader that went away (`tproxy … | head`) is no error, a full disk is.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failed, format!("cannot write the result: {error}")))
        }
        _ => Ok(()),
    }
}
