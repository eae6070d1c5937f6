//! What a smart model costs a request: `cargo bench --bench smart`. Each time is that of one prompt.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use gatekeeper_filters::{
    kernel::{ModelRequest, RequestMembers, json::Document},
    route::smart,
};
use serde_json::{Value, json};

const SENTENCE: &str = "The parcel left our warehouse on Tuesday morning and is on its way. ";
const CYRILLIC: &str = "Посылка вышла с нашего склада во вторник утром и уже в пути. ";
const CHINESE: &str = "包裹于周二上午从仓库发出，目前仍在运输途中。";

/// A request whose members lie as the proxy leaves them.
fn ask(messages: &Value) -> ModelRequest {
    let source = Bytes::from(json!({ "model": "auto", "messages": messages }).to_string());
    let mut members = RequestMembers::new(source.clone());
    if let Ok(document) = Document::parse(source) {
        for (name, value) in document.root().members() {
            members.push_source(name.raw_span(), value.span());
        }
    }
    ModelRequest::new("auto".into(), members)
}

fn user(content: &Value) -> Value {
    json!({ "role": "user", "content": content })
}

fn of_size(sentence: &str, size: usize) -> Value {
    json!([user(&json!(sentence.repeat(size.div_ceil(sentence.len()))))])
}

fn typical() -> Value {
    json!([
        { "role": "system", "content": "You answer the customers of a small shop. ".repeat(20) },
        user(&json!("Hello, I ordered a blue mug last week and it has not arrived yet.")),
        { "role": "assistant", "content": "I am sorry to hear that. May I have the order's number?" },
        user(&json!("It is 48213. Could you also tell me whether I can still change the address?")),
    ])
}

/// Many short turns, as a long conversation has them.
fn conversation(size: usize) -> Value {
    let turns = (0..size / 300).map(|_| user(&json!(SENTENCE.repeat(4))));
    json!(turns.collect::<Vec<_>>())
}

fn image(size: usize) -> Value {
    json!([user(&json!([
        { "type": "text", "text": "What is in this picture?" },
        { "type": "image_url", "image_url": { "url": "QmFzZTY0".repeat(size / 8) } },
    ]))])
}

fn scores(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("smart");
    let prompts = [
        ("short", json!([user(&json!("Hi, are you open tomorrow?"))])),
        ("typical, 4 turns", typical()),
        ("8 KiB, English", of_size(SENTENCE, 8 << 10)),
        ("8 KiB, Russian", of_size(CYRILLIC, 8 << 10)),
        ("8 KiB, Chinese", of_size(CHINESE, 8 << 10)),
        ("8 KiB, turns", conversation(8 << 10)),
        ("1 MiB, one turn", of_size(SENTENCE, 1 << 20)),
        ("1 MiB, turns", conversation(1 << 20)),
        ("1 MiB, an image", image(1 << 20)),
    ];
    for (name, messages) in prompts {
        let ask = ask(&messages);
        group.bench_function(name, |bencher| bencher.iter(|| smart::score(black_box(&ask))));
    }
    group.finish();
}

criterion_group!(benches, scores);
criterion_main!(benches);
