//! The dashboard: the files of `dashboard/`, embedded at build time. They hold no data, so they are served
//! without a login.

use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use rust_embed::RustEmbed;

use super::answer;

/// Path of the files beside the page itself.
pub const ASSETS: &str = "/assets/";
const INDEX: &str = "index.html";

/// The page loads everything from this listener, has no inline script or style, and cannot be framed.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

#[derive(RustEmbed)]
#[folder = "dashboard/"]
struct Files;

/// The files by name.
pub struct Assets(HashMap<String, Asset>);

struct Asset {
    kind: &'static str,
    bytes: Bytes,
    tag: HeaderValue,
}

fn kind(name: &str) -> Option<&'static str> {
    let (_, ending) = name.rsplit_once('.')?;
    Some(match ending {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => return None,
    })
}

impl Assets {
    pub fn load() -> Self {
        let file = |name: &str| {
            let (kind, file) = (kind(name)?, Files::get(name)?);
            let hash: String = file.metadata.sha256_hash()[..16]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let tag = HeaderValue::from_str(&format!("\"{hash}\"")).ok()?;
            let bytes = match file.data {
                std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                std::borrow::Cow::Owned(bytes) => bytes.into(),
            };
            Some(Asset { kind, bytes, tag })
        };
        let named = |name: std::borrow::Cow<'_, str>| Some((name.to_string(), file(&name)?));
        Self(Files::iter().filter_map(named).collect())
    }

    pub fn index(&self, headers: &HeaderMap) -> Option<Response<Bytes>> {
        self.0.get(INDEX).map(|file| file.answer(headers))
    }

    pub fn asset(&self, name: &str, headers: &HeaderMap) -> Option<Response<Bytes>> {
        let file = self.0.get(name).filter(|_| name != INDEX);
        file.map(|file| file.answer(headers))
    }
}

impl Asset {
    fn answer(&self, headers: &HeaderMap) -> Response<Bytes> {
        let mut response = if self.is_known(headers) {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            answer(StatusCode::OK, self.kind, self.bytes.clone())
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.tag.clone());
        // Kept, and asked about each time: another version of the gateway has another page.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
        response
    }

    fn is_known(&self, headers: &HeaderMap) -> bool {
        headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|tags| tags.to_str().ok())
            .flat_map(|tags| tags.split(','))
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|tag| tag == "*" || tag.as_bytes() == self.tag.as_bytes())
    }
}

/// Which of the two a request would rather have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreferredEncoding {
    Html,
    Json,
    Either,
}

/// The preferred encoding in `Accept-Encoding`. Only names count: `*/*` is no preference.
pub fn preferred(headers: &HeaderMap) -> PreferredEncoding {
    let (mut html, mut json) = (0.0, 0.0);
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    for range in lines.flat_map(|line| line.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let quality = match parts.next().unwrap_or_default() {
            kind if kind.eq_ignore_ascii_case("text/html") => &mut html,
            kind if kind.eq_ignore_ascii_case("application/json") => &mut json,
            _ => continue,
        };
        let stated = parts.find_map(|part| part.strip_prefix("q=")?.trim().parse::<f32>().ok());
        *quality = stated.unwrap_or(1.0).max(*quality);
    }
    if html > json {
        PreferredEncoding::Html
    } else if json > html {
        PreferredEncoding::Json
    } else {
        PreferredEncoding::Either
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_prefer_the_page_and_tools_do_not() {
        for (accept, prefers) in [
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                PreferredEncoding::Html,
            ),
            ("*/*", PreferredEncoding::Either),
            ("application/json", PreferredEncoding::Json),
            ("application/json, text/html;q=0.9", PreferredEncoding::Json),
            ("application/json;q=0.5, Text/HTML; q=0.7", PreferredEncoding::Html),
            ("text/html;q=0", PreferredEncoding::Either),
            ("text/*", PreferredEncoding::Either),
            ("", PreferredEncoding::Either),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(preferred(&headers), prefers, "{accept}");
        }
        assert_eq!(preferred(&HeaderMap::new()), PreferredEncoding::Either);
    }

    #[test]
    fn the_page_is_in_the_program_and_known_by_its_tag() {
        let page = Assets::load();
        let first = page.index(&HeaderMap::new()).unwrap();
        assert!(first.body().starts_with(b"<!doctype html>") || !first.body().is_empty());
        let tag = first.headers()[header::ETAG].clone();
        let text = format!("\"other\", W/{}", tag.to_str().unwrap());
        for known in ["*".to_owned(), text] {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, known.parse().unwrap())]);
            let again = page.index(&headers).unwrap();
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
            assert!(again.body().is_empty() && again.headers()[header::ETAG] == tag);
        }
        assert!(page.asset("index.html", &HeaderMap::new()).is_none());
        assert!(page.asset("../Cargo.toml", &HeaderMap::new()).is_none());
    }
}
