//! The head that all requests to one endpoint of a provider begin with.

use http::{
    HeaderValue, Method, Version,
    header::{ACCEPT_ENCODING, CONTENT_TYPE, HOST, USER_AGENT},
    request::Parts,
};

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("gatekeeper/", env!("CARGO_PKG_VERSION")));

/// What the heads of one endpoint have in common, made once.
///
/// # Errors
/// A base URL that makes no valid request target.
pub fn common_head(path: &str, authority: &HeaderValue) -> http::Result<Parts> {
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
    Ok(request.into_parts().0)
}
