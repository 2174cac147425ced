//! Any bytes as a datagram of the kernel: taken apart without a panic, and what was told of our table is read, said in
//! words, compared and written again. `seeds/netlink` has datagrams that a kernel sent.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../told.rs"]
mod told;

fuzz_target!(|bytes: &[u8]| {
    told::datagram(bytes);
});
