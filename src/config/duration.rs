//! Go's duration grammar (`time.ParseDuration`), which Kuma's configuration uses: `2s`, `1h2m`, `1.5s`, `250ms`.

use std::time::Duration;

use super::values::InvalidValue;

/// The longest duration Go can hold, in nanoseconds; longer ones would not load in kumactl.
const LONGEST: u128 = i64::MAX as u128;

const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration. A bare whole number counts nanoseconds and quotes around the text are ignored, because the one
/// form that kumactl's flag accepts is `'"2s"'`.
pub fn parse(text: &str) -> Result<Duration, InvalidValue> {
    let why = || InvalidValue("a duration is a number with a unit, such as 2s, 500ms or 1m30s".into());
    let text = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    if text.starts_with('-') {
        return Err(InvalidValue("a duration cannot be negative".into()));
    }
    let nanos = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse::<u128>().unwrap_or(u128::MAX)
    } else {
        with_units(text).ok_or_else(why)?
    };
    if nanos > LONGEST {
        return Err(InvalidValue("a duration is 2562047h at the most".into()));
    }
    Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

/// Nanoseconds of a text such as `1h2.5m`; `None` if it is not one.
fn with_units(text: &str) -> Option<u128> {
    let mut rest = text;
    let mut sum = 0u128;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let scale = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        sum = sum.saturating_add(scaled(number, scale)?);
        rest = tail;
    }
    (!text.is_empty()).then_some(sum)
}

/// A decimal number, perhaps with a fraction, times a scale; saturates.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u128>().unwrap_or(u128::MAX) };
    // More digits than these are below a nanosecond even of an hour.
    let digits = &fraction[..fraction.len().min(18)];
    let part = if digits.is_empty() { 0 } else { digits.parse::<u128>().ok()? };
    let part = part * scale / 10u128.pow(u32::try_from(digits.len()).ok()?);
    Some(whole.saturating_mul(scale).saturating_add(part))
}

/// Writes a duration as Go does: `1h0m2.5s`, `250ms`, `0s`.
pub fn show(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let (scale, unit) = match nanos {
        0 => return "0s".into(),
        1..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let minutes = nanos / 60_000_000_000;
    let rest = if unit == "s" { nanos % 60_000_000_000 } else { nanos };
    let width = scale.to_string().len() - 1;
    let fraction = format!("{:0width$}", rest % scale);
    let fraction = if width == 0 { "" } else { fraction.trim_end_matches('0') };
    let dot = if fraction.is_empty() { "" } else { "." };
    let last = format!("{}{dot}{fraction}{unit}", rest / scale);
    match (minutes / 60, minutes % 60) {
        (0, 0) => last,
        (0, minutes) => format!("{minutes}m{last}"),
        (hours, minutes) => format!("{hours}h{minutes}m{last}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, nanos) in [
            ("2s", 2_000_000_000),
            ("\"2s\"", 2_000_000_000),
            ("250ms", 250_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1h2m", 3_720_000_000_000),
            ("3us", 3_000),
            ("3µs", 3_000),
            ("0", 0),
            ("0s", 0),
            ("2000000000", 2_000_000_000),
            ("1.00000000000000000000001s", 1_000_000_000),
        ] {
            assert_eq!(parse(text).map(|d| d.as_nanos()), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in ["", "s", "2", "2 s", "2x", "1h2", "..s", "1.2.3s", "+2s", "-2s", "1e3s", "\"2s", "９s"]
        {
            let wanted_number = text == "2";
            assert_eq!(parse(text).is_ok(), wanted_number, "{text}");
        }
        assert!(parse("2562048h").unwrap_err().0.contains("2562047h"));
        assert!(parse("99999999999999999999999999999999999999999999").is_err());
        assert!(parse(&format!("{}h", "9".repeat(60))).is_err());
    }

    #[test]
    fn writes_what_go_writes() {
        for (nanos, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (250_000_000, "250ms"),
            (2_000_000_000, "2s"),
            (120_000_000_000, "2m0s"),
            (3_602_500_000_000, "1h0m2.5s"),
        ] {
            assert_eq!(show(Duration::from_nanos(nanos)), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(nanos in 0..=i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&show(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,24}", digits in "[0-9.hmsunµ]{0,40}") {
            let _ = (parse(&text), parse(&digits));
        }
    }
}
