//! Moments as people read them.

/// `2026-12-01T00:00:00Z` as people read it: `on 1 December 2026`, with the time of day unless it is midnight (UTC).
pub fn day(rfc3339: &str) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let part = |from: usize, to: usize| rfc3339.get(from..to);
    let month = part(5, 7).and_then(|month| month.parse::<usize>().ok());
    let month = month.and_then(|month| MONTHS.get(month.checked_sub(1)?));
    match (part(0, 4), month, part(8, 10), part(11, 16)) {
        (Some(year), Some(month), Some(day), Some(time)) => {
            let date = format!("on {} {month} {year}", day.trim_start_matches('0'));
            if time == "00:00" { date } else { format!("{date} at {time} UTC") }
        }
        _ => format!("on {rfc3339}"),
    }
}
