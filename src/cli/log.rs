//! What goes to standard error: one line for each event, with a word in front that says how serious it is.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _, Write as _};

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, Scope};

use crate::exit::{Failure, HINT};
use crate::text::hanging;

/// The variable that asks for more lines, or fewer: `off`, `error`, `warn`, `info`, `debug` or `trace`.
pub const LEVEL_VARIABLE: &str = "TPROXY_LOG";

const HINT_LABEL: (&str, &str) = ("hint", "32");

/// Sends events to standard error from now on.
pub fn set_up() {
    let wanted = std::env::var(LEVEL_VARIABLE).ok().filter(|text| !text.is_empty());
    let level = wanted.as_deref().map(str::parse::<LevelFilter>);
    let subscriber = subscriber(level.clone().and_then(Result::ok).unwrap_or(LevelFilter::INFO));
    // It can only be set already when a test runs several commands in one process.
    let _ = tracing::subscriber::set_global_default(subscriber);
    if let Some(Err(_)) = level {
        tracing::warn!(
            "invalid value {} for the variable {LEVEL_VARIABLE}: expected off, error, warn, info, debug or trace",
            crate::config::text::quoted(&wanted.unwrap_or_default())
        );
    }
}

/// Does something on this thread of which only warnings and errors are told, unless more lines are asked for.
pub fn without_notes<T>(work: impl FnOnce() -> T) -> T {
    if std::env::var_os(LEVEL_VARIABLE).is_some() {
        return work();
    }
    tracing::subscriber::with_default(subscriber(LevelFilter::WARN), work)
}

fn subscriber(level: LevelFilter) -> impl Subscriber + Send + Sync {
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(false)
        .log_internal_errors(false)
        .event_format(Lines { colour: colour() })
        .finish()
}

/// Prints the error that ends a run, and its one next step.
pub fn failure(failure: &Failure) {
    let mut err = io::stderr().lock();
    // With standard error closed there is nobody left to tell.
    let _ = writeln!(err, "{} {}", label("error", "31", colour()), paragraphs("error", &failure.message));
    if let Some(hint) = &failure.hint {
        let (word, code) = HINT_LABEL;
        let _ = writeln!(err, "{} {}", label(word, code, colour()), paragraphs(word, hint));
    }
}

/// Whether standard error is a terminal whose owner does not mind colour (<https://no-color.org>).
fn colour() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal()
        && !set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn label(word: &str, code: &str, colour: bool) -> String {
    if colour { format!("\u{1b}[1;{code}m{word}:\u{1b}[0m") } else { format!("{word}:") }
}

/// A text behind a label. Lines that it has already are lists, but for the first.
fn paragraphs(label: &str, text: &str) -> String {
    let (first, more) = text.split_once('\n').map_or((text, None), |(first, more)| (first, Some(more)));
    let mut first = hanging(first, label.len() + 2);
    if let Some(more) = more {
        first.push('\n');
        first.push_str(more);
    }
    first
}

struct Lines {
    colour: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (word, code) = match *event.metadata().level() {
            _ if event.metadata().target() == HINT => HINT_LABEL,
            Level::ERROR => ("error", "31"),
            Level::WARN => ("warning", "33"),
            Level::INFO => ("note", "36"),
            Level::DEBUG => ("debug", "2"),
            Level::TRACE => ("trace", "2"),
        };
        let mut text = String::new();
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>().filter(|fields| !fields.is_empty());
            match fields {
                Some(fields) => write!(text, "{} ({fields}): ", span.name())?,
                None => write!(text, "{}: ", span.name())?,
            }
        }
        context.field_format().format_fields(Writer::new(&mut text), event)?;
        // Who asks for these wants them as they are.
        let as_it_is = matches!(*event.metadata().level(), Level::DEBUG | Level::TRACE);
        let text = if as_it_is { text } else { paragraphs(word, &text) };
        writeln!(writer, "{} {text}", label(word, code, self.colour))
    }
}
