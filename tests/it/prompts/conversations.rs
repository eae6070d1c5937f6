//! Limits of a conversation, from outside: on one machine and on Redis.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::support::{
    Answer, Config, Gate, Gateway, LICENSE, Mock, Redis, Reply, Step, client, eventually, soon,
};

/// As far from the end of a minute as a test needs.
async fn early_in_a_minute() {
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() % 60;
    while second() > 40 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn limited(mock: &Mock, limits: &str) -> Config {
    let plan = format!("models: [\"*\"], conversation: {{ {limits} }}");
    Config::new(mock).plan("free", &plan)
}

fn turns(said: &[&str]) -> Value {
    let list: Vec<Value> = said
        .iter()
        .enumerate()
        .map(|(nth, text)| {
            let role = if nth % 2 == said.len() % 2 { "assistant" } else { "user" };
            json!({ "role": role, "content": text })
        })
        .collect();
    client::chat(&json!({ "messages": list }))
}

async fn say(gateway: &Gateway, conversation: &str, body: &Value, message: Option<&str>) -> Answer {
    let mut request = gateway
        .app()
        .post("/v1/chat/completions", body.to_string())
        .header("x-conversation-id", conversation);
    if let Some(message) = message {
        request = request.header("x-message-id", message);
    }
    Answer::of(request).await
}

#[tokio::test]
async fn a_conversation_has_to_be_named_where_it_is_limited() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(limited(&mock, "messages: 9/day")).await;
    let refused = gateway.app().chat().await;
    assert_eq!(refused.is(400, "invalid_request").error("param"), "x-conversation-id");
    assert_eq!(mock.count(), 0);
    say(&gateway, "c-1", &turns(&["Hi"]), None).await.ok();
}

async fn a_minute_a_day_and_repeats(config: impl Fn(&Mock, &str) -> Config) {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = Gateway::start(config(&mock, "rate: 5/minute")).await;
    early_in_a_minute().await;
    for nth in 0..5 {
        say(&gateway, "c-1", &turns(&[&format!("{nth}")]), None).await.ok();
    }
    let refused = say(&gateway, "c-1", &turns(&["5"]), None).await;
    refused.is(429, "conversation_limited");
    assert!((1..=60).contains(&refused.number("retry-after")), "{:?}", refused.headers);
    say(&gateway, "c-2", &turns(&["5"]), None).await.ok();

    assert!(gateway.reload(config(&mock, "messages: 3/day")).await);
    for nth in 0..3 {
        say(&gateway, "d-1", &turns(&[&format!("{nth}")]), None).await.ok();
    }
    let refused = say(&gateway, "d-1", &turns(&["3"]), None).await;
    refused.is(403, "conversation_limited");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    assert_eq!(refused.header("retry-after"), None);
    assert!(refused.error("resets_at").as_str().unwrap().ends_with("T00:00:00Z"));
    assert!(refused.error("message").as_str().unwrap().contains("3 messages of this day"));
    say(&gateway, "d-2", &turns(&["3"]), None).await.ok();

    assert!(gateway.reload(config(&mock, "repeats: 3")).await);
    for _ in 0..3 {
        say(&gateway, "r-1", &turns(&["Hello", "Hi", "Who are you?"]), None).await.ok();
        // Another history, the same last turn: of another conversation.
        say(&gateway, "r-2", &turns(&["Who are you?"]), Some("m-1")).await.ok();
    }
    let refused = say(&gateway, "r-1", &turns(&["Who are you?"]), None).await;
    refused.is(403, "conversation_limited");
    assert!(refused.error("resets_at").is_string());
    say(&gateway, "r-1", &turns(&["Tell me."]), None).await.ok();
    // Requests of one message were one.
    for _ in 0..2 {
        say(&gateway, "r-2", &turns(&["Who are you?"]), None).await.ok();
    }
    say(&gateway, "r-2", &turns(&["Who are you?"]), None).await.is(403, "conversation_limited");
}

#[tokio::test]
async fn a_minute_a_day_and_repeats_of_one_machine() {
    a_minute_a_day_and_repeats(limited).await;
}

#[tokio::test]
async fn a_minute_a_day_and_repeats_on_redis() {
    let redis = Redis::start().await;
    let url = redis.url();
    a_minute_a_day_and_repeats(|mock, limits| limited(mock, limits).redis(&url)).await;
    // What it holds of a conversation and day is small, and no word of it.
    let keys: Vec<String> =
        redis.ask(&["KEYS", "*conversations:*"]).list().iter().map(|key| key.text()).collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    let each = redis.ask(&[
        "EVAL",
        "local n = 0 for _, s in ipairs(redis.call('HGETALL', KEYS[1])) do n = n + #s end \
        return tostring(n / redis.call('HLEN', KEYS[1]))",
        "1",
        &keys[0],
    ]);
    assert!(each.text().parse::<f64>().unwrap() <= 64.0, "{}", each.text());
    assert!(!redis.ask(&["TTL", &keys[0]]).text().starts_with('-'));
}

/// Each bot answers the other's last words; the app sends the last twenty turns.
async fn two_bots(config: Config, mock: &Mock, second: Option<Config>) {
    let gateway = Gateway::start(config).await;
    let other = match second {
        Some(config) => Some(Gateway::start(config).await),
        None => None,
    };
    early_in_a_minute().await;
    let mut said: Vec<String> = vec!["Hello!".into()];
    let mut served = 0;
    for nth in 0..60 {
        let window: Vec<&str> = said.iter().rev().take(20).rev().map(String::as_str).collect();
        let at = if nth % 2 == 0 { Some(&gateway) } else { other.as_ref() }.unwrap_or(&gateway);
        let answer = say(at, "bots", &turns(&window), None).await;
        if answer.status == 200 {
            served += 1;
            said.push("How can I help?".into());
        }
        said.push(format!("I am well, thank you {}", nth / 2));
        if nth % 10 == 0 {
            say(&gateway, &format!("other-{nth}"), &turns(&["Hello!"]), None).await.ok();
        }
    }
    assert_eq!(served, 10, "as many as a minute takes");
    // Chats that begin alike do not meet.
    let chats = (0..50).map(|nth| {
        let gateway = &gateway;
        async move { say(gateway, &format!("chat-{nth}"), &turns(&["Hello!"]), None).await.status }
    });
    let statuses = futures_util::future::join_all(chats).await;
    assert_eq!(statuses, vec![200; 50]);
    assert_eq!(mock.count(), 10 + 6 + 50);
}

const BOTS: &str = "rate: 10/minute, messages: 200/day, repeats: 3";

#[tokio::test]
async fn two_bots_that_answer_each_other_reach_the_limit_and_harm_no_other_chat() {
    let mock = Mock::start(Reply::chat()).await;
    let config = limited(&mock, BOTS);
    two_bots(config, &mock, None).await;
}

#[tokio::test]
async fn two_bots_at_two_gateways_on_redis() {
    let (redis, mock) = (Redis::start().await, Mock::start(Reply::chat()).await);
    let config = || limited(&mock, BOTS).redis(&redis.url());
    two_bots(config(), &mock, Some(config())).await;
}

#[tokio::test]
async fn many_at_once_are_counted_exactly() {
    let mock = Mock::start(Reply::chat()).await;
    let plan = "concurrency: unlimited, models: [\"*\"], conversation: { messages: 20/day }";
    let gateway = Gateway::start(Config::new(&mock).plan("free", plan)).await;
    let all = (0..60).map(|nth| {
        let gateway = &gateway;
        async move { say(gateway, "c", &turns(&[&format!("{nth}")]), None).await.status }
    });
    let statuses = futures_util::future::join_all(all).await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 20, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 403).count(), 40, "{statuses:?}");
}

#[tokio::test]
async fn the_count_of_a_day_outlives_a_kill_and_a_hand_over() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = Gateway::start(limited(&mock, "messages: 3/day, repeats: 2")).await;
    for nth in 0..2 {
        say(&gateway, "c", &turns(&[&format!("{nth}")]), None).await.ok();
    }
    gateway.restart().await;
    say(&gateway, "c", &turns(&["x"]), None).await.ok();
    say(&gateway, "c", &turns(&["y"]), None).await.is(403, "conversation_limited");
    for _ in 0..2 {
        say(&gateway, "d", &turns(&["again"]), None).await.ok();
    }
    let old = gateway.hand_over().await;
    say(&gateway, "d", &turns(&["again"]), None).await.is(403, "conversation_limited");
    say(&gateway, "c", &turns(&["z"]), None).await.is(403, "conversation_limited");
    drop(old);
}

#[tokio::test]
async fn a_prompt_is_the_same_turn_when_its_values_are() {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock)
        .plan("free", "prompts: [reply], conversation: { repeats: 2 }")
        .more("prompts: { reply: { model: fast, system: \"Hi {{shop}}\", input: { shop: {} } } }");
    let gateway = Gateway::start(config).await;
    let ask = async |shop: &str| {
        let body = json!({ "variables": { "shop": shop } }).to_string();
        let request = gateway.app().post("/v1/prompts/reply", body);
        Answer::of(request.header("x-conversation-id", "c")).await
    };
    ask("a").await.ok();
    ask("a").await.ok();
    ask("a").await.is(403, "conversation_limited");
    ask("b").await.ok();
}

/// What failed is not counted in the conversation, whatever limits it; what was served is, exactly.
async fn failures_are_given_back(config: impl Fn(&Mock, &str) -> Config) {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = Gateway::start(config(&mock, "messages: 3/day")).await;
    for (nth, limits) in ["messages: 3/day", "rate: 3/minute", "repeats: 3"].iter().enumerate() {
        assert!(gateway.reload(config(&mock, limits)).await);
        early_in_a_minute().await;
        let (talk, same) = (format!("c-{nth}"), turns(&["Hi"]));
        let mut served = 0;
        for step in 0..9 {
            let fails = step % 3 != 2;
            mock.answer([if fails { Reply::error(400) } else { Reply::chat() }]);
            // A message of its own, no id, and one that comes again after it failed.
            let id = format!("m-{nth}-{}", step / 2);
            let answer = say(&gateway, &talk, &same, (nth != 1).then_some(&id)).await;
            assert_eq!(answer.status, if fails { 400 } else { 200 }, "{limits}: {step}");
            served += u64::from(!fails);
            gave_back(&gateway, nth as u64 * 3 + served).await;
        }
        let code = if nth == 1 { 429 } else { 403 };
        say(&gateway, &talk, &same, None).await.is(code, "conversation_limited");
    }
}

/// Until what was given back is told: what is used, no more and no less.
async fn gave_back(gateway: &Gateway, messages: u64) {
    eventually("the message is given back", Duration::from_secs(5), || async {
        gateway.messages(LICENSE).await == messages
    })
    .await;
}

#[tokio::test]
async fn what_failed_is_given_back_to_its_conversation() {
    let plan = |mock: &Mock, limits: &str| limited_plan(mock, limits);
    failures_are_given_back(plan).await;
}

/// Gateways of an earlier version wrote other bytes, and may go on while this one is put in their place.
#[tokio::test]
async fn what_an_earlier_version_counted_on_redis_stands_in_no_way() {
    let (redis, mock) = (Redis::start().await, Mock::start(Reply::chat()).await);
    let config = limited(&mock, "messages: 9/day, repeats: 3").redis(&redis.url());
    // An outage allowance would hide a script that fails.
    let gateway = Gateway::start(config.store_with("on_store_down: closed")).await;
    say(&gateway, "c-1", &turns(&["Hi"]), None).await.ok();
    let keys = redis.ask(&["KEYS", "gk:*:[a-z]*:[0-9]*"]).list();
    let script = "local number = redis.call('HKEYS', KEYS[1])[1] redis.call('DEL', KEYS[1]) \
        local earlier = string.gsub(KEYS[1], ':%a+:(%d+)$', ':talks:%1') \
        return redis.call('HSET', earlier, number, string.rep('\\0', 16))";
    assert_eq!(keys.len(), 1, "one day of one licence");
    assert_eq!(redis.ask(&["EVAL", script, "1", &keys[0].text()]).text(), "1");
    say(&gateway, "c-1", &turns(&["Hi", "Hello", "Hi there"]), None).await.ok();
}

#[tokio::test]
async fn what_failed_is_given_back_to_its_conversation_on_redis() {
    let redis = Redis::start().await;
    let url = redis.url();
    failures_are_given_back(|mock, limits| limited_plan(mock, limits).redis(&url)).await;
}

fn limited_plan(mock: &Mock, limits: &str) -> Config {
    let plan = format!("models: [\"*\"], messages: 1000/month, conversation: {{ {limits} }}");
    Config::new(mock).plan("free", &plan)
}

/// Requests of one message at once, of which one is served: it counts once, and what the others give back
/// is not given back twice.
async fn one_of_a_message_is_served(config: Config, mock: &Mock) {
    let gateway = Gateway::start(config).await;
    for round in 0..2 {
        let gate = Gate::new();
        let failing = || Reply::error(400).before_head(Step::Gate(gate.clone()));
        mock.answer([failing(), failing(), Reply::chat().before_head(Step::Gate(gate.clone()))]);
        mock.forget();
        let id = format!("m-{round}");
        let all = (0..3).map(|_| say(&gateway, "c", &HI, Some(&id)));
        let opened = async {
            eventually("all are open", Duration::from_secs(10), || async { gate.waiting() == 3 })
                .await;
            gate.open();
        };
        let (answers, ()) = tokio::join!(futures_util::future::join_all(all), opened);
        let served = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(served, 1);
        gave_back(&gateway, round + 1).await;
    }
    mock.answer([Reply::chat()]);
    say(&gateway, "c", &HI, None).await.is(403, "conversation_limited");
}

static HI: LazyLock<Value> = LazyLock::new(|| turns(&["Hi"]));

#[tokio::test]
async fn one_message_asked_thrice_counts_once() {
    let mock = Mock::start(Reply::chat()).await;
    one_of_a_message_is_served(limited_plan(&mock, "messages: 2/day"), &mock).await;
}

#[tokio::test]
async fn one_message_asked_thrice_counts_once_on_redis() {
    let (redis, mock) = (Redis::start().await, Mock::start(Reply::chat()).await);
    let config = limited_plan(&mock, "messages: 2/day").redis(&redis.url());
    one_of_a_message_is_served(config, &mock).await;
}

#[tokio::test]
async fn what_was_given_back_stays_so_over_a_kill_and_a_hand_over() {
    let gate = Gate::new();
    let mock = Mock::start(Reply::error(400)).await;
    let mut gateway = Gateway::start(limited_plan(&mock, "messages: 2/day")).await;
    for nth in 0..4 {
        assert_eq!(say(&gateway, "c", &HI, None).await.status, 400, "{nth}");
    }
    gateway.restart().await;
    // Open in the old process, and given back when the new one counts.
    mock.answer([Reply::error(400).before_head(Step::Gate(gate.clone()))]);
    mock.forget();
    let late = {
        let request = gateway.app().post("/v1/chat/completions", HI.to_string());
        tokio::spawn(Answer::of(request.header("x-conversation-id", "c")))
    };
    mock.saw(1).await;
    let old = gateway.hand_over().await;
    gate.open();
    assert_eq!(soon("the late answer", late).await.unwrap().status, 400);
    gave_back(&gateway, 0).await;
    drop(old);
    mock.answer([Reply::chat()]);
    for _ in 0..2 {
        say(&gateway, "c", &HI, None).await.ok();
    }
    say(&gateway, "c", &HI, None).await.is(403, "conversation_limited");
}

/// However it is written, and whatever else the app sends.
#[tokio::test]
async fn the_same_words_are_the_same_turn() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(limited(&mock, "repeats: 2")).await;
    let written = [
        r#"{"model":"fast","messages":[{"role":"user","content":"Hi \u00e4"}]}"#,
        r#"{"model":"fast","messages":[{"content": "Hi ä", "role": "user"}]}"#,
        r#"{"model":"fast","messages":[{"role":"user","content":[{"type":"text","text":"Hi ä"}]}]}"#,
    ];
    let mut statuses = Vec::new();
    for body in written {
        let request = gateway.app().post("/v1/chat/completions", body);
        statuses.push(Answer::of(request.header("x-conversation-id", "c")).await.status);
    }
    assert_eq!(statuses, [200, 200, 403]);
}

#[tokio::test]
async fn an_answer_that_is_given_again_does_not_count() {
    let mock = Mock::start(Reply::chat()).await;
    let plan = "models: [\"*\"], idempotency: 10m, conversation: { messages: 2/day, repeats: 1 }";
    let gateway = Gateway::start(Config::new(&mock).plan("free", plan)).await;
    for _ in 0..4 {
        say(&gateway, "c", &HI, Some("m-1")).await.ok();
    }
    assert_eq!(mock.count(), 1);
    say(&gateway, "c", &HI, Some("m-2")).await.is(403, "conversation_limited");
    say(&gateway, "c", &turns(&["Hello"]), Some("m-3")).await.ok();
}

/// Canned answers that two bots alternate between.
async fn loops_end(config: Config, mock: &Mock) {
    let gateway = Gateway::start(config).await;
    for texts in [1, 5, 20] {
        mock.forget();
        let talk = format!("loop-{texts}");
        let mut served = 0;
        for nth in 0..6 * texts {
            let body = turns(&[&format!("Canned answer {}", nth % texts)]);
            served += usize::from(say(&gateway, &talk, &body, None).await.status == 200);
        }
        assert_eq!((served, mock.count()), (3 * texts, 3 * texts), "a loop of {texts}");
    }
}

#[tokio::test]
async fn a_loop_of_some_texts_ends() {
    let mock = Mock::start(Reply::chat()).await;
    loops_end(limited(&mock, "repeats: 3"), &mock).await;
}

#[tokio::test]
async fn a_loop_of_some_texts_ends_on_redis() {
    let (redis, mock) = (Redis::start().await, Mock::start(Reply::chat()).await);
    loops_end(limited(&mock, "repeats: 3").redis(&redis.url()), &mock).await;
}
