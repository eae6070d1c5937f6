//! How numbers, moments and licences stand in the tables.

use gatekeeper_filters::kernel::{LicenseId, UnixMs};

/// `PRAGMA user_version` of the tables in `schema.sql`.
pub const SCHEMA: i64 = 6;
/// Rows one pruning statement may delete, so that it never holds the store up.
pub const PRUNE_ROWS: usize = 1_000;

/// SQLite's integers have a sign, and sums of them must fit too.
pub fn int(number: u64) -> i64 {
    const MOST: u64 = 1 << 52;
    number.min(MOST) as i64
}

/// RFC 3339 with milliseconds, of fixed width, so that text sorts by time.
pub fn readable(at: UnixMs) -> String {
    const LAST_SECOND: u64 = 253_402_207_200; // where jiff's time ends, in the year 9999
    let second = UnixMs((at.0 / 1000).min(LAST_SECOND) * 1000).to_rfc3339();
    let mut text = String::with_capacity(24);
    text.push_str(second.trim_end_matches('Z'));
    text.push('.');
    // Every row has such a text, and `format!` takes a thousand instructions.
    text.push_str(&itoa::Buffer::new().format(1000 + at.0 % 1000)[1..]);
    text.push('Z');
    text
}

/// What [`UnixMs::to_rfc3339`] wrote; anything else is long ago.
pub fn moment(text: &str) -> UnixMs {
    let moment = text.parse::<jiff::Timestamp>().map_or(0, |at| at.as_millisecond());
    UnixMs(moment.max(0) as u64)
}

/// Parses [`LicenseId::to_hex`]; any other text gives an id that no licence has.
pub fn license(hex: &str) -> LicenseId {
    LicenseId::from_hex(hex).unwrap_or(LicenseId([0; 32]))
}
