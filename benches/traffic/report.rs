//! The first table that comes out.

use crate::client::Sample;
use crate::place::Place;
use crate::rounds::Rounds;
use crate::support::lab::Backend;

/// Its lines.
#[derive(Default)]
pub struct Report(Vec<String>);

impl Report {
    /// Adds what the rounds gave; the first place of each is what all others are compared with.
    pub fn add(&mut self, backend: Backend, places: &[Place], rounds: &Rounds<Sample>) {
        for (index, place) in places.iter().enumerate() {
            let connection = rounds.of(index, |sample| sample.connection);
            let round_trip = rounds.of(index, |sample| sample.round_trip);
            let mebibyte = rounds.of(index, |sample| sample.mebibyte);
            self.0.push(format!(
                "| {} | {} | {} | {:.0} | {} | {:.1} µs | {} | {:.0} MiB/s | {} |",
                backend.name(),
                place.way,
                place.way.ports().map_or("-".to_owned(), |ports| ports.to_string()),
                1.0 / connection.median,
                connection.as_rate(),
                round_trip.median * 1e6,
                round_trip.as_time(),
                1.0 / mebibyte.median,
                mebibyte.as_rate(),
            ));
        }
    }

    /// On stdout, as Markdown.
    pub fn print(&self) {
        println!(
            "| backend | through | excluded ports | connections/s | ratio | round trip | ratio | throughput | ratio |"
        );
        println!("|---|---|---|---|---|---|---|---|---|");
        for line in &self.0 {
            println!("{line}");
        }
    }
}
