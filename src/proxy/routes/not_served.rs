//! What is said of an address that is not served: method and path, and the address that was probably meant.

use gatekeeper_filters::kernel::{Code, Rejection, near::nearest};
use http::Method;

use super::table::{RouteEntry, TABLE};

/// Characters of a path that are repeated.
const SHOWN: usize = 80;

const BASE_URL: &str = "The base URL ends in /v1.";

/// 404. The query is never repeated: it is where other APIs put keys.
pub fn not_served(method: &Method, path: &[u8]) -> Rejection {
    let path: String = path.iter().take(SHOWN).map(|byte| printable(*byte)).collect();
    let shown = shown(&path);
    let method: String = method.as_str().bytes().take(16).map(printable).collect();
    let near = of_a_model(&path).or_else(|| meant(&path).map(str::to_owned));
    let meant = match near {
        Some(at) if at.starts_with("/v1/") => format!("Did you mean {at}? {BASE_URL}"),
        Some(at) => format!("Did you mean {at}?"),
        None => {
            let known =
                TABLE.iter().filter(|(_, _, entry)| matches!(entry, RouteEntry::Provider(_)));
            let known: Vec<&str> = known.map(|(_, at, _)| *at).collect();
            format!(
                "Served are {}, Gemini's /v1beta/models/MODEL:generateContent, and GET /v1/models.",
                known.join(", ")
            )
        }
    };
    Rejection::new(Code::NotFound, format!("{method} {shown} is not served here. {meant}"))
}

/// What follows could be a secret.
fn shown(path: &str) -> &str {
    if path.starts_with("/webhooks/") { "/webhooks/..." } else { path }
}

/// A path as it may be written down.
pub fn shown_path(target: &[u8]) -> Box<str> {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let path: String = path.iter().take(SHOWN).map(|byte| printable(*byte)).collect();
    shown(&path).into()
}

fn printable(byte: u8) -> char {
    if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>') {
        char::from(byte)
    } else {
        '?'
    }
}

/// The address of one model, or of what Gemini's API does with it, below another base.
fn of_a_model(path: &str) -> Option<String> {
    let mut words = path.split('/').filter(|word| !word.is_empty()).rev();
    let (name, models) = (words.next()?, words.next()?);
    if !models.eq_ignore_ascii_case("models") {
        return None;
    }
    match name.rsplit_once(':') {
        Some((_, "generateContent" | "streamGenerateContent")) => {
            Some(format!("/v1beta/models/{name}"))
        }
        Some((_, "embedContent" | "batchEmbedContents")) => Some("/v1/embeddings".to_owned()),
        _ => Some(format!("/v1/models/{name}")).filter(|at| at != path),
    }
}

/// The address that a path looks like: with or without its base, with slashes too many, misspelt.
fn meant(path: &str) -> Option<&'static str> {
    let words: Vec<String> =
        path.split('/').filter(|word| !word.is_empty()).map(str::to_ascii_lowercase).collect();
    let known = || TABLE.iter().map(|(_, at, _)| *at);
    // Of fewer letters anything short is near.
    if words.concat().bytes().filter(u8::is_ascii_alphabetic).count() < 2 {
        return None;
    }
    for from in 0..words.len() {
        let rest = words[from..].join("/");
        let fits = |at: &&str| **at == *format!("/v1/{rest}") || **at == *format!("/{rest}");
        if let Some(at) = known().find(fits) {
            return Some(at);
        }
    }
    if words.last().is_some_and(|word| word == "completions" || word == "completion") {
        return Some("/v1/chat/completions");
    }
    let path = format!("/{}", words.join("/"));
    nearest(&path, known()).or_else(|| nearest(&format!("/v1{path}"), known()))
}

/// What a browser asks before it lets a page send a request.
pub fn no_cors() -> Rejection {
    let message = "No page of a browser may call this address (no CORS): the licence key would lie open in it. \
        An Electron app calls from its main process, a website from its server.";
    Rejection { allow: Some("POST"), ..Rejection::new(Code::MethodNotAllowed, message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &str) -> String {
        not_served(&Method::POST, path.as_bytes()).message
    }

    #[test]
    fn the_address_that_was_meant_is_named() {
        assert_eq!(
            said("/chat/completions"),
            "POST /chat/completions is not served here. Did you mean /v1/chat/completions? \
             The base URL ends in /v1."
        );
        for (path, meant) in [
            ("/v1//chat/completions", "/v1/chat/completions"),
            ("/v1/v1/chat/completions", "/v1/chat/completions"),
            ("/openai/v1/chat/completions/", "/v1/chat/completions"),
            ("/V1/Chat/Completions", "/v1/chat/completions"),
            ("/v1/completions", "/v1/chat/completions"),
            ("/v1/chat/completion", "/v1/chat/completions"),
            ("/v1/chat/competions", "/v1/chat/completions"),
            ("/responses", "/v1/responses"),
            ("/v1/message", "/v1/messages"),
            ("/messages/count_tokens", "/v1/messages/count_tokens"),
            ("/v1/embedding", "/v1/embeddings"),
            ("/models", "/v1/models"),
            ("/me", "/v1/me"),
            ("/chat/", "/chat"),
            ("/health", "/healthz"),
        ] {
            assert!(
                said(path).contains(&format!("Did you mean {meant}?")),
                "{path}: {}",
                said(path)
            );
        }
        for (path, meant) in [
            ("/models/fast", "/v1/models/fast"),
            ("/openai/v1/models/a:b", "/v1/models/a:b"),
            ("/models/fast:generateContent", "/v1beta/models/fast:generateContent"),
            ("/v1beta/models/fast:embedContent", "/v1/embeddings"),
        ] {
            assert!(said(path).contains(&format!("Did you mean {meant}?")), "{}", said(path));
        }
        for path in ["/v1/audio/transcriptions", "/v1/files", "/", "", "/favicon.ico", "*"] {
            assert!(said(path).contains("Served are /v1/chat/completions,"), "{path}");
        }
    }

    #[test]
    fn little_is_repeated_and_nothing_that_could_be_a_secret_or_markup() {
        assert!(said("/webhooks/gumroad/hunter2/x").starts_with("POST /webhooks/... is"));
        assert!(said("/a<b>\"\n\x1b[2J").starts_with("POST /a?b????[2J is"));
        assert!(said(&"/a".repeat(5000)).len() < 400);
    }
}
