//! Measuring everything in turn, over and over, and what comes out of it.

/// Samples of so many things, round by round. Each round begins with another one.
pub struct Rounds<T>(Vec<Vec<T>>);

impl<T: Clone + Default> Rounds<T> {
    /// Takes them. What is met for the first time takes longer, so there is a round before that does not count.
    pub fn take(
        runs: usize,
        things: usize,
        mut measure: impl FnMut(usize) -> Result<T, String>,
    ) -> Result<Self, String> {
        let mut rounds = Vec::new();
        for number in 0..=runs {
            let mut samples = vec![T::default(); things];
            for step in 0..things {
                let index = (number + step) % things;
                samples[index] = measure(index)?;
            }
            rounds.push(samples);
        }
        rounds.remove(0);
        Ok(Self(rounds))
    }

    /// The seconds that something took.
    pub fn of(&self, index: usize, seconds: impl Fn(&T) -> f64) -> Seconds {
        Seconds {
            median: quarter(self.0.iter().map(|round| seconds(&round[index])).collect(), 2),
            ratios: self.0.iter().map(|round| seconds(&round[index]) / seconds(&round[0])).collect(),
        }
    }
}

/// Seconds, and how often as long that is as what the first thing took in the same round.
pub struct Seconds {
    /// The median.
    pub median: f64,
    ratios: Vec<f64>,
}

impl Seconds {
    /// The ratio of times.
    pub fn as_time(&self) -> String {
        spread(&self.ratios)
    }

    /// The ratio of what is done in the same time.
    pub fn as_rate(&self) -> String {
        spread(&self.ratios.iter().map(|ratio| 1.0 / ratio).collect::<Vec<_>>())
    }
}

/// The median, and half of the range of the middle half.
fn spread(ratios: &[f64]) -> String {
    let at = |number| quarter(ratios.to_vec(), number);
    format!("{:.2} ± {:.2}", at(2), (at(3) - at(1)) / 2.0)
}

fn quarter(mut values: Vec<f64>, number: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() * number / 4).copied().unwrap_or_default()
}
