//! `x-gatekeeper-dropped`: which fields of a body its answer was made without.

use gatekeeper_filters::kernel::{Endpoint, Exchange, ModelRequest};
use http::{HeaderName, HeaderValue};

use super::allowed_fields;
use crate::{config::settings, dialect::translate};

pub const HEADER: HeaderName = HeaderName::from_static("x-gatekeeper-dropped");

/// Bytes of a name that are repeated, and of all together: names are the app's, and may be as long as a body.
const NAME: usize = 64;
const ALL: usize = 1024;

/// Adds a name to the list.
pub fn name(list: &mut String, field: &str) {
    const MORE: &str = ", ...";
    if list.len() + NAME + 2 > ALL {
        if !list.ends_with(MORE) {
            list.push_str(MORE);
        }
        return;
    }
    if !list.is_empty() {
        list.push_str(", ");
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    list.extend(
        field.bytes().take(NAME).map(|byte| if plain(byte) { char::from(byte) } else { '?' }),
    );
}

/// The fields that the target did not get: those that never pass, and those that only this target does not
/// take. `endpoint` is the target's.
pub fn header(
    ask: &ModelRequest,
    exchange: &Exchange,
    endpoint: Endpoint,
    provider: Option<&settings::ProviderSettings>,
    has_extras: bool,
) -> Option<HeaderValue> {
    let is_translated = endpoint != exchange.endpoint;
    if ask.dropped.is_empty() && !is_translated && !has_extras {
        return None;
    }
    let mut list = ask.dropped.clone();
    if is_translated || has_extras {
        let takes = |field: &[u8]| {
            let allowed = provider.into_iter().flat_map(|provider| &provider.allow_fields);
            allowed_fields::passes(exchange.endpoint, field)
                || (field == b"store" && endpoint == Endpoint::Responses)
                || allowed.into_iter().any(|known| known.as_bytes() == field)
        };
        for field in ask.members.names() {
            if !takes(field) || (is_translated && translate::leaves_out(&ask.members, field)) {
                name(&mut list, &String::from_utf8_lossy(field));
            }
        }
    }
    (!list.is_empty()).then(|| HeaderValue::from_str(&list).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_a_header_whatever_they_are() {
        let mut list = String::new();
        name(&mut list, "top_k");
        name(&mut list, "a\r\nset-cookie: x");
        assert_eq!(list, "top_k, a??set-cookie??x");
        for _ in 0..1000 {
            name(&mut list, &"x".repeat(500));
        }
        assert!(list.len() <= ALL + 5 && list.ends_with(", ..."), "{}", list.len());
        assert!(HeaderValue::from_str(&list).is_ok());
    }
}
