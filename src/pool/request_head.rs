//! The head that all requests to one endpoint of a provider begin with.

use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderName, HeaderValue, Method, Version,
    header::{ACCEPT_ENCODING, CONTENT_TYPE, HOST, USER_AGENT},
    request::Parts,
};

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("gatekeeper/", env!("CARGO_PKG_VERSION")));

/// What the heads of one endpoint have in common, made once.
pub struct CommonHead {
    pub parts: Parts,
    /// Its fields as HTTP/1 writes them.
    pub wire: Bytes,
}

impl CommonHead {
    /// # Errors
    /// A base URL that makes no valid request target.
    pub fn new(path: &str, authority: &HeaderValue) -> http::Result<Self> {
        let request = http::Request::builder()
            .method(Method::POST)
            .uri(path)
            .version(Version::HTTP_11)
            .header(HOST, authority)
            .header(CONTENT_TYPE, "application/json")
            // Usage is read from the body, so it must come uncompressed.
            .header(ACCEPT_ENCODING, "identity")
            .header(USER_AGENT, AGENT)
            .body(())?;
        let parts = request.into_parts().0;
        let mut wire = BytesMut::new();
        parts.headers.iter().for_each(|(name, value)| put_field(&mut wire, name, value));
        Ok(Self { parts, wire: wire.freeze() })
    }
}

/// One line of an HTTP/1 head.
pub fn put_field(wire: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
        wire.put_slice(part);
    }
}
