//! Any bytes as a table of the legacy variant: read without a panic, and read again as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tproxy::backend::iptables::legacy::LegacyTable;
use tproxy::plan::Family;

fuzz_target!(|input: (bool, [Option<u32>; 5], &[u8])| {
    let (six, hooks, bytes) = input;
    let family = if six { Family::V6 } else { Family::V4 };
    let read = || LegacyTable::decode(family, "nat", &hooks, bytes.to_vec());
    let Some(table) = read() else { return };
    let saved = table.saved(true);
    let ours = saved.chains.iter().any(|chain| chain.name == "KUMA_MESH_OUTBOUND");
    assert!(!ours || table.is_ours());
    assert_eq!(read().map(|table| table.saved(true)), Some(saved));
});
