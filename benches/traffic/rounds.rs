//! Measuring everything in turn, over and over, and what comes out of it.

/// Samples of so many things, round by round. Each round has another order, because what a thing finds in caches and
/// queues is what the one before it left.
pub struct Rounds<T>(Vec<Vec<T>>);

impl<T: Clone + Default> Rounds<T> {
    /// Takes them. What is met for the first time takes longer, so there is a round before that does not count.
    pub fn take(
        runs: usize,
        things: usize,
        mut measure: impl FnMut(usize) -> Result<T, String>,
    ) -> Result<Self, String> {
        let mut rounds = Vec::new();
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for _ in 0..=runs {
            let mut samples = vec![T::default(); things];
            for index in dice.order(things) {
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

/// Numbers without a pattern, the same in every run (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// All numbers below `count`.
    fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<(u64, usize)> = (0..count).map(|index| (self.roll(), index)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, index)| index).collect()
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
        spread(&self.rates())
    }

    /// Its median.
    pub fn rate(&self) -> f64 {
        quarter(self.rates(), 2)
    }

    fn rates(&self) -> Vec<f64> {
        self.ratios.iter().map(|ratio| 1.0 / ratio).collect()
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
