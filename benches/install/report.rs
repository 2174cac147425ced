//! The table that comes out.

use std::time::Duration;

/// Peak memory allowed, in KiB.
const MEMORY: u64 = 12 * 1024;

/// Lines, and whether each meets its target.
pub struct Report {
    runs: usize,
    lines: Vec<(String, bool)>,
}

impl Report {
    /// An empty table about so many runs per side.
    pub fn new(runs: usize) -> Self {
        Self { runs, lines: Vec::new() }
    }

    /// Two medians and the most that their ratio may be.
    pub fn ratio(
        &mut self,
        backend: &str,
        what: &str,
        (ours, theirs): (Duration, Duration),
        most: Option<f64>,
    ) {
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        let met = most.is_none_or(|most| ratio <= most);
        let (ours, theirs) = (ours.as_secs_f64() * 1e3, theirs.as_secs_f64() * 1e3);
        let target = most.map_or("-".to_owned(), |most| format!("{most:.2}"));
        self.line(
            format!("| {backend} | {what} | {ours:.2} ms | {theirs:.2} ms | {ratio:.2} | {target} |"),
            met,
        );
    }

    /// A peak of memory in KiB.
    pub fn memory(&mut self, backend: &str, what: &str, kib: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let mib = kib as f64 / 1024.0;
        let target = MEMORY / 1024;
        self.line(format!("| {backend} | {what} | {mib:.1} MiB | - | - | {target} MiB |"), kib < MEMORY);
    }

    /// A median that is compared with nothing but the most that it may be.
    pub fn time(&mut self, backend: &str, what: &str, took: Duration, most: Duration) {
        let ms = took.as_secs_f64() * 1e3;
        let target = most.as_millis();
        self.line(format!("| {backend} | {what} | {ms:.1} ms | - | - | {target} ms |"), took <= most);
    }

    /// How often something happened that never should.
    pub fn never(&mut self, backend: &str, what: &str, count: usize) {
        self.line(format!("| {backend} | {what} | {count} | - | - | 0 |"), count == 0);
    }

    fn line(&mut self, text: String, met: bool) {
        // Progress: the whole takes a minute or two.
        eprintln!("{text}");
        self.lines.push((text, met));
    }

    /// Whether every target is met.
    pub fn all_met(&self) -> bool {
        self.lines.iter().all(|(_, met)| *met)
    }

    /// On stdout, as Markdown.
    pub fn print(&self) {
        println!(
            "Medians of {} alternating runs, {} where 10,000 rules or 49 processes are there.\n",
            self.runs,
            self.runs.div_ceil(3)
        );
        println!("| backend | what | tproxy | beside it | ratio | at most |");
        println!("|---|---|---|---|---|---|");
        for (line, met) in &self.lines {
            println!("{line}{}", if *met { "" } else { " MISSED" });
        }
    }
}
