//! Small values written as text: durations, sizes, limits, names, web addresses.
//!
//! Each function returns what is wrong in the operator's words; none echoes its input, because a
//! secret may have been pasted into the wrong place.

use std::time::Duration;

use gatekeeper_filters::kernel::{DOLLAR, Dialect, Limit, Period};

use super::settings::ImageSetting;

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

/// How images count: a dialect's rule, or a number of tokens.
///
/// # Errors
/// It is neither.
pub fn image_tokens(text: &str) -> Result<ImageSetting, String> {
    match text {
        "openai" => Ok(ImageSetting::Rule(Dialect::OpenAi)),
        "anthropic" => Ok(ImageSetting::Rule(Dialect::Anthropic)),
        "gemini" => Ok(ImageSetting::Rule(Dialect::Gemini)),
        _ => match text.parse() {
            Ok(tokens) if tokens > 0 => Ok(ImageSetting::Fixed(tokens)),
            _ => Err("expected openai, anthropic, gemini or a number of tokens above 0".into()),
        },
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

/// Calls to a shop: so many in so many milliseconds.
///
/// # Errors
/// What is wrong with it.
pub fn call_limit(text: &str) -> Result<(usize, u64), String> {
    let span = match limit(text)? {
        Limit { count: 0, .. } => return Err("must be more than zero".into()),
        Limit { per: Period::Minute, .. } => 60_000,
        Limit { per: Period::Hour, .. } => 3_600_000,
        _ => return Err("expected a limit a minute or an hour, like `50/minute`".into()),
    };
    let count = limit(text)?.count;
    usize::try_from(count).map(|count| (count, span)).map_err(|_| "too large".into())
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

/// From 0 to 1, in hundredths.
///
/// # Errors
/// Anything else.
pub fn fraction(text: &str) -> Result<u64, String> {
    match decimal(text, 2) {
        Some(hundredths @ 0..=100) => Ok(hundredths),
        _ => Err("expected a number from 0 to 1, with at most two decimals".into()),
    }
}

/// From 0 to 2, in hundredths.
///
/// # Errors
/// Anything else.
pub fn temperature(text: &str) -> Result<u64, String> {
    match decimal(text, 2) {
        Some(hundredths @ 0..=200) => Ok(hundredths),
        _ => Err("expected a number from 0 to 2, with at most two decimals".into()),
    }
}

/// A decimal number, in units of `10^-places`; `None` when it is no number, has more decimals than
/// that, or does not fit.
fn decimal(text: &str, places: usize) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.trim_end_matches('0').len() > places {
        return None;
    }
    let part = part.get(..places).unwrap_or(part);
    let part = part.parse::<u64>().ok()? * 10_u64.pow((places - part.len()) as u32);
    whole.parse::<u64>().ok()?.checked_mul(10_u64.pow(places as u32))?.checked_add(part)
}

/// Dollars per million tokens, as picodollars per token.
///
/// # Errors
/// Anything but a non-negative number, and numbers with too many decimals.
pub fn token_price(text: &str) -> Result<u64, String> {
    // Far above any price, and a billion tokens of it still fit.
    const MOST: u64 = 1_000_000;
    if !text.parse::<f64>().is_ok_and(|number| number.is_finite() && number >= 0.0) {
        return Err("must be 0 or more".into());
    }
    match decimal(text, 6) {
        Some(price) if price <= MOST * 1_000_000 => Ok(price),
        Some(_) => Err(format!("too much: at most {MOST} dollars per million tokens")),
        None => {
            Err("expected dollars per million tokens with at most 6 decimals, like `0.05`".into())
        }
    }
}

/// `$20`, `$0.50`: picodollars.
///
/// # Errors
/// Anything else, and what does not fit.
pub fn dollars(text: &str) -> Result<u64, String> {
    const MOST: u64 = 1_000_000;
    const CENT: u64 = DOLLAR / 100;
    let cents = text.strip_prefix('$').and_then(|amount| decimal(amount, 2));
    match cents.ok_or("expected dollars like `$20` or `$0.50`")? {
        0 => Err("must be more than zero".into()),
        cents if cents <= MOST * 100 => Ok(cents * CENT),
        _ => Err(format!("too much: at most ${MOST}")),
    }
}

/// `10%`, `2.5%`: hundredths of a percent.
///
/// # Errors
/// Anything else.
pub fn percent(text: &str) -> Result<u64, String> {
    match text.strip_suffix('%').and_then(|share| decimal(share, 2)) {
        Some(0) => Err("must be more than zero".into()),
        Some(hundredths @ 1..=10_000) => Ok(hundredths),
        _ => Err("expected a share like `10%` or `2.5%`, at most `100%`".into()),
    }
}

/// `$9/month`; shown, never charged. Picodollars a month: of a yearly price, a twelfth.
///
/// # Errors
/// What is wrong with it.
pub fn price(text: &str) -> Result<u64, String> {
    let wrong = || "expected a price like `$9/month` or `$90/year`".to_owned();
    let (amount, per) = text.split_once('/').ok_or_else(wrong)?;
    let cents = amount.strip_prefix('$').and_then(|amount| decimal(amount, 2)).ok_or_else(wrong)?;
    let amount = cents.checked_mul(DOLLAR / 100).ok_or_else(wrong)?;
    match per {
        "month" => Ok(amount),
        "year" => Ok(amount / 12),
        _ => Err(wrong()),
    }
}
