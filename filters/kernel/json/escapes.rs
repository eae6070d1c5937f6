//! Escapes inside of strings.

/// Four hexadecimal digits.
pub(super) fn hex(source: &[u8], at: usize) -> Option<u32> {
    let four = source.get(at..)?.first_chunk::<4>()?;
    four.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

/// The second half of a pair, written as an escape at `at`.
pub(super) fn low_surrogate(source: &[u8], at: usize) -> Option<u32> {
    if !source.get(at..)?.starts_with(b"\\u") {
        return None;
    }
    hex(source, at + 2).filter(|unit| (0xDC00..0xE000).contains(unit))
}
