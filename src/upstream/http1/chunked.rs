//! The chunked coding (RFC 9112, 7.1). Strict: lines end with CR LF, a size is hexadecimal digits.

use bytes::{Buf, BytesMut};

use super::head::invalid;

/// Bytes of a line with a size, extensions included.
const LONGEST_SIZE: usize = 1024;
/// Bytes of all trailers, which are passed over.
const LONGEST_TRAILERS: usize = 16 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Size,
    Data(u64),
    /// CR LF behind a chunk's data.
    DataEnd,
    /// With the bytes of trailers that were passed over.
    Trailers(usize),
    Nothing,
}

/// What comes next.
pub struct Chunks(Expect);

impl Default for Chunks {
    fn default() -> Self {
        Self(Expect::Size)
    }
}

impl Chunks {
    pub fn is_over(&self) -> bool {
        self.0 == Expect::Nothing
    }

    /// Data that is here, of one chunk at most; empty where more has to come.
    ///
    /// # Errors
    /// What came is no chunk.
    pub fn take(&mut self, buffer: &mut BytesMut) -> pingora_core::Result<BytesMut> {
        while self.step(buffer)? {}
        let Expect::Data(left) = self.0 else { return Ok(BytesMut::new()) };
        let here = left.min(buffer.len() as u64);
        let data = buffer.split_to(here as usize);
        self.0 = if here == left { Expect::DataEnd } else { Expect::Data(left - here) };
        // The end is seen with the last data where it came with it. What is wrong here is wrong at the next call, too.
        while matches!(self.step(buffer), Ok(true)) {}
        Ok(data)
    }

    /// Passes over one line that is no data; false where data or more bytes have to come first.
    fn step(&mut self, buffer: &mut BytesMut) -> pingora_core::Result<bool> {
        match self.0 {
            Expect::Data(_) | Expect::Nothing => return Ok(false),
            Expect::DataEnd => {
                let here = buffer.len().min(2);
                if buffer[..here] != b"\r\n"[..here] {
                    return invalid("a chunk is longer than its size");
                }
                if here < 2 {
                    return Ok(false);
                }
                buffer.advance(2);
                self.0 = Expect::Size;
            }
            Expect::Size => {
                let Some(line) = line(buffer, LONGEST_SIZE)? else { return Ok(false) };
                let size = size(&buffer[..line])?;
                buffer.advance(line + 2);
                self.0 = if size == 0 { Expect::Trailers(0) } else { Expect::Data(size) };
            }
            Expect::Trailers(passed) => {
                let Some(line) = line(buffer, LONGEST_TRAILERS - passed)? else { return Ok(false) };
                buffer.advance(line + 2);
                self.0 = if line == 0 { Expect::Nothing } else { Expect::Trailers(passed + line) };
            }
        }
        Ok(true)
    }
}

/// The length of the line at the start of `buffer`, without its CR LF; `None` while it is incomplete.
fn line(buffer: &[u8], longest: usize) -> pingora_core::Result<Option<usize>> {
    match memchr::memchr(b'\n', &buffer[..buffer.len().min(longest + 2)]) {
        Some(end) if end > 0 && buffer[end - 1] == b'\r' => Ok(Some(end - 1)),
        Some(_) => invalid("a line of the chunked coding ends without CR"),
        None if buffer.len() > longest => invalid("a line of the chunked coding is too long"),
        None => Ok(None),
    }
}

/// `1*HEXDIG [ BWS ";" extensions ]`
fn size(line: &[u8]) -> pingora_core::Result<u64> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let rest = line[end..].trim_ascii_start();
    let digits = std::str::from_utf8(&line[..end]).unwrap_or_default();
    match u64::from_str_radix(digits, 16) {
        Ok(size) if rest.first().is_none_or(|byte| *byte == b';') => Ok(size),
        _ => invalid("the size of a chunk is no number"),
    }
}
