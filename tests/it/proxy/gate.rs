//! The gate: which (method, path) pairs there are, and that there is one credential in one place.

use futures_util::StreamExt as _;
use serde_json::json;

use crate::support::{
    Answer, Config, Gateway, LICENSE, Mock, Raw, Reply, Wire,
    client::{self, count_answers},
};
use std::time::Duration;

const POSTS: [&str; 4] = ["/chat", "/v1/chat/completions", "/v1/responses", "/v1/embeddings"];
/// They answer in envelopes of their own: `dialects` looks at those.
const OTHER_DIALECTS: [&str; 3] = [
    "/v1/messages",
    "/v1beta/models/fast:generateContent",
    "/v1beta/models/fast:streamGenerateContent",
];
const GETS: [&str; 3] = ["/v1/models", "/v1/me", "/healthz"];

async fn start(wire: Wire) -> (Mock, Gateway) {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock).over(wire)).await;
    (mock, gateway)
}

async fn a_known_path_with_another_method_is_405(wire: Wire) {
    let (mock, gateway) = start(wire).await;
    let app = gateway.app();
    for path in POSTS {
        for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let request = app.request(method, path).bearer_auth(LICENSE);
            Answer::of(request).await.is(405, "method_not_allowed");
        }
    }
    for path in GETS {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let request = app.request(method, path).bearer_auth(LICENSE);
            Answer::of(request).await.is(405, "method_not_allowed");
        }
    }
    assert_eq!(mock.count(), 0);
}

async fn an_unknown_path_is_404(wire: Wire) {
    let (mock, gateway) = start(wire).await;
    let app = gateway.app();
    let unknown = [
        "/",
        "/v1",
        "/v1/",
        "/v1/chat",
        "/v1/chat/completions/",
        "/v1/chat/completions/x",
        "/v1/files",
        "/v1/fine_tuning/jobs",
        "/v1/organization/users",
        "/v1/batches",
        "/v1/responses/resp_1",
        "/v1/vector_stores",
        "/v1/audio/speech",
        "/v1/images/generations",
        "/v1/completions",
        "/chat/",
        "/Chat",
        "/v1/Chat/Completions",
        "/v1/models/",
        "/v1beta/cachedContents",
        "/openai/v1/chat/completions",
    ];
    for path in unknown {
        for method in ["GET", "POST", "DELETE"] {
            let request = app.request(method, path).bearer_auth(LICENSE);
            Answer::of(request).await.is(404, "not_found");
        }
    }
    assert_eq!(mock.count(), 0);
}

async fn a_request_without_one_credential_is_401(wire: Wire) {
    let (mock, gateway) = start(wire).await;
    let app = gateway.app();
    let bearer = format!("Bearer {LICENSE}");
    let cases: [(&str, &[(&str, &str)]); 12] = [
        ("none", &[]),
        ("empty", &[("authorization", "")]),
        ("no token", &[("authorization", "Bearer")]),
        ("empty token", &[("authorization", "Bearer ")]),
        ("basic", &[("authorization", "Basic SlNUQVItVEVTVC0wMDAxOg==")]),
        ("no scheme", &[("authorization", LICENSE)]),
        ("two tokens", &[("authorization", "Bearer JSTAR-TEST-0001 JSTAR-TEST-0001")]),
        ("twice", &[("authorization", &bearer), ("authorization", &bearer)]),
        ("two that differ", &[("authorization", &bearer), ("authorization", "Bearer other-key-1")]),
        ("both places", &[("authorization", &bearer), ("x-api-key", LICENSE)]),
        ("both places, Gemini's", &[("authorization", &bearer), ("x-goog-api-key", LICENSE)]),
        ("x-api-key twice", &[("x-api-key", LICENSE), ("x-api-key", LICENSE)]),
    ];
    for (what, headers) in cases {
        for (method, path) in [("POST", "/v1/chat/completions"), ("GET", "/v1/me")] {
            let mut request = app.request(method, path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if method == "POST" {
                request = request.body(client::chat(&json!({})).to_string());
            }
            let answer = Answer::of(request).await;
            assert_eq!(answer.status, 401, "{what}");
            answer.is(401, "license_missing");
        }
    }
    let in_the_query = app.request("GET", &format!("/v1/me?key={LICENSE}"));
    Answer::of(in_the_query).await.is(401, "license_missing");
    assert_eq!(mock.count(), 0);
}

async fn a_compressed_body_is_415(wire: Wire) {
    let (mock, gateway) = start(wire).await;
    let body = client::chat(&json!({})).to_string();
    for encoding in ["gzip", "deflate", "br", "zstd", "gzip, identity"] {
        let request = gateway.app().post("/v1/chat/completions", body.clone());
        let answer = Answer::of(request.header("content-encoding", encoding)).await;
        answer.is(415, "unsupported_encoding");
    }
    assert_eq!(mock.count(), 0);
    let plain = gateway.app().post("/v1/chat/completions", body);
    Answer::of(plain.header("content-encoding", "identity")).await.ok();
}

over_every_wire! {
    a_known_path_with_another_method_is_405,
    an_unknown_path_is_404,
    a_request_without_one_credential_is_401,
    a_compressed_body_is_415,
}

/// Every way to write a path that a router and a provider might read differently.
pub fn mutations() -> Vec<String> {
    let victims = [
        "/v1/chat/completions",
        "/chat",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/messages",
        "/v1/messages/batches",
        "/v1beta/models/fast:generateContent",
        "/v1beta/models/fast:countTokens",
        "/v1/files",
        "/v1/batches",
        "/v1/fine_tuning/jobs",
        "/v1/organization/users",
        "/v1/responses/resp_1",
        "/v1/vector_stores",
        "/v1beta/cachedContents",
        "/v1/models",
    ];
    let mut paths = Vec::new();
    for victim in victims {
        let first = victim.split('/').nth(1).unwrap();
        let tail = &victim[1..];
        let mut add = |path: String| paths.push(path);
        add(format!("{victim}/"));
        add(format!("{victim}//"));
        add(format!("/{victim}"));
        add(format!("//{victim}"));
        add(format!("/.{victim}"));
        add(format!("/./{tail}"));
        add(format!("/x/..{victim}"));
        add(format!("/%2e%2e{victim}"));
        add(format!("/%2E{victim}"));
        add(format!("{victim}/."));
        add(format!("{victim}/.."));
        add(format!("{victim}/../files"));
        add(format!("{victim}/%2e%2e/files"));
        add(format!("{victim}%2f..%2ffiles"));
        add(format!("{victim}%2Ffiles"));
        add(format!("{victim}%5c..%5cfiles"));
        add(format!("{victim}\\..\\files"));
        add(victim.replace('/', "\\"));
        add(victim.replace('/', "%2f"));
        add(victim.replace('/', "%252f"));
        add(format!("/{}", victim[1..].replace('/', "%2F")));
        add(format!("{victim};x=1"));
        add(format!("{victim};/files"));
        add(format!("/{first};x{}", &victim[1 + first.len()..]));
        add(format!("{victim}%00"));
        add(format!("{victim}%0a"));
        add(format!("{victim}%20"));
        add(format!("{victim}%09"));
        add(format!("{victim}."));
        add(format!("{victim}%"));
        add(format!("{victim}%zz"));
        add(format!("{victim}\u{e9}"));
        add(format!("{victim}%c0%af"));
        add(victim.to_uppercase());
        add(victim.replacen('c', "%63", 1));
        add(victim.replacen('e', "%65", 1));
        add(format!("http://api.openai.com{victim}"));
        add(format!("https://gateway.test{victim}"));
        add(tail.to_owned());
        add(format!("?{victim}"));
        add(format!("#{victim}"));
        add(format!("/v1{victim}"));
    }
    paths.push("*".into());
    paths.push("/".into());
    let allowed = [&POSTS[..], &OTHER_DIALECTS, &GETS].concat();
    let is_allowed = |path: &String| allowed.contains(&path.as_str());
    paths.retain(|path| !is_allowed(path));
    paths.sort();
    paths.dedup();
    paths
}

const METHODS: [&str; 8] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"];

async fn no_mutated_path_reaches_the_provider(wire: Wire) {
    let (mock, gateway) = start(wire).await;
    let paths = mutations();
    assert!(paths.len() >= 400, "only {} mutations", paths.len());
    let body = client::chat(&json!({})).to_string();
    let methods = if wire == Wire::Plain { &METHODS[..] } else { &METHODS[1..2] };
    let all = paths.iter().flat_map(|path| methods.iter().map(move |method| (path, method)));
    let check = async |(path, method): (&String, &&str)| {
        let mut raw = gateway.raw().await;
        let length = body.len();
        let request = client::post_head(path).replacen("POST", method, 1)
            + &format!("connection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        raw.send(&request).await;
        let answer = raw.rest(Duration::from_secs(10)).await;
        let answer = answer.unwrap_or_else(|| panic!("{method} {path}: no end"));
        assert_eq!(count_answers(&answer), 1, "{method} {path}");
        let status = String::from_utf8_lossy(&answer[9..12]).into_owned();
        assert!(["400", "404", "405"].contains(&status.as_str()), "{method} {path}: {status}");
    };
    // What is malformed is answered at once, and its connection lingers for half a second.
    futures_util::stream::iter(all).for_each_concurrent(64, check).await;
    assert_eq!(mock.count(), 0, "{:?}", mock.seen().first().map(|seen| seen.path.clone()));
    Answer::of(gateway.app().post("/chat", body)).await.ok();
}

over_http1! { no_mutated_path_reaches_the_provider }

#[tokio::test]
async fn a_query_never_travels_on() {
    let (mock, gateway) = start(Wire::Plain).await;
    let body = client::chat(&json!({})).to_string();
    for query in ["?api-version=1", "?key=canary-query", "?alt=sse&x=%2e%2e", "?", "?a/../b"] {
        let path = format!("/v1/chat/completions{query}");
        let answer = Answer::of(gateway.app().post(&path, body.clone())).await;
        assert!([200, 400, 404].contains(&answer.status), "{query}: {}", answer.status);
    }
    for seen in mock.seen() {
        assert_eq!(seen.path, "/v1/chat/completions");
    }
}

#[tokio::test]
async fn a_refusal_comes_before_the_body_is_sent() {
    let (mock, gateway) = start(Wire::Plain).await;
    let mut raw: Raw = gateway.raw().await;
    raw.send(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer WRONG-KEY-0001\r\n\
         content-length: 1000\r\n\r\n{\"model\"",
    )
    .await;
    let answer = raw.answer().await.unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (403, "license_invalid"));
    assert_eq!(mock.count(), 0);
}
