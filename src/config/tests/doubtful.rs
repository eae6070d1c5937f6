//! Files that are valid and probably not meant, and values whose mistake has words of its own.

use super::{edited, problems, settings, with};

fn warnings(text: &str) -> Vec<String> {
    settings(text).1
}

#[test]
fn what_leads_nowhere_is_a_warning() {
    for (text, expected) in [
        (
            with("prices: { groq/llama-3.1-8b-instnt: { input: 1, output: 2 } }"),
            "13:11: prices.groq/llama-3.1-8b-instnt: no model has this target, so this price is of nothing; did you mean `groq/llama-3.1-8b-instant`?",
        ),
        (
            edited("plans:\n", "plans:\n  pro: { tokens: 5/day, models: [fast] }\n"),
            "5:3: plans.pro: no source of licences gives this plan",
        ),
        (
            edited("providers:\n", "providers:\n  spare: { base_url: stand-in }\n"),
            "7:3: providers.spare: no model has a target at this provider: it is never asked",
        ),
        (
            edited("50/month", "0/month"),
            "5:21: plans.free.messages: a limit of zero: licences of this plan are never served",
        ),
        (
            edited("/openai/v1", "/openai/v1/chat/completions"),
            "8:15: providers.groq.base_url: ends with an endpoint, and the endpoint's path is appended to it (/chat/completions/chat/completions); write `https://api.groq.com/openai/v1`",
        ),
    ] {
        assert_eq!(warnings(&text), [expected], "{text}");
    }
}

#[test]
fn mistakes_with_words_of_their_own() {
    for (text, expected) in [
        (
            edited("models: [fast]", "models: [fast], price: 9.99"),
            "5:72: plans.free.price: expected a price like `$9/month`, found the number `9.99`".to_owned(),
        ),
        (
            edited("models: [fast]", "models: [fast], rate: 20"),
            "5:71: plans.free.rate: expected a limit like `20/minute`, found the number `20`".to_owned(),
        ),
        (
            edited("models: [fast]", "models: fast"),
            "5:57: plans.free.models: expected a list, found text `fast`; write `models: [fast]`".to_owned(),
        ),
        (
            edited("    keys:\n      - { id: groq-1, secret: env:CARGO_PKG_NAME }\n", "    api_key: env:CARGO_PKG_NAME\n"),
            "9:5: providers.groq.api_key: unknown field; keys stand in a list: `keys: [{ id: groq-1, secret: env:... }]`".to_owned(),
        ),
        (
            with("prices: { groq/llama-3.1-8b-instant: { input: 0,05, output: 1 } }"),
            "13:47: prices.groq/llama-3.1-8b-instant.input: `0,05`: write `0.05`".to_owned(),
        ),
        (
            with("prices:\n  groq/llama-3.1-8b-instant:\n    input: 0,05\n    output: 1"),
            "15:12: prices.groq/llama-3.1-8b-instant.input: expected a number, found text `0,05`; write `0.05`".to_owned(),
        ),
        (
            edited(
                "static: { keys: [{ key: JSTAR-DEMO-0001, plan: free }] }",
                "lemonsqueezy: { store_id: 1, products: { 588102: free } }",
            ),
            "3:56: licenses.sources[0].lemonsqueezy.products.588102: expected a mapping, found text `free`; write `588102: { VARIANT: free }`".to_owned(),
        ),
        (
            edited("env:CARGO_PKG_NAME }", "\"${GROQ_API_KEY}\" }"),
            "10:31: providers.groq.keys[0].secret: variables are written `env:GROQ_API_KEY`".to_owned(),
        ),
        (
            edited("messages: 50/month", "messages:50/month"),
            "5:11: plans.free.messages:50/month: a space is missing after `messages:`".to_owned(),
        ),
        (
            with("server: { listen: \"127.0.0.1:0\" }"),
            "13:19: server.listen: port 0 is not allowed: choose a fixed port".to_owned(),
        ),
        (String::new(), "1:1: the file is empty; start from conf/examples/groq.yaml".to_owned()),
        ("# nothing\n\n".to_owned(), "1:1: the file is empty; start from conf/examples/groq.yaml".to_owned()),
    ] {
        let found = problems(&text);
        assert!(found.contains(&expected), "wanted {expected}\nfound {found:#?}");
    }
    let found = problems(&edited("tokens: 1000/day", "tokens: 2M/month"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("`2M/month`: expected a limit like"), "{found:?}");
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    for text in [
        edited("50/month", "gsk_0123456789abcdef"),
        edited("secret: env:CARGO_PKG_NAME", "secret: gsk_0123456789abcdef"),
        edited("JSTAR-DEMO-0001", "SECRET"),
    ] {
        let found = problems(&text).join("\n");
        assert!(!found.contains("gsk_0123") && !found.contains("SECRET"), "{found}");
    }
}
