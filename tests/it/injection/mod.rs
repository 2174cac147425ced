//! Each system call of a run fails, or somebody is killed at it, and the promises about failure hold.
//!
//! A run is recorded first: which calls its program and its children make, and how often. Every call with every fault
//! is an injection; the whole is those that can tell something new. A few of them are tried, or a random part, or all,
//! or one. What breaks a promise is tried again on a fresh machine, and fails the test if it does so there, too.
//!
//! ```text
//! cargo test --test it injection::                                  a few of each scenario; the seed is printed
//! TPROXY_INJECT=1/10 cargo test --test it injection::               a tenth
//! TPROXY_INJECT=1/10 TPROXY_INJECT_SEED=7 cargo test --test it injection::    the tenth of that seed
//! TPROXY_INJECT=all cargo test --test it injection::                the whole
//! TPROXY_INJECT=every cargo test --test it injection::              those that tell nothing new, too
//! TPROXY_INJECT=program:sendto:3:ENOMEM cargo test --test it injection::fresh_nft
//! ```
//!
//! `TPROXY_INJECT_REPORT` names a file to which each scenario adds a line: how many were tried, and what came of them.
//! With `TPROXY_TEST_STATIC_BINARY` the program without libraries is tried, whose calls have other numbers.
//!
//! The promises are in [`law`]. What does not count, and why, is in [`fault`].

mod engine;
mod fault;
mod harness;
mod law;
mod scenario;

use crate::support::{Backend, Lab};
use scenario::{Act, Scenario, Start};

macro_rules! scenarios {
    ($($name:ident: $start:expr => $act:expr;)+) => {$(
        #[test]
        fn $name() {
            Lab::enter(|lab| {
                let scenario = Scenario { name: stringify!($name), start: $start, act: $act, around: None };
                engine::run(lab, &scenario);
            });
        }
    )+};
}

const NFT: Backend = Backend::NFT;
const LEGACY: Backend = Backend::LEGACY;
const NATIVE: Backend = Backend::Nftables;
/// Nobody waits for it: the end of the time is moved.
const TRIAL: &[&str] = &["--confirm", "600s"];
const STORED: &[&str] = &["--store-firewalld"];
const PROVED: &[&str] = &["--verify"];

scenarios! {
    fresh_nft: Start::Nothing => Act::Install(NFT, &[]);
    fresh_legacy: Start::Nothing => Act::Install(LEGACY, &[]);
    fresh_nftables: Start::Nothing => Act::Install(NATIVE, &[]);

    changed_nft: Start::Installed(NFT, STORED) => Act::Install(NFT, STORED);
    changed_legacy: Start::Installed(LEGACY, STORED) => Act::Install(LEGACY, STORED);
    changed_nftables: Start::Installed(NATIVE, &[]) => Act::Install(NATIVE, &[]);

    removed_nft: Start::Installed(NFT, STORED) => Act::Uninstall;
    removed_legacy: Start::Installed(LEGACY, STORED) => Act::Uninstall;
    removed_nftables: Start::Installed(NATIVE, &[]) => Act::Uninstall;

    proved_nft: Start::Installed(NFT, &[]) => Act::Install(NFT, PROVED);
    proved_legacy: Start::Installed(LEGACY, &[]) => Act::Install(LEGACY, PROVED);
    proved_nftables: Start::Installed(NATIVE, &[]) => Act::Install(NATIVE, PROVED);

    tried_nft: Start::Installed(NFT, &[]) => Act::Install(NFT, TRIAL);
    tried_legacy: Start::Installed(LEGACY, &[]) => Act::Install(LEGACY, TRIAL);
    tried_nftables: Start::Installed(NATIVE, &[]) => Act::Install(NATIVE, TRIAL);

    confirmed_nft: Start::Trial(NFT, TRIAL) => Act::Confirm;
    confirmed_nftables: Start::Trial(NATIVE, TRIAL) => Act::Confirm;

    moved_from_nft_to_legacy: Start::Installed(NFT, &[]) => Act::Install(LEGACY, &[]);
    moved_from_legacy_to_nft: Start::Installed(LEGACY, &[]) => Act::Install(NFT, &[]);
    moved_from_nft_to_nftables: Start::Installed(NFT, STORED) => Act::Install(NATIVE, &[]);
    moved_from_nftables_to_nft: Start::Installed(NATIVE, &[]) => Act::Install(NFT, STORED);
    moved_from_legacy_to_nftables: Start::Installed(LEGACY, &[]) => Act::Install(NATIVE, &[]);
    moved_from_nftables_to_legacy: Start::Installed(NATIVE, &[]) => Act::Install(LEGACY, &[]);
}
