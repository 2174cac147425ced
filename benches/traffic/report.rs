//! The table that comes out.

use crate::client::Sample;
use crate::place::Place;
use crate::support::clock::median;
use crate::support::lab::Variant;

/// Its lines.
#[derive(Default)]
pub struct Report(Vec<String>);

impl Report {
    /// Adds what the rounds gave; the first place of each is what all others are compared with.
    pub fn add(&mut self, variant: Variant, places: &[Place], rounds: &[Vec<Sample>]) {
        for (index, place) in places.iter().enumerate() {
            let cell = |seconds: fn(&Sample) -> f64| Cell::new(rounds, index, seconds);
            let connection = cell(|sample| sample.connection);
            let round_trip = cell(|sample| sample.round_trip);
            let mebibyte = cell(|sample| sample.mebibyte);
            self.0.push(format!(
                "| {} | {} | {} | {:.0} | {} | {:.1} µs | {} | {:.0} MiB/s | {} |",
                variant.name(),
                place.way,
                place.way.ports().map_or("-".to_owned(), |ports| ports.to_string()),
                1.0 / connection.seconds,
                connection.as_rate(),
                round_trip.seconds * 1e6,
                round_trip.as_time(),
                1.0 / mebibyte.seconds,
                mebibyte.as_rate(),
            ));
        }
    }

    /// On stdout, as Markdown.
    pub fn print(&self, runs: usize) {
        println!(
            "Medians of {runs} rounds. A ratio is to the first line of its variant, round by round; ± is half of the\n\
             range of the middle half.\n"
        );
        println!(
            "| variant | through | excluded ports | connections/s | ratio | round trip | ratio | throughput | ratio |"
        );
        println!("|---|---|---|---|---|---|---|---|---|");
        for line in &self.0 {
            println!("{line}");
        }
    }
}

/// Seconds for something, and how often as long that is as without rules.
struct Cell {
    seconds: f64,
    ratios: Vec<f64>,
}

impl Cell {
    fn new(rounds: &[Vec<Sample>], index: usize, seconds: fn(&Sample) -> f64) -> Self {
        Self {
            seconds: median(rounds.iter().map(|round| seconds(&round[index])).collect()),
            ratios: rounds.iter().map(|round| seconds(&round[index]) / seconds(&round[0])).collect(),
        }
    }

    /// The ratio of times.
    fn as_time(&self) -> String {
        spread(self.ratios.clone())
    }

    /// The ratio of what is done in the same time.
    fn as_rate(&self) -> String {
        spread(self.ratios.iter().map(|ratio| 1.0 / ratio).collect())
    }
}

fn spread(mut ratios: Vec<f64>) -> String {
    ratios.sort_unstable_by(f64::total_cmp);
    let at = |quarter: usize| ratios.get(ratios.len() * quarter / 4).copied().unwrap_or_default();
    format!("{:.2} ± {:.2}", at(2), (at(3) - at(1)) / 2.0)
}
