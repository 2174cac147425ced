//! Files that the kernel makes up. They have no size, so the standard library reads them in small pieces, each of which
//! the kernel makes anew.

use std::fs::File;
use std::io::Read as _;

/// More than most of them have.
const PIECE: usize = 4096;

/// What is in one; `None` if it cannot be read.
pub fn bytes(path: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(PIECE);
    File::open(path).ok()?.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The same of text. Every user can put bytes that are none into it, as the name of a process or of a mount point.
pub fn text(path: &str) -> Option<String> {
    Some(String::from_utf8_lossy(&bytes(path)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_files_are_read() {
        assert!(text("/proc/self/status").unwrap().contains("Uid:"));
        assert_eq!(bytes("/proc/self/cmdline"), std::fs::read("/proc/self/cmdline").ok());
        assert_eq!(text("/proc/self/nothing"), None);
    }
}
