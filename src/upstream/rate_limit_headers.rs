//! A provider's rate limit headers: how long a limited key should pause, and what is left.

use std::time::Duration;

use gatekeeper_filters::kernel::Dialect;
use http::HeaderName;
use jiff::fmt::rfc2822::DateTimeParser;

use super::provider_session::ResponseHeaders;
use crate::pool::rate_headroom::LimitStatus;

/// The headers of one limit.
struct LimitHeaders {
    limit: HeaderName,
    remaining: HeaderName,
    reset: HeaderName,
}

macro_rules! limit {
    ($limit:literal, $remaining:literal, $reset:literal) => {
        LimitHeaders {
            limit: HeaderName::from_static($limit),
            remaining: HeaderName::from_static($remaining),
            reset: HeaderName::from_static($reset),
        }
    };
}

/// OpenAI's and Groq's; resets are durations (`6m0s`).
static COMMON: [LimitHeaders; 2] = [
    limit!(
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests"
    ),
    limit!("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
];

/// Anthropic's; resets are moments (RFC 3339).
static ANTHROPIC: [LimitHeaders; 4] = [
    limit!(
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset"
    ),
    limit!(
        "anthropic-ratelimit-tokens-limit",
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-reset"
    ),
    limit!(
        "anthropic-ratelimit-input-tokens-limit",
        "anthropic-ratelimit-input-tokens-remaining",
        "anthropic-ratelimit-input-tokens-reset"
    ),
    limit!(
        "anthropic-ratelimit-output-tokens-limit",
        "anthropic-ratelimit-output-tokens-remaining",
        "anthropic-ratelimit-output-tokens-reset"
    ),
];

fn all() -> impl Iterator<Item = &'static LimitHeaders> {
    COMMON.iter().chain(&ANTHROPIC)
}

impl LimitHeaders {
    fn remaining(&self, headers: &impl ResponseHeaders) -> Option<u64> {
        headers.text(&self.remaining)?.parse().ok()
    }

    fn reset(&self, headers: &impl ResponseHeaders) -> Option<Duration> {
        let reset = headers.text(&self.reset)?;
        duration(reset).or_else(|| until(reset, headers))
    }
}

/// From now to a timestamp. Now is taken from the answer: with the local clock a day behind, a key would
/// pause a day too long.
fn until(moment: &str, headers: &impl ResponseHeaders) -> Option<Duration> {
    Some(time_to(moment.parse().ok()?, headers))
}

fn time_to(moment: jiff::Timestamp, headers: &impl ResponseHeaders) -> Duration {
    let stated = headers.text(&http::header::DATE).and_then(date);
    let now = stated.unwrap_or_else(jiff::Timestamp::now);
    Duration::try_from(moment.duration_since(now)).unwrap_or_default()
}

/// A date of HTTP's (RFC 9110, 5.6.7): `Fri, 27 Nov 2020 21:50:00 GMT`.
fn date(text: &str) -> Option<jiff::Timestamp> {
    static DATES: DateTimeParser = DateTimeParser::new().relaxed_weekday(true);
    DATES.parse_timestamp(text).ok()
}

/// What is left of each limit that an answer states. Every answer is asked for them: only names that its
/// dialect has are looked up.
pub fn left(dialect: Dialect, headers: &impl ResponseHeaders) -> impl Iterator<Item = LimitStatus> {
    let names: &[LimitHeaders] = match dialect {
        Dialect::OpenAi => &COMMON,
        Dialect::Anthropic => &ANTHROPIC,
        Dialect::Gemini => &[],
    };
    names.iter().filter_map(|name| {
        let limit = headers.text(&name.limit)?.parse().ok()?;
        let remaining = name.remaining(headers)?;
        Some(LimitStatus { remaining, limit, reset: name.reset(headers) })
    })
}

/// `retry-after-ms`, else `retry-after` (seconds, or a date), else the reset of the limit that ran out.
pub fn stated_pause(headers: &impl ResponseHeaders) -> Option<Duration> {
    const MS: HeaderName = HeaderName::from_static("retry-after-ms");
    let number = |name: &HeaderName| headers.text(name)?.parse::<f64>().ok();
    if let Some(ms) = number(&MS) {
        return seconds(ms / 1000.0);
    }
    if let Some(pause) = number(&http::header::RETRY_AFTER) {
        return seconds(pause);
    }
    if let Some(pause) = headers.text(&http::header::RETRY_AFTER).and_then(date) {
        return Some(time_to(pause, headers));
    }
    let resets: Vec<(bool, Duration)> = all()
        .filter_map(|name| Some((name.remaining(headers) == Some(0), name.reset(headers)?)))
        .collect();
    let spent = resets.iter().filter(|(spent, _)| *spent).map(|(_, reset)| *reset).max();
    spent.or_else(|| resets.iter().map(|(_, reset)| *reset).min())
}

/// From now to midnight in California, where Gemini's days begin.
pub fn until_pacific_midnight(now: jiff::Timestamp) -> Option<Duration> {
    let zone = jiff::tz::TimeZone::posix("PST8PDT,M3.2.0,M11.1.0").ok()?;
    let now = now.to_zoned_datetime(zone);
    let midnight = now.tomorrow().ok()?.start_of_day().ok()?;
    Duration::try_from(now.duration_until(&midnight)).ok()
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
    use http::HeaderMap;

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
            let headers: HeaderMap = list
                .iter()
                .map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap()))
                .collect();
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
        for (date, expected) in [
            ("Fri, 27 Nov 2020 21:50:20 GMT", Some(20_000)),
            // A wrong weekday is ignored; a time in the past means now.
            ("Mon, 27 Nov 2020 21:50:20 GMT", Some(20_000)),
            ("Fri, 27 Nov 2020 21:49:00 GMT", Some(0)),
            ("soon", None),
            ("", None),
        ] {
            let headers = [("date", "Fri, 27 Nov 2020 21:50:00 GMT"), ("retry-after", date)];
            assert_eq!(pause(&headers), expected, "{date}");
        }
        assert_eq!(pause(&[]), None);
        let moment = (jiff::Timestamp::now() + Duration::from_secs(90)).to_string();
        let headers = [
            ("anthropic-ratelimit-requests-remaining".parse().unwrap(), "0".parse().unwrap()),
            ("anthropic-ratelimit-requests-reset".parse().unwrap(), moment.parse().unwrap()),
        ];
        let left = stated_pause(&headers.into_iter().collect::<HeaderMap>()).unwrap();
        assert!((88..=90).contains(&left.as_secs()), "{left:?}");
        let dated = [
            ("date", "Fri, 27 Nov 2020 21:50:00 GMT"),
            ("anthropic-ratelimit-requests-remaining", "0"),
            ("anthropic-ratelimit-requests-reset", "2020-11-27T21:50:30Z"),
        ];
        assert_eq!(pause(&dated), Some(30_000), "whatever our own clock says");
    }

    #[test]
    fn days_end_at_midnight_in_california_summer_and_winter() {
        for (now, hours) in [
            ("2026-11-24T07:00:00Z", 1),
            ("2026-11-24T08:00:00Z", 24),
            ("2026-07-01T06:00:00Z", 1),
            ("2026-03-08T09:00:00Z", 22),
        ] {
            let left = until_pacific_midnight(now.parse().unwrap()).unwrap();
            assert_eq!(left, Duration::from_secs(hours * 3600), "{now}");
        }
    }

    #[test]
    fn what_is_left_is_read_from_all_limits_of_a_dialect() {
        let headers: HeaderMap = [
            ("x-ratelimit-limit-requests", "100"),
            ("x-ratelimit-remaining-requests", "7"),
            ("x-ratelimit-reset-requests", "6m0s"),
            ("x-ratelimit-limit-tokens", "many"),
            ("anthropic-ratelimit-tokens-limit", "50"),
            ("anthropic-ratelimit-tokens-remaining", "50"),
        ]
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .into_iter()
        .collect();
        let left = |dialect| left(dialect, &headers).collect::<Vec<LimitStatus>>();
        let reset = Some(Duration::from_secs(360));
        assert_eq!(left(Dialect::OpenAi), [LimitStatus { remaining: 7, limit: 100, reset }]);
        assert_eq!(
            left(Dialect::Anthropic),
            [LimitStatus { remaining: 50, limit: 50, reset: None }]
        );
        assert_eq!(left(Dialect::Gemini), []);
    }
}
