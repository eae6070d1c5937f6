//! Small values written as text: durations, sizes, limits, names, web addresses.
//!
//! Each function returns what is wrong in the operator's words; none echoes its input, because a
//! secret may have been pasted into the wrong place.

use std::time::Duration;

use gatekeeper_filters::kernel::{Limit, Period};

/// `500ms`, `300s`, `5m`, `24h`, `90d`; whole numbers.
///
/// # Errors
/// Anything else, and what does not fit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a duration like `500ms`, `30s`, `5m`, `24h` or `90d`".to_owned();
    let (number, unit) = split_number(text).ok_or_else(wrong)?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    // A hundred years is longer than any timer needs and far from any overflow.
    match number.checked_mul(ms) {
        Some(ms) if ms <= 36_525 * 86_400_000 => Ok(Duration::from_millis(ms)),
        _ => Err("too long: at most 36525d".into()),
    }
}

/// Bytes: `1024`, `64KiB`, `10MiB`, `1GiB`.
///
/// # Errors
/// Anything else, and what does not fit.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || "expected a size like `64KiB`, `10MiB` or `1GiB`".to_owned();
    let (number, unit) = split_number(text).ok_or_else(wrong)?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(wrong()),
    };
    match number.checked_mul(1 << shift) {
        Some(bytes) if bytes <= 1 << 50 => Ok(bytes),
        _ => Err("too large".into()),
    }
}

/// `50/month`: a count for each calendar minute, hour, day or month (UTC).
///
/// # Errors
/// Anything else, and what does not fit.
pub fn limit(text: &str) -> Result<Limit, String> {
    let wrong = || "expected a limit like `50/month`; per minute, hour, day or month".to_owned();
    let (count, per) = text.split_once('/').ok_or_else(wrong)?;
    let per = Period::ALL.into_iter().find(|p| p.name() == per.trim()).ok_or_else(wrong)?;
    match split_number(count.trim()) {
        // Counters are 64 bit signed in every store.
        Some((count, "")) if count <= i64::MAX as u64 => Ok(Limit { count, per }),
        _ => Err(wrong()),
    }
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// Names of plans, providers and keys: they become metric labels and parts of stored records.
///
/// # Errors
/// What is wrong with it.
pub fn name(text: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(fits)
    {
        return Ok(());
    }
    Err("a name is 1 to 64 of letters, digits, `.`, `_`, `-`, and begins with a letter or digit"
        .into())
}

/// Public and upstream model names.
///
/// # Errors
/// What is wrong with it.
pub fn model_name(text: &str) -> Result<(), String> {
    if (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"') {
        return Ok(());
    }
    Err("a model name is 1 to 128 printable ASCII characters without spaces or quotes".into())
}

/// An address that is shown to buyers.
///
/// # Errors
/// What is wrong with it.
pub fn link(text: &str) -> Result<(), String> {
    match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(()),
        _ => Err("expected a web address like `https://example.com/buy`".into()),
    }
}

/// `$9/month`; shown, never charged.
///
/// # Errors
/// What is wrong with it.
pub fn price(text: &str) -> Result<(), String> {
    let wrong = || "expected a price like `$9/month` or `$90/year`".to_owned();
    let (amount, per) = text.split_once('/').ok_or_else(wrong)?;
    let amount = amount.strip_prefix('$').ok_or_else(wrong)?;
    let digits = !amount.is_empty() && amount.chars().all(|c| c.is_ascii_digit() || c == '.');
    if digits && amount.parse::<f64>().is_ok() && matches!(per, "month" | "year") {
        return Ok(());
    }
    Err(wrong())
}
