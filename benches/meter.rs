//! What watching an answer costs: `cargo bench --bench meter`.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gatekeeper_filters::{
    kernel::{
        Vocabulary,
        json::{Document, Reader},
    },
    meter::{estimate, openai, sse::Splitter},
};

const SENTENCE: &str = "The parcel left our warehouse on Tuesday morning and is on its way. ";

/// A chat request of about `size` bytes, in messages of at most 600.
fn request(size: usize) -> Bytes {
    let mut text = String::from(r#"{"model":"fast","stream":true,"temperature":0.7,"messages":["#);
    while text.len() < size {
        let rest = size.saturating_sub(text.len()).min(600);
        let content = SENTENCE.repeat(rest.div_ceil(SENTENCE.len()));
        text.push_str(&format!(r#"{{"role":"user","content":"{content}"}},"#));
    }
    text.pop();
    text.push_str("]}");
    text.into()
}

fn chunk(content: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-CgTm9LxY2vQe7KpR4tNw1SbZ8dHaJ","object":"chat.completion.chunk","created":1795485600,"model":"gpt-5-mini-2025-08-07","service_tier":"default","choices":[{{"index":0,"delta":{{"content":"{content}"}},"logprobs":null,"finish_reason":null}}],"usage":null}}"#
    )
}

fn json(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("json");
    for (name, size) in [("1 KiB", 1 << 10), ("1 MiB", 1 << 20)] {
        let body = request(size);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("document {name}"), |bencher| {
            bencher.iter(|| Document::parse(black_box(body.clone())).map(|it| it.root().span()));
        });
        let mut reader = Reader::strict();
        group.bench_function(format!("reader {name}"), |bencher| {
            bencher.iter(|| reader.parse(black_box(&body)).map(|root| root.span()));
        });
    }
    let event = chunk(" parcel");
    let mut reader = Reader::lenient();
    group.throughput(Throughput::Bytes(event.len() as u64));
    group.bench_function("reader, one chunk", |bencher| {
        bencher.iter(|| reader.parse(black_box(event.as_bytes())).map(|root| root.span()));
    });
    group.finish();
}

fn stream(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stream");
    let event = chunk(" parcel");
    group.bench_function("chat_event", |bencher| {
        bencher.iter(|| openai::chat_event(black_box(event.as_bytes())));
    });
    let events: Vec<_> = (0..100).map(|_| Bytes::from(format!("data: {event}\n\n"))).collect();
    group.bench_function("split and read 100 events, one a read", |bencher| {
        bencher.iter(|| watch(events.iter().cloned()));
    });
    let joined = Bytes::from(events.concat());
    group.bench_function("split and read 100 events, all in one read", |bencher| {
        bencher.iter(|| watch([joined.clone()]));
    });
    let cut: Vec<_> = (0..joined.len())
        .step_by(1400)
        .map(|at| joined.slice(at..joined.len().min(at + 1400)))
        .collect();
    group.bench_function("split and read 100 events, 1400 bytes a read", |bencher| {
        bencher.iter(|| watch(cut.iter().cloned()));
    });
    group.finish();
}

fn watch(chunks: impl IntoIterator<Item = Bytes>) -> u64 {
    let mut splitter = Splitter::default();
    let mut millitokens = 0;
    for chunk in chunks {
        splitter.push(black_box(chunk));
        for event in splitter.by_ref().flatten() {
            if let Some(data) = event.data() {
                millitokens +=
                    openai::chat_event(data).output_millitokens.millitokens(Vocabulary::O200k);
            }
        }
    }
    millitokens
}

fn estimates(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("estimate");
    for (name, sentence) in
        [("English", SENTENCE), ("Chinese", "包裹于周二上午从仓库发出，目前仍在运输途中。")]
    {
        let text = sentence.repeat(64 * 1024 / sentence.len());
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| estimate::text(black_box(&text))));
    }
    group.finish();
}

criterion_group!(benches, json, stream, estimates);
criterion_main!(benches);
