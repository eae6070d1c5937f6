//! What stands on the page: plain HTML, one style, no script, nothing from elsewhere.

use std::{fmt::Write as _, sync::LazyLock};

use base64::{Engine, engine::general_purpose::STANDARD};
use gatekeeper_filters::kernel::{Code, Limit};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use crate::licenses::issued::stripe::ClaimedKey;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{margin:0;font:1.0625rem/1.6 system-ui,sans-serif;color:#1b1f24;background:#f6f7f9}\
main{box-sizing:border-box;max-width:38rem;margin:0 auto;padding:2rem 1rem}\
h1{font-size:1.5rem;line-height:1.3;margin:0 0 1rem}\
h2{font-size:1.0625rem;margin:1.5rem 0 .25rem}\
ul{margin:.25rem 0;padding-left:1.25rem}\
.key{display:block;box-sizing:border-box;width:100%;margin:.5rem 0;padding:.75rem;\
font:1.0625rem/1.5 ui-monospace,monospace;color:inherit;background:#fff;border:2px solid #59636e;\
border-radius:.5rem;user-select:all;-webkit-user-select:all;overflow-wrap:anywhere}\
.open{display:inline-block;margin:1rem 0;padding:.75rem 1.25rem;font-weight:600;color:#fff;background:#0b57d0;\
border-radius:.5rem;text-decoration:none}\
a:focus-visible,.key:focus-visible{outline:3px solid #0b57d0;outline-offset:2px}\
.quiet{color:#49515a}\
@media(prefers-color-scheme:dark){body{color:#e6e8eb;background:#15181c}.key{background:#0d1013;border-color:#9aa4af}\
.quiet{color:#b3bcc6}.open{color:#0d1013;background:#8ab4ff}\
a:focus-visible,.key:focus-visible{outline-color:#8ab4ff}}";

pub struct Page {
    title: &'static str,
    /// Seconds after which it is asked for again.
    pub reload: Option<u64>,
    body: String,
}

/// Nothing is loaded, sent or framed; the one style is known by its hash.
pub fn policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let hash = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
        format!(
            "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'"
        )
    });
    &POLICY
}

impl Page {
    fn new(title: &'static str, body: impl Into<String>) -> Self {
        Self { title, reload: None, body: body.into() }
    }

    pub fn html(&self) -> String {
        // The header `refresh` says the same to all browsers; this one reaches those that lose it on the way.
        let reload = self.reload.map(|seconds| {
            format!("<noscript><meta http-equiv=\"refresh\" content=\"{seconds}\"></noscript>")
        });
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"robots\" content=\"noindex\">\n{}<title>{}</title>\n<style>{STYLE}</style>\n</head>\n\
             <body>\n<main>\n<h1>{}</h1>\n{}\n</main>\n</body>\n</html>\n",
            reload.unwrap_or_default(),
            self.title,
            self.title,
            self.body
        )
    }
}

/// The key, what it is good for, and the way into the app.
pub fn key(claimed: &ClaimedKey) -> Page {
    let mut body = String::from(
        "<p>Thank you. Copy it into the app, and keep it: this page shows it for a day.</p>\n",
    );
    let _ = writeln!(
        body,
        "<p><strong id=\"label\">Licence key</strong> <span class=\"quiet\">(one click marks all of it)</span></p>\n\
         <code class=\"key\" role=\"textbox\" aria-readonly=\"true\" aria-labelledby=\"label\" tabindex=\"0\">{}</code>",
        escaped(claimed.key.expose_secret())
    );
    if let Some(link) = &claimed.link {
        let _ = writeln!(
            body,
            "<p><a class=\"open\" href=\"{}\">Open in the app</a><br>\
             <span class=\"quiet\">The link works once, within ten minutes.</span></p>",
            escaped(link)
        );
    }
    let plan = &claimed.plan;
    let _ = writeln!(body, "<h2>Your plan: {}</h2>\n<ul>", escaped(&plan.name));
    let limits = [("messages", plan.messages), ("tokens", plan.tokens)];
    for (what, limit) in limits.iter().filter_map(|(what, limit)| Some((what, (*limit)?))) {
        let _ = writeln!(body, "<li>{}</li>", limit_words(what, limit));
    }
    if limits.iter().all(|(_, limit)| limit.is_none()) {
        body.push_str("<li>No limit on messages</li>\n");
    }
    if let Some(devices) = plan.max_devices {
        let _ = writeln!(body, "<li>{devices} devices at most</li>");
    }
    if let Some(until) = claimed.until {
        let text = until.to_rfc3339();
        let _ = writeln!(
            body,
            "<li>Valid until {}; each renewal moves that day</li>",
            text.get(..10).unwrap_or(&text)
        );
    }
    body.push_str("</ul>");
    Page::new("Your licence key", body)
}

fn limit_words(what: &str, limit: Limit) -> String {
    format!("{} {what} a {}", grouped(limit.count), limit.per.name())
}

/// `1,000,000`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub fn unpaid() -> Page {
    let body = "<p>Your payment is on its way. Some methods take minutes, some take days.</p>\n\
                <p>This page looks again by itself every few seconds; you may also come back to it later from your \
                receipt.</p>";
    Page { reload: Some(5), ..Page::new("Your payment is on its way", body) }
}

pub fn gone() -> Page {
    let body = "<p>This page shows a key for one day, and that day is over. Your licence goes on.</p>\n\
                <p>If you did not keep the key, ask the seller for another one.</p>";
    Page::new("Your key was shown already", body)
}

pub fn refunded(buy_url: Option<&str>) -> Page {
    let body = "<p>The money of this purchase was given back, or is being disputed, so there is no key for it.</p>";
    Page::new("This purchase was refunded", format!("{body}{}", again(buy_url)))
}

pub fn ended(code: Code, buy_url: Option<&str>) -> Page {
    let why = match code {
        Code::LicenseExpired => "<p>The time that was paid is over.</p>",
        _ => "<p>The seller has stopped this licence.</p>",
    };
    Page::new("This licence has ended", format!("{why}{}", again(buy_url)))
}

fn again(buy_url: Option<&str>) -> String {
    let link =
        buy_url.map(|url| format!("\n<p><a href=\"{}\">Get a licence</a></p>", escaped(url)));
    link.unwrap_or_default()
}

pub fn unknown() -> Page {
    let body = "<p>Nothing was bought under this link here. Please open the link of your receipt again; if that does \
                not help, ask the seller.</p>";
    Page::new("No purchase is found", body)
}

pub fn broken_link() -> Page {
    let body =
        "<p>A part of the link is missing. Please open the one of your receipt again, whole.</p>";
    Page::new("This link is not whole", body)
}

pub fn no_visit() -> Page {
    let body = "<p>Please open the link of your receipt: it leads here with your purchase. The browser must allow \
                cookies of this page.</p>";
    Page::new("Open the link of your receipt", body)
}

pub fn too_many(seconds: u64) -> Page {
    let body =
        "<p>Many purchases are being looked up just now. This page tries again by itself.</p>";
    Page { reload: Some(seconds.clamp(1, 60)), ..Page::new("One moment, please", body) }
}

pub fn away() -> Page {
    let body = "<p>Your purchase can't be looked up just now. This page tries again by itself.</p>";
    Page { reload: Some(5), ..Page::new("One moment, please", body) }
}

fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_on_a_page_is_text() {
        assert_eq!(escaped("<a href='x'>&\""), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
        assert_eq!((grouped(999), grouped(1_000_000)), ("999".into(), "1,000,000".into()));
        let html = refunded(Some("https://example.com/?a=1&b=\"")).html();
        assert!(html.contains("a=1&amp;b=&quot;"), "{html}");
        assert!(!html.contains("<script"));
    }
}
