//! What a provider works on is in the books, whoever got it, and a buyer can't burn the budget for nothing.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::{
    downstream::disconnect::{over, used},
    support::{
        Config, Gate, Gateway, LICENSE, Mock, Reply, Step, client, eventually, gateway, run, sse,
    },
};

const OTHER: &str = "JSTAR-OTHER-0001";
const PLAN: &str = "messages: 5000/month, tokens: 10000000/month, models: [\"*\"]";
/// A dollar for each thousand tokens.
const DEAR: &str = "prices: { p/m1: { input: 1000, output: 1000 } }";

fn config(mock: &Mock) -> Config {
    Config::new(mock).plan("free", PLAN).license(OTHER, "free").keys("p", &["sk-one"]).more(DEAR)
}

/// A stream whose words come `pace` milliseconds apart, with so many tokens that nobody sees.
fn thinking(words: usize, pace: u64, hidden: u64) -> Reply {
    let mut reply = Reply::sse(&[sse::ROLE]);
    for nth in 1..=words {
        let word = sse::text(&format!("word{nth} "));
        reply = reply.then(Step::Wait(Duration::from_millis(pace))).write(word);
    }
    let output = words as u64 + hidden;
    let usage = json!({
        "prompt_tokens": 11, "completion_tokens": output, "total_tokens": 11 + output,
        "completion_tokens_details": { "reasoning_tokens": hidden },
    });
    let chunk = json!({ "id": "c1", "choices": [], "usage": usage });
    reply.write(sse::FINISH).write(format!("data: {chunk}\n\n")).write(sse::DONE)
}

/// Whole answers, from which the gateway learns what this target hides.
async fn learn(gateway: &Gateway, mock: &Mock, reply: &Reply) {
    for _ in 0..4 {
        mock.answer([reply.clone()]);
        gateway.app().stream().await.ok();
    }
}

/// Leaves when so many words have come; the tokens that were charged.
async fn hang_up(gateway: &Gateway, words: usize) -> u64 {
    let before = used(gateway).await;
    let mut app = gateway.raw().await;
    let body = client::chat(&json!({ "stream": true }));
    app.send(client::post("/v1/chat/completions", &body)).await;
    app.until(&format!("word{words} ")).await;
    // While words keep coming, only a connection that is closed on both sides tells of it.
    drop(app);
    over(gateway).await;
    let now = used(gateway).await;
    assert_eq!(now.0, before.0 + 1);
    now.1 - before.1
}

/// The cells of a line of `usage --csv`, by the names of the head.
fn usage(gateway: &Gateway) -> BTreeMap<String, String> {
    let file = gateway.dir.path().join("gatekeeper.yaml");
    let args = ["usage", "-c", file.to_str().unwrap(), "--by", "day", "--csv"];
    let text = String::from_utf8(run(&args, gateway.dir.path()).stdout).unwrap();
    let mut lines = text.split_terminator("\r\n").map(|line| line.split(',').map(str::to_owned));
    let head: Vec<String> = lines.next().unwrap().collect();
    head.into_iter().zip(lines.last().unwrap()).collect()
}

/// Waits until so many requests are in the books; the sums.
async fn booked(gateway: &Gateway, requests: usize) -> BTreeMap<String, String> {
    eventually("the store has all requests", Duration::from_secs(10), || async {
        usage(gateway)["requests"] == requests.to_string()
    })
    .await;
    usage(gateway)
}

fn number(line: &BTreeMap<String, String>, name: &str) -> f64 {
    line[name].parse().unwrap()
}

#[tokio::test]
async fn hidden_output_of_an_answer_that_was_left_is_charged_by_time() {
    let reply = thinking(10, 40, 2_000);
    let mock = Mock::start(reply.clone()).await;
    let mut gateway = Gateway::start(config(&mock)).await;
    let first = hang_up(&gateway, 7).await;
    assert!(first < 60, "nothing is known of the target: {first}");
    learn(&gateway, &mock, &reply).await;
    let (half, most) = (hang_up(&gateway, 5).await, hang_up(&gateway, 8).await);
    assert!((600..=1_990).contains(&half), "half of 2,011: {half}");
    assert!((1_300..=2_100).contains(&most), "most of 2,021: {most}");
    // What was learned outlives the process.
    gateway.signal(rustix::process::Signal::TERM);
    gateway.exited(Duration::from_secs(5)).await;
    gateway.restart().await;
    let again = hang_up(&gateway, 8).await;
    assert!((1_300..=2_100).contains(&again), "after a restart: {again}");
}

#[tokio::test]
async fn where_nothing_is_hidden_hanging_up_costs_what_came() {
    let reply = thinking(10, 20, 0);
    let mock = Mock::start(reply.clone()).await;
    let gateway = Gateway::start(config(&mock)).await;
    learn(&gateway, &mock, &reply).await;
    let gate = Gate::new();
    mock.answer([Reply::sse(&[sse::ROLE])
        .write(sse::text("word "))
        .write(sse::text("word "))
        .then(Step::Gate(gate))]);
    let before = used(&gateway).await.1;
    let mut app = gateway.raw().await;
    let body = client::chat(&json!({ "stream": true }));
    app.send(client::post("/v1/chat/completions", &body)).await;
    app.until("word ").await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    app.leave().await;
    over(&gateway).await;
    let charged = used(&gateway).await.1 - before;
    assert!((5..=20).contains(&charged), "its input and two words: {charged}");
}

/// Anthropic says at the start what the input was: that holds, however little was reserved.
#[tokio::test]
async fn a_reported_input_is_charged_though_the_answer_is_left() {
    let start = json!({ "type": "message_start", "message": { "id": "m", "type": "message",
        "role": "assistant", "content": [], "model": "m1", "stop_reason": null,
        "usage": { "input_tokens": 4_016, "output_tokens": 1 } } });
    let block = json!({ "type": "content_block_start", "index": 0,
        "content_block": { "type": "text", "text": "" } });
    let delta = json!({ "type": "content_block_delta", "index": 0,
        "delta": { "type": "text_delta", "text": "word1 " } });
    let events =
        [("message_start", start), ("content_block_start", block), ("content_block_delta", delta)]
            .map(|(name, data)| format!("event: {name}\ndata: {data}\n\n"));
    let mock = Mock::start(Reply::sse(&events).then(Step::Hang)).await;
    let url = mock.url();
    let config = config(&mock).provider_at("p", &url, ", dialect: anthropic", &["sk-one"]);
    let gateway = Gateway::start(config).await;
    let charged = hang_up(&gateway, 1).await;
    assert!((4_016..4_030).contains(&charged), "{charged}");
}

#[tokio::test]
async fn an_answer_nobody_got_is_in_cost_budget_and_books() {
    let broken =
        || Reply::sse(&[sse::ROLE.to_owned(), sse::text("word word word")]).then(Step::Close);
    let huge = || Reply::json(200, format!("{{\"x\":\"{}\"}}", "x".repeat(9 << 20)));
    let reported = sse::USAGE.replace("11", "4000").replace("18", "4007");
    let counted = || {
        Reply::sse(&[sse::ROLE.to_owned(), sse::text("word"), reported.clone()]).then(Step::Close)
    };
    for (what, reply, stream, least, most) in [
        ("held back and broken", broken(), true, 0.005, 0.05),
        ("held back, counted and broken", counted(), true, 4.0, 4.1),
        ("over 8 MiB", huge(), false, 0.005, 0.05),
        ("an error as the first event", Reply::sse(&[sse::ERROR]), true, 0.005, 0.05),
        ("closed before any word", Reply::sse(&[sse::ROLE]).then(Step::Close), true, 0.005, 0.05),
    ] {
        let mock = Mock::start(reply).await;
        let held = "{ targets: [p/m1], delivery: whole }";
        let gateway = Gateway::start(config(&mock).model("fast", held)).await;
        let answer = gateway.app().ask(&client::chat(&json!({ "stream": stream }))).await;
        assert_eq!(answer.status, 502, "{what}");
        let attempts = mock.count() as f64;
        let spent = gateway.status().await["spent_today"].as_f64().unwrap();
        let each = spent / attempts;
        assert!((least..most).contains(&each), "{what}: {spent} for {attempts}");
        let line = booked(&gateway, 1).await;
        assert!((number(&line, "cost") - spent).abs() < 1e-9, "{what}: {line:?}");
        assert!((number(&line, "wasted") - spent * 1e3).abs() < 0.5, "{what}: {line:?}");
        assert_eq!((&*line["output"], &*line["messages"]), ("0", "0"), "{what}");
    }
}

#[tokio::test]
async fn an_attempt_that_failed_is_paid_by_the_operator_and_the_one_that_served_by_the_buyer() {
    let broken = Reply::sse(&[sse::ROLE]).then(Step::Close);
    let mock = Mock::sequence([broken, Reply::stream()]).await;
    let gateway = Gateway::start(config(&mock).keys("p", &["sk-one", "sk-two"])).await;
    gateway.app().stream().await.ok();
    assert_eq!(used(&gateway).await, (1, sse::TOKENS));
    let line = booked(&gateway, 1).await;
    assert_eq!((&*line["input"], &*line["output"]), ("11", "7"));
    let wasted = number(&line, "wasted");
    assert!((5.0..30.0).contains(&wasted), "{line:?}");
    let cost = (18.0 + wasted) / 1e3;
    assert!((number(&line, "cost") - cost).abs() < 1e-9, "{line:?}");
    let spent = gateway.status().await["spent_today"].as_f64().unwrap();
    assert!((spent - cost).abs() < 1e-9, "{spent} {cost}");
}

fn slow() -> Reply {
    Reply::instead([Step::Hang])
}

/// The first comes back, the second costs the message and its input, the third its output, too.
#[tokio::test]
async fn one_timeout_an_hour_comes_back() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(config(&mock).timeouts("p", "first_byte: 300ms")).await;
    // What an answer in one piece holds, and that the target works.
    for _ in 0..4 {
        let long = sse::CHAT.replace(":7,", ":500,").replace(":18}", ":511}");
        mock.answer([Reply::json(200, long).before_head(Step::Wait(Duration::from_millis(100)))]);
        gateway.app().chat().await.ok();
    }
    let mut before = used(&gateway).await;
    let mut charges = Vec::new();
    for _ in 0..3 {
        mock.answer([slow()]);
        gateway.app().chat().await.is(504, "upstream_timeout");
        let now = used(&gateway).await;
        charges.push((now.0 - before.0, now.1 - before.1));
        before = now;
    }
    assert_eq!(charges[0], (0, 0));
    assert!(charges[1].0 == 1 && (5..30).contains(&charges[1].1), "{charges:?}");
    assert!(charges[2].0 == 1 && (400..=600).contains(&charges[2].1), "{charges:?}");
    // Others pay for none of it, and each is in the books.
    mock.answer([slow()]);
    gateway.app().chat_as(OTHER).await.is(504, "upstream_timeout");
    assert_eq!(gateway.messages(OTHER).await, 0);
    let line = booked(&gateway, 8).await;
    assert_eq!(line["messages"], "6");
    let wasted = number(&line, "wasted");
    assert!((1_600.0..=2_500.0).contains(&wasted), "{line:?}");
}

/// A licence that provokes timeouts wastes a tenth of the day's budget at most; others are served.
#[tokio::test]
async fn one_licence_wastes_a_tenth_of_the_budget_and_nobody_else_is_refused() {
    let mock = Mock::start(Reply::chat()).await;
    let config = config(&mock).timeouts("p", "first_byte: 400ms").more("budget: { day: $20 }");
    let mut gateway = Gateway::start(config).await;
    let long = sse::CHAT.replace(":7,", ":500,").replace(":18}", ":511}");
    let long =
        || Reply::json(200, long.clone()).before_head(Step::Wait(Duration::from_millis(150)));
    // So many that no circuit opens by what follows.
    for _ in 0..8 {
        mock.answer([long()]);
        gateway.app().chat_as(OTHER).await.ok();
    }
    let mut refused = 0;
    for _ in 0..30 {
        mock.answer([slow(), Reply::chat()]);
        let answer = gateway.app().chat().await;
        match answer.status {
            504 => assert_eq!(refused, 0, "refused from then on"),
            _ => {
                answer.is(429, "rate_limited");
                assert!((1..=60).contains(&answer.number("retry-after")));
                mock.answer([Reply::chat()]);
                refused += 1;
            }
        }
        gateway.app().chat_as(OTHER).await.ok();
    }
    assert!((15..=28).contains(&refused), "{refused}");
    let status = gateway.status().await;
    let spent = status["spent_today"].as_f64().unwrap();
    assert!(spent < 8.0, "two dollars wasted, five used by others: {spent}");
    // It is remembered over a death.
    booked(&gateway, 68).await;
    gateway.kill();
    gateway.restart().await;
    mock.answer([Reply::chat()]);
    gateway.app().chat().await.is(429, "rate_limited");
    gateway.app().chat_as(OTHER).await.ok();
}

/// Nobody is answered: what was asked costs its input, be it as much as it may.
#[tokio::test]
async fn a_provider_that_hangs_does_not_spend_the_budget() {
    let mock = Mock::start(slow()).await;
    let config = config(&mock).timeouts("p", "first_byte: 60ms").more("budget: { day: $20 }");
    let gateway = Gateway::start(config).await;
    for nth in 0..40 {
        let key = if nth % 2 == 0 { LICENSE } else { OTHER };
        let answer = gateway.app().chat_as(key).await;
        assert!([502, 503, 504].contains(&answer.status), "{}", answer.text());
    }
    let spent = gateway.status().await["spent_today"].as_f64().unwrap();
    let most = mock.count() as f64 * 0.02;
    assert!(spent > 0.0 && spent <= most, "{spent} for {}", mock.count());
}

/// A target that answers somebody within a minute was there: what timed out before is in the books then.
#[tokio::test]
async fn what_a_target_proves_to_have_worked_on_is_booked_late() {
    let mock = Mock::start(Reply::chat()).await;
    let start = || config(&mock).timeouts("p", "first_byte: 300ms");
    let long = sse::CHAT.replace(":7,", ":500,").replace(":18}", ":511}");
    let long = Reply::json(200, long).before_head(Step::Wait(Duration::from_millis(100)));
    let mut gateway = Gateway::start(start()).await;
    mock.answer([long.clone()]);
    gateway.app().chat().await.ok();
    gateway.signal(rustix::process::Signal::TERM);
    gateway.exited(Duration::from_secs(5)).await;
    // The pace is known, but not whether anybody is there.
    gateway.restart().await;
    mock.answer([slow()]);
    gateway.app().chat().await.is(504, "upstream_timeout");
    let few = number(&booked(&gateway, 2).await, "wasted");
    assert!((5.0..30.0).contains(&few), "its input alone: {few}");
    mock.answer([Reply::chat()]);
    gateway.app().chat().await.ok();
    eventually("it is booked", Duration::from_secs(5), || async {
        number(&usage(&gateway), "wasted") > 400.0
    })
    .await;
    let line = usage(&gateway);
    assert_eq!((&*line["requests"], &*line["messages"]), ("3", "2"));
    let spent = gateway.status().await["spent_today"].as_f64().unwrap();
    assert!((spent - number(&line, "cost")).abs() < 1e-9, "{spent} {line:?}");
}

/// Requests that share a message id are one message in `usage`, too, and those that were given back none.
#[tokio::test]
async fn usage_counts_messages_as_plans_are_charged() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(config(&mock)).await;
    let body = client::chat(&json!({})).to_string();
    for nth in 0..12 {
        let id = format!("m{}", nth / 6);
        let request = gateway.app().post("/chat", body.clone()).header("x-message-id", id);
        crate::support::Answer::of(request).await.ok();
    }
    mock.answer([Reply::error(400)]);
    for _ in 0..5 {
        assert_eq!(gateway.app().chat().await.status, 400);
    }
    let line = booked(&gateway, 17).await;
    assert_eq!(line["messages"], gateway.messages(LICENSE).await.to_string());
    assert_eq!(line["messages"], "2");
}

/// Counts where nobody expects them: a placeholder before the text, noughts, a total alone, in the choice.
#[tokio::test]
async fn counts_in_odd_places_are_read_for_what_they_are() {
    let words = "one two three four five six seven eight nine ten ".repeat(10);
    let usage = |usage: Value| {
        let chunk = json!({ "id": "c1", "choices": [], "usage": usage });
        format!("data: {chunk}\n\n")
    };
    let in_choice = |usage: Value| {
        let choice = json!({ "index": 0, "delta": {}, "finish_reason": "stop", "usage": usage });
        format!("data: {}\n\n", json!({ "id": "c1", "choices": [choice] }))
    };
    let counts = |input: u64, output: u64| json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output });
    let (role, text) = (sse::ROLE.to_owned(), sse::text(&words));
    let (finish, done) = (sse::FINISH.to_owned(), sse::DONE.to_owned());
    let stream =
        |events: &[&String]| events.iter().map(|event| (*event).clone()).collect::<Vec<_>>();
    let (placeholder, noughts) = (usage(counts(16, 0)), usage(counts(0, 0)));
    let (total, choice) = (usage(json!({ "total_tokens": 500 })), in_choice(counts(16, 100)));
    for (what, events, least, most) in [
        ("first", stream(&[&placeholder, &role, &text, &finish, &done]), 105, 180),
        ("noughts", stream(&[&noughts, &role, &text, &finish, &done]), 95, 180),
        ("noughts last", stream(&[&role, &text, &finish, &noughts, &done]), 95, 180),
        ("total", stream(&[&role, &text, &finish, &total, &done]), 500, 500),
        ("in the choice", stream(&[&role, &text, &choice, &done]), 116, 116),
    ] {
        let mock = Mock::start(Reply::sse(&events)).await;
        let gateway = Gateway::start(config(&mock)).await;
        gateway.app().stream().await.ok();
        let tokens = gateway.tokens(LICENSE).await;
        assert!((least..=most).contains(&tokens), "{what}: {tokens}");
    }
    let nought = sse::CHAT.replace(":7,", ":0,").replace(":18}", ":11}");
    let mock = Mock::start(Reply::json(200, nought)).await;
    let gateway = Gateway::start(config(&mock)).await;
    gateway.app().chat().await.ok();
    assert!((12..=14).contains(&gateway.tokens(LICENSE).await));
}

#[test]
fn the_share_that_one_licence_may_waste_is_a_share() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gatekeeper.yaml");
    let base = "licenses: { sources: [ { static: { keys: [ { key: JSTAR-DEMO-0001, plan: free } ] } } ] }\n\
        plans: { free: { tokens: 5/day, models: [\"*\"] } }\n\
        providers: { stand-in: { base_url: stand-in } }\n\
        models: { fast: [ stand-in/small ] }\nprices: { stand-in/small: { input: 1, output: 2 } }\n";
    for (share, fits) in
        [("10%", true), ("0.5%", true), ("0%", false), ("101%", false), ("10", false)]
    {
        let yaml = format!("{base}budget: {{ day: $20, waste_per_licence: {share} }}\n");
        std::fs::write(&file, yaml).unwrap();
        let output = gateway::run(&["check", "-c", file.to_str().unwrap()], dir.path());
        assert_eq!(output.status.success(), fits, "{share}: {output:?}");
    }
}
