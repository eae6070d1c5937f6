//! Where a message ends, decided on the bytes that were received.
//!
//! Whatever two parsers could read differently is refused here, before the parser below sees it: that one takes
//! Content-Length out where Transfer-Encoding stands beside it, escapes odd bytes of a target, and takes line ends
//! of one byte (RFC 9112 sections 2.2, 3.2, 6.3).

/// What follows a head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Framing {
    /// Bytes of the body.
    pub length: u64,
    pub is_chunked: bool,
}

/// Checks a whole HTTP/1 head: the request line, the framing headers, `Host`, and that every line ends in CRLF.
/// Everything else is the parser's.
///
/// # Errors
/// Why it is not well-formed.
pub fn check(head: &[u8]) -> Result<Framing, &'static str> {
    let mut found = Found::default();
    let mut rest = head;
    let mut is_http10 = None;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let Some(line) = rest[..end].strip_suffix(b"\r") else { return Err("a bare line feed") };
        rest = &rest[end + 1..];
        match is_http10 {
            None => is_http10 = Some(check_request_line(line)?),
            Some(_) => found.line(line)?,
        }
    }
    found.framing(is_http10.unwrap_or_default())
}

/// Headers that define the end of a message or its recipient.
#[derive(Default)]
struct Found {
    hosts: usize,
    lengths: usize,
    encodings: usize,
    length: u64,
}

impl Found {
    fn line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        // Names of one length each: nearly all headers are passed over by it.
        let Some(colon) = memchr::memchr(b':', line) else { return Ok(()) };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.hosts += 1;
                if !is_host(value.trim_ascii()) {
                    return Err("a Host that is no host");
                }
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => return Err("upgrades are not served"),
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                self.lengths += 1;
                let length = std::str::from_utf8(value.trim_ascii()).ok();
                let digits = length.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                let length = digits.and_then(|text| text.parse().ok());
                self.length = length.ok_or("a Content-Length that is not a number")?;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.encodings += 1;
                if !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err("a Transfer-Encoding other than chunked");
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, is_http10: bool) -> Result<Framing, &'static str> {
        match (self.hosts, self.lengths, self.encodings) {
            (0, ..) if !is_http10 => Err("no Host header"),
            (2.., ..) => Err("more than one Host header"),
            (_, lengths, encodings) if is_http10 && lengths + encodings > 0 => {
                Err("HTTP/1.0 with a body")
            }
            (_, 1.., 1..) => Err("Content-Length together with Transfer-Encoding"),
            (_, 2.., _) => Err("more than one Content-Length"),
            (_, _, 2..) => Err("more than one Transfer-Encoding"),
            _ => Ok(Framing { length: self.length, is_chunked: self.encodings == 1 }),
        }
    }
}

/// Three words with one blank between; the target in origin form, in visible ASCII and without a fragment:
/// what is compared with the table of routes is what was sent. Whether it is HTTP/1.0.
fn check_request_line(line: &[u8]) -> Result<bool, &'static str> {
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    let version = words.next().unwrap_or_default();
    if method.is_empty() {
        return Err("an empty line in front of the request");
    }
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'#';
    if !target.starts_with(b"/") || !target.iter().all(is_plain) {
        return Err("a request target that is not a plain path");
    }
    if words.next().is_some() {
        return Err("a request line with extra words");
    }
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        _ => Err("a version that is not served"),
    }
}

/// `uri-host [ ":" port ]` (RFC 9110 section 7.2, RFC 3986 section 3.2.2).
pub fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = memchr::memchr(b']', rest) else { return false };
            let literal = &rest[..end];
            let is_literal = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            if literal.is_empty() || !literal.iter().all(is_literal) {
                return false;
            }
            (&b""[..], &rest[end + 1..])
        }
        None => value.split_at(memchr::memchr(b':', value).unwrap_or(value.len())),
    };
    let is_name = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%')
            || matches!(
                byte,
                b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
            )
    };
    let port_is_fine = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    port_is_fine && host.iter().all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_that_two_parsers_could_read_differently_is_refused() {
        let head =
            |more: &str| check(format!("POST /chat HTTP/1.1\r\nhost: a\r\n{more}\r\n").as_bytes());
        assert_eq!(head("Content-Length: 3\r\n"), Ok(Framing { length: 3, is_chunked: false }));
        assert_eq!(
            head("transfer-encoding: Chunked\r\n"),
            Ok(Framing { length: 0, is_chunked: true })
        );
        for more in [
            "content-length: 3\r\nCONTENT-LENGTH: 3\r\n",
            "content-length: 3\r\nTransfer-Encoding: chunked\r\n",
            "transfer-encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: +3\r\n",
            "Content-Length:\r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "X: a\nY: b\r\n",
            "host: b\r\n",
            "Upgrade: websocket\r\n",
        ] {
            assert!(head(more).is_err(), "{more:?}");
        }
        assert!(check(b"POST /chat HTTP/1.1\r\n\r\n").is_err(), "no host");
        assert_eq!(check(b"GET /healthz HTTP/1.0\r\n\r\n"), Ok(Framing::default()));
        assert!(check(b"POST /chat HTTP/1.0\r\ncontent-length: 1\r\n\r\n").is_err());
    }

    #[test]
    fn only_plain_targets_pass() {
        let line = |text: &str| check(format!("{text}\r\nhost: a\r\n\r\n").as_bytes());
        assert!(line("GET /v1/me?x=1 HTTP/1.1").is_ok());
        for text in [
            "POST http://a/chat HTTP/1.1",
            "POST /a b HTTP/1.1",
            "POST  /a HTTP/1.1",
            "POST /a  HTTP/1.1",
            "POST /a#b HTTP/1.1",
            "POST /a\rb HTTP/1.1",
            "POST /a\0b HTTP/1.1",
            "POST /\u{e9} HTTP/1.1",
            "POST * HTTP/1.1",
            "CONNECT a:443 HTTP/1.1",
            "PRI * HTTP/2.0",
            "POST /a HTTP/1.2",
            "POST /a",
            "\r\nPOST /a HTTP/1.1",
            "",
        ] {
            assert!(line(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for host in
            ["a", "a.example", "a:80", "a:", "127.0.0.1:8080", "[::1]", "[::1]:80", "", "a_b"]
        {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "a, b", "x/y", "a b", "h:8x", "<script>", "a:80:90", "[::1", "[]", "[::1]x", "u@a",
            "a\0",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
        assert!(!is_host("\u{e9}".as_bytes()));
    }
}
