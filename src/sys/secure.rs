//! Whether whoever started this process has fewer rights than it has: the program was made set-user-ID or
//! set-group-ID, or given capabilities as a file.
#![allow(unsafe_code, reason = "getauxval has no wrapper")]

use nix::unistd::{getegid, geteuid, getgid, getuid};

/// Whether this process has rights that its starter lacks (`AT_SECURE` in `getauxval(3)`). Files, variables and
/// programs that the starter names would then be used with the rights of another. A security module sets the mark
/// too, as of a container's first process; where root started it with its own IDs, nothing is borrowed.
pub fn has_borrowed_rights() -> bool {
    // SAFETY: it takes a number, returns one, and reads what the kernel gave this process at its start.
    let marked = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    let own = getuid().is_root() && geteuid() == getuid() && getegid() == getgid();
    marked && !own
}
