//! How long a rate-limited key should rest, by the provider's own words.

use std::time::Duration;

use http::HeaderMap;

/// `retry-after-ms`, else `retry-after` (seconds), else the reset of the limit that ran out:
/// `x-ratelimit-reset-requests` and `-tokens` (OpenAI's and Groq's durations, e.g. `1m2.5s`).
pub fn stated_pause(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    if let Some(ms) = text("retry-after-ms").and_then(|ms| ms.parse::<f64>().ok()) {
        return seconds(ms / 1000.0);
    }
    if let Some(pause) = text("retry-after").and_then(|s| s.parse::<f64>().ok()) {
        return seconds(pause);
    }
    let resets = ["requests", "tokens"].map(|what| {
        let reset = duration(text(&format!("x-ratelimit-reset-{what}"))?)?;
        let left = text(&format!("x-ratelimit-remaining-{what}"));
        Some((left == Some("0"), reset))
    });
    let spent = resets.iter().flatten().filter(|(spent, _)| *spent).map(|(_, reset)| *reset).max();
    spent.or_else(|| resets.iter().flatten().map(|(_, reset)| *reset).min())
}

fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

/// A duration as Go and Google write it: `120ms`, `51.8325s`, `6m0s`, `1h2m3s`.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|at| *at > 0)?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let factor = match &rest[..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total = total.checked_add(seconds(value * factor)?)?;
        rest = &rest[unit..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_providers_write_them() {
        for (text, ms) in [
            ("1s", 1000),
            ("6m0s", 360_000),
            ("120ms", 120),
            ("51.8325s", 51_832),
            ("2m59.56s", 179_560),
            ("10h17m", 37_020_000),
            ("20.70617005s", 20_706),
        ] {
            assert_eq!(duration(text).map(|d| d.as_millis()), Some(ms), "{text}");
        }
        for text in ["", "s", "1", "-1s", "1x", "1..s", "9e99s", "99999999999999999999h"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn the_most_exact_statement_wins() {
        let pause = |list: &[(&'static str, &'static str)]| {
            let headers =
                list.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
            stated_pause(&headers).map(|pause| pause.as_millis())
        };
        assert_eq!(pause(&[("retry-after", "1"), ("retry-after-ms", "885")]), Some(885));
        assert_eq!(pause(&[("retry-after", "6"), ("x-ratelimit-reset-tokens", "51s")]), Some(6000));
        assert_eq!(
            pause(&[
                ("x-ratelimit-reset-requests", "120ms"),
                ("x-ratelimit-remaining-requests", "499"),
                ("x-ratelimit-reset-tokens", "2s"),
                ("x-ratelimit-remaining-tokens", "0"),
            ]),
            Some(2000)
        );
        assert_eq!(pause(&[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")]), None);
        assert_eq!(pause(&[]), None);
    }
}
