//! The same of the native backend, which has no program that could fail: what can go wrong is the kernel, the rights
//! that it grants, its other users, and the program's own end.

mod kills;
mod lacking;
mod others;
mod rights;

use super::FIRST;
use crate::support::command::Program;
use crate::support::tracer::{Call, Then, When, trace};
use crate::support::{Backend, Lab, Run};

const NATIVE: Backend = Backend::Nftables;

/// An install, every message of which to netfilter goes through `change` first.
fn install_saying(lab: &Lab, flags: &[&str], change: impl Fn(&mut [u8]) + Sync) -> Run {
    saying(&lab.installing(NATIVE, flags), change)
}

fn saying(program: &Program, change: impl Fn(&mut [u8]) + Sync) -> Run {
    trace(program, |call: &Call, when| {
        if when == When::Before
            && let Some(mut bytes) = call.said()
        {
            change(&mut bytes);
            call.say(&bytes);
        }
        Then::GoOn
    })
}

/// Puts as many bytes in the place of others, wherever they are; how often.
fn swap(bytes: &mut [u8], old: &[u8], new: &[u8]) -> usize {
    assert_eq!(old.len(), new.len());
    let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(old)).collect();
    for at in &places {
        bytes[*at..][..new.len()].copy_from_slice(new);
    }
    places.len()
}
