//! Legacy tables as the kernel hands them out, with the programs of the legacy variant beside.

mod host;
mod text;
