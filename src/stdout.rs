//! Results on standard output.

use std::cell::RefCell;
use std::io::{self, Write as _};

use crate::exit::{Exit, Failure};

thread_local! {
    static KEPT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Prints a result. A reader that went away (`tproxy … | head`) is no error, a full disk is.
pub fn print(text: &str) -> Result<(), Failure> {
    if KEPT.with_borrow_mut(|kept| kept.as_mut().map(|kept| kept.push_str(text))).is_some() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failed, format!("cannot write the result: {error}")))
        }
        _ => Ok(()),
    }
}

/// Does something and keeps what it would print, for a command that is a part of another one.
pub fn kept<T>(work: impl FnOnce() -> T) -> (T, String) {
    let outer = KEPT.replace(Some(String::new()));
    let done = work();
    (done, KEPT.replace(outer).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_would_be_printed() {
        let ((), outer) = kept(|| {
            print("a").unwrap();
            let ((), inner) = kept(|| print("b").unwrap());
            print(&inner.to_uppercase()).unwrap();
        });
        assert_eq!(outer, "aB");
    }
}
