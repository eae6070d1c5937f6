//! Mistakes in the source of our own licences.

use super::{edited, problems};

const LIST: &str = "- static: { keys: [{ key: JSTAR-DEMO-0001, plan: free }] }";

/// The problems of a source `issued` with these members, beside that there is no vault.
fn problems_of(members: &str) -> Vec<String> {
    let text = edited(LIST, &format!("{LIST}\n    - issued: {{ {members} }}"));
    let mut found = problems(&text);
    found.retain(|problem| !problem.contains("need a vault"));
    found
}

fn has(problems: &[String], words: &str) {
    assert!(problems.iter().any(|problem| problem.contains(words)), "{words}: {problems:#?}");
}

#[test]
fn there_is_one_source_of_our_own_and_it_needs_a_vault() {
    let text = edited(LIST, &format!("{LIST}\n    - issued: {{ prefix: JSTAR }}"));
    has(&problems(&text), "licenses.sources[1].issued.prefix: licences of your own need a vault");
    let twice =
        format!("{LIST}\n    - issued: {{ prefix: JSTAR }}\n    - issued: {{ prefix: OTHER }}");
    let found = problems(&edited(LIST, &twice));
    has(
        &found,
        "licenses.sources[2].issued: a second source `issued`: one has all licences of yours",
    );
}

#[test]
fn a_link_into_the_app_is_of_the_apps_own_scheme() {
    let with = |link: &str| {
        let keys = "api_key: env:CARGO_PKG_NAME, webhook_secret: env:PATH";
        problems_of(&format!(
            "prefix: JSTAR, stripe: {{ {keys}, prices: {{ price_1: free }}, deep_link: \"{link}\" }}"
        ))
    };
    assert_eq!(with("jstar://license"), Vec::<String>::new());
    for scheme in ["http", "https", "javascript", "data", "file", "HTTPS", "JavaScript"] {
        has(&with(&format!("{scheme}://license")), "issued.stripe.deep_link");
    }
    for wrong in ["jstar", "jstar:license", "//license", "jstar://a#b", " javascript://x"] {
        has(&with(wrong), "issued.stripe.deep_link");
    }
}

#[test]
fn what_is_named_must_be_there() {
    has(&problems_of("prefix: J"), "issued.prefix: expected 2 to 16 letters and digits");
    let stripe = "stripe: { api_key: env:CARGO_PKG_NAME, webhook_secret: env:PATH, prices: { price_1: gold } }";
    has(&problems_of(&format!("prefix: JSTAR, {stripe}")), "prices.price_1: unknown plan `gold`");
    let api = "lemonsqueezy_api: { store_id: 1, variants: { gold: 2 } }";
    has(&problems_of(&format!("prefix: JSTAR, {api}")), "unknown plan `gold`");
    has(&problems_of("prefix: JSTAR, adopt: [paypal]"), "issued.adopt");
}
