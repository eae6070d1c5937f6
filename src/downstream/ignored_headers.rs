//! Headers that SDKs and browsers send and that no part of the apps' listener reads. They are taken out of a head before
//! it is parsed: each would cost a name, a value and a place in the map.

use bytes::BytesMut;

/// Whether a name is one of them, by its length first: nearly all others are passed over by it.
fn is_ignored_name(name: &[u8]) -> bool {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    match name.len() {
        3 => is("dnt"),
        6 => is("accept") || is("pragma"),
        7 => is("referer"),
        8 => is("priority"),
        10 => is("user-agent"),
        13 => is("cache-control"),
        15 => is("accept-encoding") || is("accept-language"),
        16 => is("x-requested-with"),
        _ => false,
    }
}

/// All that begin so are ignored.
fn is_of_ignored_family(name: &[u8]) -> bool {
    let families: &[&str] = match name.first() {
        Some(b'x' | b'X') => &["x-stainless-"],
        Some(b's' | b'S') => &["sec-ch-", "sec-fetch-"],
        Some(b'o' | b'O') => &["openai-"],
        _ => return false,
    };
    let begins = |family: &&str| {
        name.len() > family.len() && name[..family.len()].eq_ignore_ascii_case(family.as_bytes())
    };
    families.iter().any(begins)
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

/// Takes them out of the head that `bytes` begin with, which ends at `end`; returns where it ends now. What the parser
/// might refuse stays.
pub fn take_out(bytes: &mut BytesMut, end: usize) -> usize {
    let (mut from, mut kept) = (0, 0);
    while let Some(length) = memchr::memchr(b'\n', &bytes[from..end]) {
        let next = from + length + 1;
        if !is_ignored(&bytes[from..next]) {
            if kept < from {
                bytes.copy_within(from..next, kept);
            }
            kept += next - from;
        }
        from = next;
    }
    if kept < from {
        let behind = bytes.len() - from;
        bytes.copy_within(from.., kept);
        bytes.truncate(kept + behind);
    }
    kept
}

/// Whether a line, with its end, is such a header and has nothing but visible ASCII and blanks in it.
fn is_ignored(line: &[u8]) -> bool {
    let Some(colon) = memchr::memchr(b':', line) else { return false };
    let name = &line[..colon];
    let value = line[colon + 1..].strip_suffix(b"\r\n");
    (is_ignored_name(name) || is_of_ignored_family(name))
        && value.is_some_and(|value| value.iter().all(|byte| (b' '..=b'~').contains(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(head: &str) -> String {
        let mut bytes = BytesMut::from(format!("{head}\r\nbody\n").as_bytes());
        let end = take_out(&mut bytes, head.len() + 2);
        assert_eq!(&bytes[end..], b"body\n");
        String::from_utf8(bytes[..end].to_vec()).unwrap()
    }

    #[test]
    fn what_nothing_reads_goes_and_all_else_stays_byte_for_byte() {
        let head = "POST /v1/chat/completions HTTP/1.1\r\nAccept: application/json\r\nHost: a\r\n\
                    user-agent: OpenAI/JS 6.9.1\r\nX-Stainless-Lang: js\r\nauthorization: Bearer K\r\n\
                    Content-Length: 5\r\nSEC-Fetch-Mode: cors\r\nx-message-id: m\r\nx-stainless-retry-count: 0\r\n";
        let expected = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nauthorization: Bearer K\r\n\
                        Content-Length: 5\r\nx-message-id: m\r\n\r\n";
        assert_eq!(left(head), expected);
    }

    #[test]
    fn what_frames_a_message_or_says_who_asks_is_never_taken_out() {
        for name in [
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "expect",
            "upgrade",
            "te",
            "authorization",
            "x-api-key",
            "x-goog-api-key",
            "api-key",
            "cookie",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-message-id",
            "x-instance-id",
            "x-conversation-id",
            "x-gatekeeper-tier",
            "x-max-wait",
            "anthropic-version",
            "content-type",
            "content-encoding",
            "origin",
            "access-control-request-method",
            "webhook-signature",
            "x-signature",
            "stripe-signature",
            "creem-signature",
            "http2-settings",
        ] {
            let head = format!("GET / HTTP/1.1\r\n{name}: a\r\n");
            assert_eq!(left(&head), format!("{head}\r\n"), "{name}");
        }
    }

    #[test]
    fn what_a_parser_would_refuse_is_left_to_it() {
        for line in [
            "accept: a\0b",
            "accept: a\u{e9}",
            "accept : a",
            " accept: a",
            "x-stainless-\u{1}: a",
            "x-stainless-a b: c",
            "x-stainless-: a\rb",
            "user-agent",
            "x-stainless-",
        ] {
            let head = format!("GET / HTTP/1.1\r\n{line}\r\n");
            assert_eq!(left(&head), format!("{head}\r\n"), "{line:?}");
        }
        // Folding: the next line would be of another header.
        let folded = "GET / HTTP/1.1\r\nhost: a\r\naccept: a\r\n b\r\n";
        assert_eq!(left(folded), "GET / HTTP/1.1\r\nhost: a\r\n b\r\n\r\n");
    }
}
