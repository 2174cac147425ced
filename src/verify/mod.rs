//! Proves with packets that traffic goes where the configuration says.
//!
//! Checks are derived from the configuration ([`derive`]), probes are sent by the users in question ([`probe`]) to a
//! place of our own ([`lab`]), and what they reached is judged ([`judge`]). No packet leaves this host: destinations
//! are documentation addresses that a temporary interface leads to, or the sockets are bound to it.

mod budget;
pub mod check;
mod connect;
mod datagram;
pub mod derive;
mod elsewhere;
mod exclusions;
pub mod explain;
pub(crate) mod flows;
pub mod ground;
mod guests;
pub mod judge;
mod lab;
mod loopback;
pub(crate) mod others;
mod probe;
mod queue;
mod quiet;
mod roads;
pub(crate) mod routes;
mod routing;
mod rules;
mod run;
mod settle;
mod source;
mod stand_in;
pub mod turn;
mod unrouted;
pub mod witness;

pub use budget::Budget;
pub use check::{Evidence, Id, Method, Outcome, Report, Status};
pub use run::run;
pub use source::{Wanted, files_must_answer, wanted};
