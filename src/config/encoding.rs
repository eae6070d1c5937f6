//! A file that is not UTF-8: which byte, and what to do.

use super::diagnostics::{Position, START};

/// `good` bytes before the first wrong one.
pub fn wrong(bytes: &[u8], good: usize) -> (Position, String) {
    let is_utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    if is_utf16 {
        return (START, "saved as UTF-16; save the file as UTF-8".into());
    }
    let place = place(&bytes[..good]);
    let line = place.line;
    let byte = bytes.get(good).copied().unwrap_or_default();
    let message =
        format!("line {line} holds a byte 0x{byte:02X} that is not UTF-8; save the file as UTF-8");
    (place, message)
}

/// The position of the first NUL character and how to fix it; none in UTF-16, which is reported as such.
pub fn nul(bytes: &[u8]) -> Option<(Position, String)> {
    let at = bytes.iter().position(|byte| *byte == 0)?;
    let message = "holds NUL characters: if it was saved as UTF-16, save it as UTF-8";
    (!bytes.starts_with(&[0xff, 0xfe])).then(|| (place(&bytes[..at]), message.to_owned()))
}

/// Where the byte behind these stands.
fn place(before: &[u8]) -> Position {
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let begin = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let column = String::from_utf8_lossy(&before[begin..]).chars().count() + 1;
    Position { line, column }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_is_named_with_its_place() {
        let latin = b"a: 1\nb: M\xfcller\n";
        let (at, message) = wrong(latin, 9);
        assert_eq!((at.line, at.column), (2, 5));
        assert!(message.contains("line 2 holds a byte 0xFC"), "{message}");
        assert!(wrong(b"\xff\xfea\0", 0).1.contains("UTF-16"));
    }
}
