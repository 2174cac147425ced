//! What can be typed after `cargo bench --bench NAME --`.

use super::lab::Variant;

/// It.
pub struct Options {
    /// Measurements of everything.
    pub runs: usize,
    variant: Option<Variant>,
}

impl Options {
    /// Reads the arguments; `runs` is what counts without any.
    pub fn read(runs: usize) -> Result<Self, String> {
        let mut options = Self { runs, variant: None };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                // Cargo adds it to every benchmark.
                "--bench" => {}
                "--runs" => {
                    let value = args.next().unwrap_or_default();
                    options.runs = value
                        .parse()
                        .ok()
                        .filter(|n| *n > 0)
                        .ok_or("--runs takes a whole number from 1 on")?;
                }
                "--variant" => {
                    options.variant = Some(match args.next().as_deref() {
                        Some("nft") => Variant::Nft,
                        Some("legacy") => Variant::Legacy,
                        _ => return Err("--variant takes nft or legacy".into()),
                    });
                }
                other => {
                    return Err(format!("unknown argument '{other}'; there are --runs N and --variant V"));
                }
            }
        }
        Ok(options)
    }

    /// The variants to measure.
    pub fn variants(&self) -> impl Iterator<Item = Variant> {
        [Variant::Nft, Variant::Legacy]
            .into_iter()
            .filter(|variant| self.variant.is_none_or(|wanted| wanted == *variant))
    }
}
