//! The head of an answer: parsed once, kept as the bytes that came and where each field stands in them.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_core::{Error, ErrorType, OrErr};

/// Fields of a head; providers send some twenty.
const MOST_FIELDS: usize = 256;

/// Where the body ends (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    Length(u64),
    Chunked,
    Close,
}

/// Offsets in the head.
struct Field {
    name: (u32, u32),
    value: (u32, u32),
}

/// Status and fields of an answer.
pub struct ResponseFields {
    pub status: u16,
    bytes: Bytes,
    fields: Vec<Field>,
}

impl ResponseFields {
    fn slice(&self, (start, end): (u32, u32)) -> &[u8] {
        self.bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// The first field of this name, which is in lower case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let fields = self.fields.iter().filter(move |field| {
            (field.name.1 - field.name.0) as usize == name.len()
                && self.slice(field.name).eq_ignore_ascii_case(name.as_bytes())
        });
        fields.map(|field| self.slice(field.value))
    }

    /// All of them, for what is asked of errors.
    pub fn to_map(&self) -> HeaderMap {
        let named = |field: &Field| {
            let name = HeaderName::from_bytes(self.slice(field.name)).ok()?;
            Some((name, HeaderValue::from_bytes(self.slice(field.value)).ok()?))
        };
        self.fields.iter().filter_map(named).collect()
    }
}

/// A parsed head.
pub struct Parsed {
    pub fields: ResponseFields,
    pub framing: BodyEnd,
    pub keep_alive: bool,
}

/// Where the head ends in `bytes`, with its empty line. `searched` is how far earlier calls have looked, so that a head
/// costs what is in it, however it trickles.
pub fn end(bytes: &[u8], searched: &mut usize) -> Option<usize> {
    let from = searched.saturating_sub(3);
    for line_end in memchr::memchr_iter(b'\n', &bytes[from..]) {
        let next = from + line_end + 1;
        match bytes[next..] {
            [b'\n', ..] => return Some(next + 1),
            [b'\r', b'\n', ..] => return Some(next + 2),
            _ => {}
        }
    }
    *searched = bytes.len();
    None
}

/// Parses a whole head.
///
/// # Errors
/// It is none, or leaves open where its body ends.
pub fn parse(bytes: Bytes) -> pingora_core::Result<Parsed> {
    let mut slots = [MaybeUninit::uninit(); MOST_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    // As Pingora reads answers: some servers write such.
    config.allow_spaces_after_header_name_in_responses(true);
    config.allow_obsolete_multiline_headers_in_responses(true);
    let parsed = config.parse_response_with_uninit_headers(&mut response, &bytes, &mut slots);
    let parsed = parsed.or_err(ErrorType::InvalidHTTPHeader, "the head of an answer")?;
    if parsed.is_partial() {
        return invalid("the head of an answer is not whole");
    }
    let (Some(status @ 100..=999), Some(version)) = (response.code, response.version) else {
        return invalid("the head of an answer has no status");
    };
    let base = bytes.as_ptr() as usize;
    let place = |part: &[u8]| {
        let start = part.as_ptr() as usize - base;
        (start as u32, (start + part.len()) as u32)
    };
    let mut fields = Vec::with_capacity(response.headers.len());
    for header in response.headers.iter() {
        fields.push(Field { name: place(header.name.as_bytes()), value: place(header.value) });
    }
    let fields = ResponseFields { status, fields, bytes };
    let framing = framing(&fields)?;
    let keep_alive = keep_alive(&fields, version) && framing != BodyEnd::Close;
    Ok(Parsed { fields, framing, keep_alive })
}

fn framing(fields: &ResponseFields) -> pingora_core::Result<BodyEnd> {
    // An informational head has no body either (RFC 9110, 15.2).
    if matches!(fields.status, 100..=199 | 204 | 304) {
        return Ok(BodyEnd::Length(0));
    }
    let mut codings = fields.all("transfer-encoding").peekable();
    if codings.peek().is_some() {
        // It overrides a length (RFC 9112, 6.3), and none but this was asked for (`TE` was not sent).
        return match codings.all(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked")) {
            true => Ok(BodyEnd::Chunked),
            false => invalid("an unknown transfer coding"),
        };
    }
    let mut length = None;
    for stated in fields.all("content-length").flat_map(|list| list.split(|byte| *byte == b',')) {
        // The same number twice is that number, two are none (RFC 9110, 8.6).
        let stated = number(stated.trim_ascii());
        if stated.is_none() || length.is_some_and(|length| Some(length) != stated) {
            return invalid("an invalid Content-Length");
        }
        length = stated;
    }
    Ok(length.map_or(BodyEnd::Close, BodyEnd::Length))
}

/// What came is no HTTP/1.
pub fn invalid<T>(why: &'static str) -> pingora_core::Result<T> {
    Error::e_explain(ErrorType::InvalidHTTPHeader, why)
}

/// Digits and nothing else.
fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// Whether another request may follow (RFC 9112, 9.3). A transfer coding of HTTP/1.0 may be of something between (6.1).
fn keep_alive(fields: &ResponseFields, version: u8) -> bool {
    let says = |option: &str| {
        let options = fields.all("connection").flat_map(|list| list.split(|byte| *byte == b','));
        options.map(<[u8]>::trim_ascii).any(|found| found.eq_ignore_ascii_case(option.as_bytes()))
    };
    match version {
        _ if says("close") => false,
        1 => true,
        _ => says("keep-alive") && fields.get("transfer-encoding").is_none(),
    }
}
