//! Formats values as they are written in the file.

use std::{fmt::Display, time::Duration};

use gatekeeper_filters::kernel::{DOLLAR, Limit, Price};

/// Shown for an absent value.
pub const NONE: &str = "none";
pub const UNLIMITED: &str = "unlimited";
/// Shown for limits derived from the memory of the machine.
pub const AUTO: &str = "by memory";

/// In the units in which the defaults are written: `300s`, `24h`, `90d`.
pub fn duration(duration: Duration) -> String {
    const HOUR: u64 = 3_600;
    const DAY: u64 = 24 * HOUR;
    let seconds = duration.as_secs();
    match seconds {
        _ if duration.subsec_millis() > 0 => format!("{}ms", duration.as_millis()),
        _ if seconds > 3 * DAY && seconds.is_multiple_of(DAY) => format!("{}d", seconds / DAY),
        _ if seconds >= HOUR && seconds.is_multiple_of(HOUR) => format!("{}h", seconds / HOUR),
        _ => format!("{seconds}s"),
    }
}

pub fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.iter().find(|(_, shift)| bytes >> shift << shift == bytes && bytes > 0);
    match unit {
        Some((name, shift)) => format!("{}{name}", bytes >> shift),
        None => bytes.to_string(),
    }
}

pub fn limit(limit: Option<Limit>) -> String {
    limit.map_or_else(|| UNLIMITED.into(), |limit| format!("{}/{}", limit.count, limit.per.name()))
}

pub fn or(value: Option<impl Display>, absent: &str) -> String {
    value.map_or_else(|| absent.into(), |value| value.to_string())
}

pub fn list<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.as_ref().to_owned()).collect();
    if items.is_empty() { NONE.into() } else { items.join(", ") }
}

/// Picodollars as `$20`.
pub fn dollars(picodollars: u64) -> String {
    format!("${}", decimal(picodollars, DOLLAR))
}

/// Dollars per million tokens.
pub fn price(price: Price) -> String {
    let [input, output, cached, written, hour] =
        [price.input, price.output, price.cached, price.cache_write, price.cache_write_1h]
            .map(|each| decimal(each, 1_000_000));
    let mut text = format!("input {input}, output {output}, cached {cached}");
    if (&written, &hour) != (&input, &input) {
        text.push_str(&format!(", cache_write {written}, cache_write_1h {hour}"));
    }
    text
}

fn decimal(amount: u64, one: u64) -> String {
    let part = format!("{:0width$}", amount % one, width = one.ilog10() as usize);
    match part.trim_end_matches('0') {
        "" => (amount / one).to_string(),
        part => format!("{}.{part}", amount / one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_as_they_are_written() {
        for text in ["500ms", "90s", "300ms", "3s", "5m", "24h", "90d", "61s", "1h", "0s"] {
            let read = crate::config::scalars::duration(text).unwrap();
            let written = duration(read);
            assert_eq!(crate::config::scalars::duration(&written), Ok(read), "{text} {written}");
        }
        for text in ["500ms", "300s", "24h", "72h", "90d"] {
            assert_eq!(duration(crate::config::scalars::duration(text).unwrap()), text);
        }
        assert_eq!(
            (size(10 << 20), size(1), size(1 << 10)),
            ("10MiB".into(), "1".into(), "1KiB".into())
        );
        assert_eq!((dollars(20 * DOLLAR), dollars(DOLLAR / 4)), ("$20".into(), "$0.25".into()));
        let some = Price {
            input: 50_000,
            output: 80_000,
            cached: 25_000,
            cache_write: 50_000,
            cache_write_1h: 50_000,
        };
        assert_eq!(price(some), "input 0.05, output 0.08, cached 0.025");
        let dear = Price { cache_write: 62_500, cache_write_1h: 100_000, ..some };
        let expected =
            "input 0.05, output 0.08, cached 0.025, cache_write 0.0625, cache_write_1h 0.1";
        assert_eq!(price(dear), expected);
    }
}
