//! What can be typed after `cargo bench --bench NAME --`.

use super::lab::Backend;

/// It.
pub struct Options {
    /// Measurements of everything.
    pub runs: usize,
    /// What to measure.
    pub backends: Vec<Backend>,
}

impl Options {
    /// Reads the arguments; `runs` is what counts without any.
    pub fn read(runs: usize) -> Result<Self, String> {
        let mut options = Self { runs, backends: Vec::new() };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                // Cargo adds it to every benchmark.
                "--bench" => {}
                "--runs" => options.runs = count(args.next().as_deref())?,
                "--backend" => options.backends.push(backend(args.next().as_deref())?),
                other => {
                    return Err(format!("unknown argument '{other}'; there are --runs N and --backend NAME"));
                }
            }
        }
        if options.backends.is_empty() {
            options.backends = Backend::ALL.to_vec();
        }
        Ok(options)
    }
}

fn count(value: Option<&str>) -> Result<usize, String> {
    let count = value.and_then(|value| value.parse().ok());
    count.filter(|n| *n > 0).ok_or_else(|| "--runs takes a whole number from 1 on".to_owned())
}

fn backend(value: Option<&str>) -> Result<Backend, String> {
    let found = Backend::ALL.into_iter().find(|backend| Some(backend.name()) == value);
    found.ok_or_else(|| format!("--backend takes one of {}", Backend::ALL.map(Backend::name).join(", ")))
}
