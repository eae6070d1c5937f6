//! Hanging up is never free: what is charged when the app leaves in the middle of an answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Config, Gate, Gateway, LICENSE, Mock, Raw, Reply, Step, Wire, ca, client, eventually, soon, sse,
};

pub const WORDS: [&str; 6] = ["first ", "second ", "third ", "fourth ", "fifth ", "sixth "];
/// The provider's own count, more than any estimate of these answers.
pub const COUNTED: u64 = 300;
/// The cap that the app asks for.
pub const CAP: u64 = 500;

pub fn plan(on_disconnect: &str) -> String {
    format!(
        "messages: 5000/month, tokens: 10000000/month, models: [\"*\"], \
         on_disconnect: {on_disconnect}"
    )
}

pub fn config(mock: &Mock, on_disconnect: &str) -> Config {
    Config::new(mock).plan("free", &plan(on_disconnect))
}

/// Whoever leaves and is not through yet would be in the way of the next question.
pub fn one_at_a_time(mock: &Mock, on_disconnect: &str) -> Config {
    Config::new(mock).plan("free", &format!("{}, concurrency: 1", plan(on_disconnect)))
}

pub fn counted(answer: &str) -> String {
    answer.replace(
        "\"prompt_tokens\":11,\"completion_tokens\":7,\"total_tokens\":18",
        "\"prompt_tokens\":40,\"completion_tokens\":260,\"total_tokens\":300",
    )
}

pub fn question(stream: bool) -> Value {
    client::chat(&json!({ "stream": stream, "max_tokens": CAP }))
}

/// What the provider still sends after so many words.
pub fn rest(mut reply: Reply, words: usize) -> Reply {
    for word in &WORDS[words..] {
        reply = reply.write(sse::text(word));
    }
    reply.write(sse::FINISH).write(counted(sse::USAGE)).write(sse::DONE)
}

pub fn words(count: usize) -> Reply {
    let mut reply = Reply::sse(&[sse::ROLE]);
    for word in &WORDS[..count] {
        reply = reply.write(sse::text(word));
    }
    reply
}

/// A stream that waits at a gate after so many words.
pub fn stream(count: usize, gate: &Gate) -> Reply {
    rest(words(count).then(Step::Gate(gate.clone())), count)
}

/// A JSON answer that waits after so many sixths of its bytes: before its head, or at the latest
/// before its last byte.
pub fn whole(sixths: usize, gate: &Gate) -> Reply {
    let answer = counted(sse::CHAT);
    let (begun, rest) = answer.split_at((answer.len() - 1) * sixths / WORDS.len());
    let gate = Step::Gate(gate.clone());
    match sixths {
        0 => Reply::json(200, answer).before_head(gate),
        _ => Reply::json(200, begun.to_owned()).chunked().then(gate).write(rest.to_owned()),
    }
}

pub async fn ask(gateway: &Gateway, stream: bool) -> Raw {
    let mut app = gateway.raw().await;
    app.send(client::post("/v1/chat/completions", &question(stream))).await;
    app
}

pub async fn over(gateway: &Gateway) {
    eventually("nothing is in flight", Duration::from_secs(5), || async {
        gateway.status().await["in_flight"] == 0
    })
    .await;
    // A store beside the gateway is told a moment later.
    eventually("nothing is open", Duration::from_secs(1), || async {
        gateway.metrics().await.sum("gatekeeper_reservations_open", &[]) == 0.0
    })
    .await;
}

/// The newest line of the access log that tells of an app that left.
pub async fn logged(gateway: &Gateway, count: usize) -> Value {
    let lines = || -> Vec<Value> {
        let logs = gateway.logs();
        let lines = logs.lines().filter(|line| line.contains("\"status\":499"));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    eventually("the access log tells of it", Duration::from_secs(3), || async {
        lines().len() == count
    })
    .await;
    lines().pop().unwrap()
}

/// Leaves after 0, 1, half and all of the words, and once after the end; what each was charged.
/// With several gateways the app leaves one after the other, and it is the next that tells.
pub async fn charges(gateways: &[Gateway], mock: &Mock, streams: bool, drains: bool) -> Vec<u64> {
    let mut charges = Vec::new();
    let mut turns = gateways.iter().zip(gateways.iter().cycle().skip(1)).cycle();
    for count in [0, 1, 3, 6] {
        let (gateway, teller) = turns.next().unwrap();
        let what = format!("stream {streams}, drain {drains}, left after {count}");
        let gate = Gate::new();
        mock.answer([if streams { stream(count, &gate) } else { whole(count, &gate) }]);
        let (before, seen) = (used(teller).await, mock.count());
        let mut app = ask(gateway, streams).await;
        mock.saw(seen + 1).await;
        if streams && count > 0 {
            app.until(WORDS[count - 1]).await;
        }
        let left = Instant::now();
        app.leave().await;
        assert!(left.elapsed() < Duration::from_secs(2), "{what}: {:?}", left.elapsed());
        if drains {
            let open = gateway.metrics().await.sum("gatekeeper_reservations_open", &[]);
            assert_eq!(open, 1.0, "{what}");
            gate.open();
            eventually("the provider is heard out", Duration::from_secs(5), || async {
                mock.seen()[seen].answered
            })
            .await;
        } else {
            let cancelled = mock.left(seen).await - left;
            assert!(cancelled < Duration::from_secs(1), "{what}: cancelled after {cancelled:?}");
        }
        over(gateway).await;
        let now = used(teller).await;
        assert_eq!(now.0 - before.0, 1, "{what}: messages");
        charges.push(now.1 - before.1);
    }
    mock.answer([if streams { rest(words(0), 0) } else { whole(6, &open_gate()) }]);
    let (gateway, teller) = turns.next().unwrap();
    let before = used(teller).await;
    let mut app = ask(gateway, streams).await;
    app.until(if streams { "[DONE]" } else { "\"total_tokens\"" }).await;
    app.leave().await;
    over(gateway).await;
    charges.push(used(teller).await.1 - before.1);
    charges
}

fn open_gate() -> Gate {
    let gate = Gate::new();
    gate.open();
    gate
}

/// Messages and tokens.
pub async fn used(gateway: &Gateway) -> (u64, u64) {
    (gateway.messages(LICENSE).await, gateway.tokens(LICENSE).await)
}

#[tokio::test]
async fn cut_leaves_the_provider_at_once_and_charges_what_came() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(one_at_a_time(&mock, "cut")).await;
    cut_charges_what_came(std::slice::from_ref(&gateway), &mock).await;
    assert_eq!(logged(&gateway, 8).await["source"], "estimated");
}

pub async fn cut_charges_what_came(gateways: &[Gateway], mock: &Mock) {
    for streams in [true, false] {
        let charges = charges(gateways, mock, streams, false).await;
        // What a target hides is learned by each gateway for itself.
        assert!(charges.is_sorted() || gateways.len() > 1, "{charges:?}");
        assert!(charges[0] > 5, "the input at least: {charges:?}");
        assert!(charges[3] <= charges[0] + CAP, "the reservation at most: {charges:?}");
        assert_eq!(charges.last(), Some(&COUNTED), "a whole answer costs what it costs");
        if streams {
            assert!(charges[..4].windows(2).all(|pair| pair[0] < pair[1]), "{charges:?}");
        }
    }
}

#[tokio::test]
async fn drain_hears_the_provider_out_and_charges_its_count() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(one_at_a_time(&mock, "drain")).await;
    for streams in [true, false] {
        assert_eq!(
            charges(std::slice::from_ref(&gateway), &mock, streams, true).await,
            [COUNTED; 5]
        );
    }
    let line = logged(&gateway, 8).await;
    assert_eq!((&line["source"], &line["charged"]), (&json!("reported"), &json!(COUNTED)));
    assert!(mock.seen().iter().all(|seen| seen.connection == 0), "a connection was given up");
    let metrics = gateway.metrics().await;
    let tokens = |source| metrics.sum("gatekeeper_tokens_total", &[("source", source)]);
    assert_eq!((tokens("reported"), tokens("estimated")), (COUNTED as f64 * 10.0, 0.0));
    assert_eq!(metrics.sum("gatekeeper_requests_total", &[("status", "499")]), 8.0);
}

over_every_wire! { an_app_that_leaves_a_drained_answer_pays_for_all_of_it }

async fn an_app_that_leaves_a_drained_answer_pays_for_all_of_it(wire: Wire) {
    // Once while nothing comes, once while words keep coming: then a write tells of it.
    let silent = rest(words(1).then(Step::Wait(Duration::from_millis(700))), 1);
    let mut talking = words(1);
    for word in ["and so on "; 40] {
        talking = talking.then(Step::Wait(Duration::from_millis(20))).write(sse::text(word));
    }
    let mock = Mock::h2([silent, rest(talking, 1), rest(words(6), 6)]).await;
    let dir = Arc::new(TempDir::new().unwrap());
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, ca::root()).unwrap();
    let config = config(&mock, "drain").env("SSL_CERT_FILE", roots.to_str().unwrap());
    let gateway = Gateway::start_in(dir, config.over(wire)).await;
    for round in 1..=2 {
        let mut open = gateway.app().open(&question(true)).await;
        soon("the first word", open.chunk()).await.unwrap().expect("an event");
        drop(open);
        eventually("it is counted", Duration::from_secs(5), || async {
            gateway.tokens(LICENSE).await == COUNTED * round
        })
        .await;
        over(&gateway).await;
    }
    gateway.app().ask(&question(true)).await.ok();
    assert_eq!(logged(&gateway, 2).await["source"], "reported");
    assert!(mock.seen().iter().all(|seen| seen.connection == 0 && seen.left.is_none()));
    assert_eq!(gateway.messages(LICENSE).await, 3);
}
