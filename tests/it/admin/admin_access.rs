//! Who gets at the dashboard: the page is anybody's, what it shows is the operator's, and pages of somebody
//! else get neither.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    admin::feed::Feed,
    support::{Answer, Config, Gateway, Http, Mock, Raw, Reply, eventually, yaml::write_private},
};

pub const TOKEN: &str = "a-long-admin-token-0123456789";
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// A gateway whose token is in a file of its directory.
pub async fn locked(more: &str) -> (Mock, Gateway) {
    let mock = Mock::start(Reply::chat()).await;
    let dir = Arc::new(TempDir::new().unwrap());
    let token = dir.path().join("token");
    write_private(&token, TOKEN);
    let config = Config::new(&mock).admin(&format!("token: \"file:{}\"{more}", token.display()));
    let gateway = Gateway::start_in(dir, config).await;
    (mock, gateway)
}

async fn get(client: &Http, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = client.get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request).await
}

async fn post(client: &Http, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
    let mut request = client.request("POST", path).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request.body(body.to_string())).await
}

/// Logs in; what the browser sends from then on.
pub async fn cookie(gateway: &Gateway) -> String {
    let answer = post(&gateway.stranger(), "/api/session", &json!({ "token": TOKEN }), &[]).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    let set = answer.header("set-cookie").unwrap();
    set.split(';').next().unwrap().to_owned()
}

fn name_of(cookie: &str) -> &str {
    cookie.split_once('=').unwrap().0
}

/// Every header that keeps a browser in bounds.
fn is_bounded(answer: &Answer) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-embedder-policy", "require-corp"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let policy = answer.header("content-security-policy").unwrap();
    for rule in ["default-src 'none'", "frame-ancestors 'none'", "form-action 'none'"] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("access-control")));
}

#[tokio::test]
async fn browsers_get_the_page_and_tools_get_json() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let somebody = gateway.stranger();
    for (path, accept, is_page) in [
        ("/", BROWSER, true),
        ("/", "*/*", true),
        ("/", "application/json", false),
        ("/status", BROWSER, true),
        ("/status", "*/*", false),
        ("/status", "application/json, text/html;q=0.9", false),
        ("/status?gateway=all", BROWSER, true),
    ] {
        let answer = get(&somebody, path, &[("accept", accept)]).await;
        let kind = if is_page { "text/html; charset=utf-8" } else { "application/json" };
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{path}");
        assert_eq!(answer.header("vary"), Some("accept"));
        is_bounded(&answer);
        if is_page {
            let policy = answer.header("content-security-policy").unwrap();
            assert!(policy.contains("script-src 'self'") && policy.contains("connect-src 'self'"));
        }
    }
    let page = get(&somebody, "/", &[]).await;
    let tag = page.header("etag").unwrap().to_owned();
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    let again = get(&somebody, "/", &[("if-none-match", &tag)]).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(get(&somebody, "/", &[("if-none-match", "\"other\"")]).await.status, 200);
    // Everything the page names is there, and of its kind.
    for name in assets(&page.text()) {
        let asset = get(&somebody, &name, &[]).await;
        assert_eq!(asset.status, 200, "{name}");
        let kind = match name.rsplit_once('.').unwrap().1 {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            other => panic!("{other}"),
        };
        assert_eq!(asset.header("content-type"), Some(kind));
        is_bounded(&asset);
        let tag = asset.header("etag").unwrap().to_owned();
        assert_eq!(get(&somebody, &name, &[("if-none-match", &tag)]).await.status, 304);
    }
    for path in ["/assets/", "/assets/none.js", "/assets/index.html", "/assets/../Cargo.toml"] {
        assert_eq!(get(&somebody, path, &[]).await.status, 404, "{path}");
    }
    assert_eq!(post(&somebody, "/", &json!({}), &[]).await.status, 405);
    assert_eq!(post(&somebody, "/feed", &json!({}), &[]).await.status, 405);
}

fn assets(page: &str) -> Vec<String> {
    let names = page.match_indices("/assets/").map(|(at, _)| {
        let rest = &page[at..];
        rest[..rest.find(['"', '\'', ' ', '>']).unwrap_or(rest.len())].to_owned()
    });
    names.collect()
}

#[tokio::test]
async fn the_page_is_anybodys_and_what_it_shows_is_the_operators() {
    let (_mock, gateway) = locked("").await;
    let stranger = gateway.stranger();
    assert_eq!(get(&stranger, "/", &[]).await.status, 200);
    assert_eq!(get(&stranger, "/status", &[("accept", BROWSER)]).await.status, 200);
    assert_eq!(get(&stranger, "/healthz", &[]).await.status, 200);
    let data = ["/status", "/metrics", "/feed", "/api/history"];
    for path in data {
        let refused = get(&stranger, path, &[]).await;
        assert_eq!(refused.status, 401, "{path}");
        is_bounded(&refused);
        assert_eq!(refused.error("code"), "unauthorized");
    }
    let cookie = cookie(&gateway).await;
    let logged_in = [("cookie", &*cookie)];
    for path in ["/status", "/metrics", "/api/history"] {
        assert_eq!(get(&stranger, path, &logged_in).await.status, 200, "{path}");
    }
    // The cookie acts as well, for pages of this listener.
    let key = json!({ "provider": "p", "key": "p-1" });
    let own = format!("http://{}", gateway.admin);
    for (origin, status) in [(&*own, 200), ("https://evil.example", 403)] {
        let headers = [("cookie", &*cookie), ("origin", origin)];
        let answer = post(&stranger, "/api/keys/pause", &key, &headers).await;
        assert_eq!(answer.status, status, "{origin}");
    }
    let ended = post(&stranger, "/api/session/end", &json!({}), &logged_in).await;
    assert_eq!(ended.status, 204);
    assert!(ended.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(get(&stranger, "/status", &logged_in).await.status, 401);
    let forged = format!("{}={}", name_of(&cookie), "0".repeat(64));
    assert_eq!(get(&stranger, "/status", &[("cookie", &forged)]).await.status, 401);
}

#[tokio::test]
async fn the_cookie_is_for_this_page_alone_and_ends_with_the_token() {
    let (_mock, gateway) = locked("").await;
    let (stranger, typed) = (gateway.stranger(), json!({ "token": TOKEN }));
    for (headers, secure) in [(&[][..], false), (&[("x-forwarded-proto", "https")], true)] {
        let answer = post(&stranger, "/api/session", &typed, headers).await;
        let set = answer.header("set-cookie").unwrap();
        for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="] {
            assert!(set.contains(part), "{set}");
        }
        assert_eq!(set.contains("Secure"), secure, "{set}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    for (body, status) in [
        (json!({ "token": "wrong" }), 401),
        (json!({ "token": 5 }), 400),
        (json!({}), 400),
        (json!({ "token": TOKEN, "more": 1 }), 400),
    ] {
        assert_eq!(post(&stranger, "/api/session", &body, &[]).await.status, status, "{body}");
    }
    assert_eq!(get(&stranger, "/api/session", &[]).await.status, 405);
    let cookie = cookie(&gateway).await;
    let mut feed = Feed::open(gateway.admin, &format!("cookie: {cookie}\r\n")).await.unwrap();
    feed.next().await.unwrap();
    write_private(&gateway.dir.path().join("token"), "another-admin-token-0123456789");
    assert!(gateway_reads_again(&gateway).await);
    assert_eq!(get(&stranger, "/status", &[("cookie", &cookie)]).await.status, 401);
    // The feed that was open hears it, too.
    feed.ends(Duration::from_secs(5)).await;
    let old = gateway.stranger().bearing(Some(TOKEN.into()));
    assert_eq!(get(&old, "/status", &[]).await.status, 401);
    assert_eq!(get(&gateway.operator(), "/status", &[]).await.status, 200);
}

/// A browser sends what it keeps of one to the other as well: ports are nothing to a cookie.
#[tokio::test]
async fn gateways_on_one_host_do_not_log_each_other_out() {
    let ((_mock, one), (_other_mock, other)) = tokio::join!(locked(""), locked(""));
    let (first, second) = (cookie(&one).await, cookie(&other).await);
    assert!(first.starts_with("gatekeeper_session"), "{first}");
    assert_ne!(name_of(&first), name_of(&second));
    assert_eq!(name_of(&first), name_of(&cookie(&one).await), "it does not change");
    let both = format!("{first}; {second}");
    let headers = [("cookie", &*both)];
    for gateway in [&one, &other] {
        assert_eq!(get(&gateway.stranger(), "/status", &headers).await.status, 200);
    }
    let ended = post(&one.stranger(), "/api/session/end", &json!({}), &headers).await;
    let forgotten = ended.header("set-cookie").unwrap();
    assert!(forgotten.starts_with(&format!("{}=;", name_of(&first))), "{forgotten}");
    assert_eq!(get(&one.stranger(), "/status", &headers).await.status, 401);
    assert_eq!(get(&other.stranger(), "/status", &headers).await.status, 200);
}

/// The token has changed, so the one who asks has to be told the new one.
async fn gateway_reads_again(gateway: &Gateway) -> bool {
    gateway.signal(rustix::process::Signal::HUP);
    let operator = gateway.operator();
    eventually("the new token is taken", Duration::from_secs(10), || async {
        get(&operator, "/healthz", &[]).await.status == 200
            && gateway.logs().matches("is live").count() > 0
    })
    .await;
    true
}

/// A page that has rebound its name to this address, one on another port of this machine, one of another
/// site: none of them reads, acts, listens or frames.
#[tokio::test]
async fn pages_of_others_get_nothing() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock).admin("hosts: [gw.example]")).await;
    let port = gateway.admin.port();
    let own = format!("127.0.0.1:{port}");
    let key = r#"{"provider":"p","key":"p-1"}"#;
    let ask = async |method: &str, path: &str, host: &str, more: &str| {
        let body = if method == "POST" { key } else { "" };
        let mut raw = Raw::to(gateway.admin).await.unwrap();
        raw.send(format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\n{more}content-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        ))
        .await;
        if path == "/feed" {
            raw.until("\r\n\r\n").await;
            let head = raw.so_far();
            return String::from_utf8(head).unwrap()[9..12].parse::<u16>().unwrap();
        }
        raw.answer().await.unwrap().status
    };
    let rebound = format!("rebound.example:{port}");
    for (host, more, fine) in [
        (&*own, String::new(), true),
        (&own, format!("origin: http://{own}\r\n"), true),
        (&own, "sec-fetch-site: same-origin\r\n".into(), true),
        (&own, "sec-fetch-site: none\r\n".into(), true),
        ("gw.example", "origin: https://gw.example\r\n".into(), true),
        // A proxy in front of us that has put our address in.
        (&own, "origin: https://gw.example\r\n".into(), true),
        (&rebound, String::new(), false),
        (&rebound, format!("origin: http://{rebound}\r\n"), false),
        ("gw.example.evil.example", String::new(), false),
        (&own, "origin: http://127.0.0.1:3000\r\n".into(), false),
        (&own, format!("origin: http://localhost:{}\r\n", port + 1), false),
        (&own, "origin: https://evil.example\r\n".into(), false),
        (&own, "origin: null\r\n".into(), false),
        (&own, "sec-fetch-site: cross-site\r\n".into(), false),
        (&own, "sec-fetch-site: same-site\r\n".into(), false),
        (&own, format!("origin: http://{own}\r\norigin: https://evil.example\r\n"), false),
    ] {
        for (method, path) in [
            ("GET", "/status"),
            ("GET", "/metrics"),
            ("GET", "/api/history"),
            ("GET", "/feed"),
            ("POST", "/api/keys/resume"),
            ("POST", "/api/session/end"),
        ] {
            let status = ask(method, path, host, &more).await;
            let expected = if !fine {
                403
            } else if path.ends_with("/end") {
                204
            } else {
                200
            };
            assert_eq!(status, expected, "{method} {path} {host} {more}");
        }
    }
    // The page itself is not served under a foreign name either; linked from elsewhere it is.
    assert_eq!(ask("GET", "/", &rebound, "").await, 403);
    assert_eq!(
        ask("GET", "/", &own, "sec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\n").await,
        200
    );
    // A form can send no JSON.
    let mut raw = Raw::to(gateway.admin).await.unwrap();
    raw.send(format!(
        "POST /api/keys/pause HTTP/1.1\r\nhost: {own}\r\ncontent-type: text/plain\r\n\
         content-length: {}\r\n\r\n{key}",
        key.len()
    ))
    .await;
    assert_eq!(raw.answer().await.unwrap().status, 415);
}

#[tokio::test]
async fn wrong_tokens_are_slowed_down_by_bearer_and_login_alike() {
    let (_mock, gateway) = locked("").await;
    let wrong = gateway.stranger().bearing(Some("a-wrong-admin-token-000000000".into()));
    let stranger = gateway.stranger();
    let cookie = cookie(&gateway).await;
    for turn in 0..5 {
        let status = match turn % 2 {
            0 => get(&wrong, "/status", &[]).await.status,
            _ => post(&stranger, "/api/session", &json!({ "token": "no" }), &[]).await.status,
        };
        assert_eq!(status, 401, "{turn}");
    }
    // From now on wrong ones wait, however they are sent.
    let typed = json!({ "token": "no" });
    let (first, second) =
        tokio::join!(get(&wrong, "/metrics", &[]), post(&stranger, "/api/session", &typed, &[]));
    for answer in [first, second] {
        assert_eq!(answer.status, 429, "{}", answer.text());
        assert!((1..=60).contains(&answer.number("retry-after")));
        assert_eq!(answer.error("code"), "too_many_tries");
    }
    // Who is in stays in, and health is nobody's secret.
    assert_eq!(get(&stranger, "/status", &[("cookie", &cookie)]).await.status, 200);
    assert_eq!(get(&stranger, "/healthz", &[]).await.status, 200);
    eventually("the wait ends", Duration::from_secs(5), || async {
        get(&wrong, "/status", &[]).await.status == 401
    })
    .await;
    assert_eq!(get(&gateway.operator(), "/status", &[]).await.status, 200);
}

#[tokio::test]
async fn addresses_behind_a_proxy_are_told_apart() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = Arc::new(TempDir::new().unwrap());
    let token = dir.path().join("token");
    write_private(&token, TOKEN);
    let config = Config::new(&mock)
        .server("grace: 5s, trusted_proxies: [127.0.0.0/8]")
        .admin(&format!("token: \"file:{}\"", token.display()));
    let gateway = Gateway::start_in(dir, config).await;
    let from = |address| [("x-forwarded-for", address)];
    let wrong = gateway.stranger().bearing(Some("wrong".into()));
    let right = gateway.stranger().bearing(Some(TOKEN.into()));
    for _ in 0..5 {
        assert_eq!(get(&wrong, "/status", &from("198.51.100.1")).await.status, 401);
    }
    assert_eq!(get(&wrong, "/status", &from("198.51.100.1")).await.status, 429);
    assert_eq!(get(&wrong, "/status", &from("198.51.100.2")).await.status, 401);
    assert_eq!(get(&right, "/status", &from("198.51.100.1")).await.status, 200);
}
