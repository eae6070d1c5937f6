//! One call to a shop, as data.

use std::time::Duration;

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    None,
    Form(Vec<(&'static str, String)>),
    Json(Value),
}

/// What is sent. Debug output shows neither query, headers nor body: they hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct ShopRequest {
    pub method: Method,
    /// Below the source's address; begins with `/`, or is empty.
    pub path: String,
    /// Encoded when it is sent.
    pub query: Option<(&'static str, String)>,
    pub accept: &'static str,
    pub content_type: Option<&'static str>,
    /// A credential of ours or of the buyer, by header.
    pub credential: Option<(&'static str, String)>,
    /// One more header.
    pub extra: Option<(&'static str, &'static str)>,
    pub body: Body,
}

impl std::fmt::Debug for ShopRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}", self.method, self.path)
    }
}

impl ShopRequest {
    fn new(method: Method, path: impl Into<String>, body: Body) -> Self {
        Self {
            method,
            path: path.into(),
            query: None,
            accept: "application/json",
            content_type: None,
            credential: None,
            extra: None,
            body,
        }
    }

    pub fn form(path: &str, form: Vec<(&'static str, String)>) -> Self {
        Self::new(Method::Post, path, Body::Form(form))
    }

    pub fn json(path: impl Into<String>, body: Value) -> Self {
        Self::new(Method::Post, path, Body::Json(body))
    }

    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::Get, path, Body::None)
    }

    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::Delete, path, Body::None)
    }

    #[must_use]
    pub fn query(mut self, name: &'static str, value: &str) -> Self {
        self.query = Some((name, value.to_owned()));
        self
    }

    /// With our own key, where there is one.
    #[must_use]
    pub fn bearer(mut self, token: Option<&SecretString>) -> Self {
        self.credential =
            token.map(|token| ("authorization", format!("Bearer {}", token.expose_secret())));
        self
    }

    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.credential = Some((name, value.into()));
        self
    }

    /// Another media type than plain JSON, both ways.
    #[must_use]
    pub fn media(mut self, media: &'static str) -> Self {
        self.accept = media;
        self.content_type = Some(media);
        self
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct ShopResponse {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub body: Bytes,
}

impl ShopResponse {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// One part of a path, percent-encoded: an id must not reach another address.
pub fn segment(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => path.push(byte.into()),
            b'.' if !text.trim_matches('.').is_empty() => path.push('.'),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}
