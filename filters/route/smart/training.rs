//! Makes `weights.bin`: `cargo test -p gatekeeper-filters smart::training -- --ignored --nocapture`.
//!
//! A logistic regression over the terms and signals that the scorer itself reads. The same prompts give
//! the same bytes on one kind of machine.

use super::{
    features::{Features, READ, SIGNALS},
    hashed_terms::BUCKETS,
    model_weights::{self, scale},
    tests::{Prompt, tuning},
};

/// What one prompt is to the regression.
struct Example {
    complex: bool,
    signals: [f32; SIGNALS],
    /// Buckets, each with how often it occurs, times the scale.
    terms: Vec<(usize, f32)>,
}

/// Penalties of the squares of weights, chosen by cross-validation.
const TERM_PENALTY: f32 = 0.1;
const SIGNAL_PENALTY: f32 = 0.5;
const STEPS: i32 = 250;

fn example(prompt: &Prompt) -> Example {
    let mut buckets = Vec::new();
    let signals = Features::read(&prompt.text, READ, |bucket| buckets.push(bucket)).features();
    let scale = scale(buckets.len() as u32);
    buckets.sort_unstable();
    let terms = buckets.chunk_by(|a, b| a == b).map(|same| (same[0], same.len() as f32 * scale));
    Example { complex: prompt.complex, signals, terms: terms.collect() }
}

/// Weights of terms, of signals, and the bias.
struct Model(Vec<f32>);

impl Model {
    fn evidence(&self, example: &Example) -> f32 {
        let signals = example.signals.iter().zip(&self.0[BUCKETS..]);
        signals.map(|(signal, weight)| signal * weight).sum::<f32>()
            + example.terms.iter().map(|(bucket, share)| self.0[*bucket] * share).sum::<f32>()
            + self.0[BUCKETS + SIGNALS]
    }

    /// Gradient descent over all examples, each weight's steps by the size of its gradients (Adam).
    fn train(examples: &[&Example]) -> Self {
        let size = BUCKETS + SIGNALS + 1;
        let mut model = Self(vec![0.0; size]);
        let (mut mean, mut square) = (vec![0.0_f32; size], vec![0.0_f32; size]);
        for step in 1..=STEPS {
            let penalties = model.0.iter().enumerate().map(|(at, weight)| weight * penalty(at));
            let mut gradient: Vec<f32> = penalties.collect();
            for example in examples {
                let likelihood = 1.0 / (1.0 + (-model.evidence(example)).exp());
                let error = likelihood - f32::from(u8::from(example.complex));
                for (bucket, share) in &example.terms {
                    gradient[*bucket] += error * share;
                }
                for (at, signal) in example.signals.iter().enumerate() {
                    gradient[BUCKETS + at] += error * signal;
                }
                gradient[size - 1] += error;
            }
            let rate = 0.1 * (1.0 - (step - 1) as f32 / STEPS as f32);
            let unbiased = [1.0 - 0.9_f32.powi(step), 1.0 - 0.99_f32.powi(step)];
            let moments = mean.iter_mut().zip(&mut square);
            for ((weight, gradient), (mean, square)) in
                model.0.iter_mut().zip(gradient).zip(moments)
            {
                *mean = 0.9 * *mean + 0.1 * gradient;
                *square = 0.99 * *square + 0.01 * gradient * gradient;
                let size = (*square / unbiased[1]).sqrt() + 1e-6;
                *weight -= rate * (*mean / unbiased[0]) / size;
            }
        }
        model
    }

    fn is_right(&self, example: &Example) -> bool {
        (self.evidence(example) >= 0.0) == example.complex
    }

    fn table(&self, trained_from: u64) -> Vec<u8> {
        let largest = self.0[..BUCKETS].iter().fold(0.0_f32, |most, weight| most.max(weight.abs()));
        let unit = largest.max(f32::MIN_POSITIVE) / 127.0;
        let mut table = trained_from.to_le_bytes().to_vec();
        for number in self.0[BUCKETS..].iter().chain([&unit]) {
            table.extend(number.to_le_bytes());
        }
        let rounded = |weight: &f32| (weight / unit).round() as i8;
        table.extend(self.0[..BUCKETS].iter().map(|weight| rounded(weight).cast_unsigned()));
        table
    }
}

fn penalty(at: usize) -> f32 {
    match at {
        ..BUCKETS => TERM_PENALTY,
        _ if at < BUCKETS + SIGNALS => SIGNAL_PENALTY,
        _ => 0.0,
    }
}

/// Changes with every prompt, label, term and signal.
fn origin(examples: &[Example]) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    let mut add = |value: u64| hash = (hash ^ value).wrapping_mul(0x0100_0000_01B3).rotate_left(29);
    for example in examples {
        add(u64::from(example.complex));
        example.signals.iter().for_each(|signal| add(u64::from(signal.to_bits())));
        for (bucket, share) in &example.terms {
            add(*bucket as u64);
            add(u64::from(share.to_bits()));
        }
    }
    hash
}

fn examples() -> Vec<Example> {
    tuning().iter().map(example).collect()
}

#[test]
fn the_table_was_trained_from_these_prompts_by_these_terms() {
    let origin = origin(&examples()).to_le_bytes();
    assert_eq!(
        model_weights::TABLE[..model_weights::FIRST],
        origin,
        "train again, see training.rs"
    );
}

#[test]
fn training_tells_apart_what_one_word_tells_apart() {
    let prompt = |word: &str, complex| Prompt {
        language: "en".into(),
        complex,
        text: format!("{word} is the shop open"),
    };
    let examples: Vec<_> =
        [prompt("when", false), prompt("why", true)].iter().map(example).collect();
    let model = Model::train(&examples.iter().collect::<Vec<_>>());
    assert!(examples.iter().all(|example| model.is_right(example)));
    let table = model.table(7);
    assert_eq!(table.len(), model_weights::TABLE.len());
    assert_eq!(table, Model::train(&examples.iter().collect::<Vec<_>>()).table(7));
}

/// Accuracy on prompts that were left out of training, a fifth each time.
#[test]
#[ignore = "for choosing features and penalties"]
fn cross_validation() {
    const PARTS: usize = 5;
    let (prompts, examples) = (tuning(), examples());
    let mut right = std::collections::BTreeMap::<&str, [u32; 2]>::new();
    // Neighbours are often alike, so they are left out together.
    let part = |at: usize| at / 8 % PARTS;
    for left_out in 0..PARTS {
        let others = examples.iter().enumerate().filter(|(at, _)| part(*at) != left_out);
        let model = Model::train(&others.map(|(_, example)| example).collect::<Vec<_>>());
        for (at, example) in examples.iter().enumerate().filter(|(at, _)| part(*at) == left_out) {
            let kind = if example.complex { "complex" } else { "simple" };
            for name in [&*prompts[at].language, "all", kind] {
                right.entry(name).or_default()[usize::from(model.is_right(example))] += 1;
            }
        }
    }
    for (name, [wrong, right]) in right {
        println!("{name:<8} {:.1} %", 100.0 * f64::from(right) / f64::from(right + wrong));
    }
}

#[test]
#[ignore = "writes weights.bin"]
fn train() {
    let examples = examples();
    let model = Model::train(&examples.iter().collect::<Vec<_>>());
    let right = examples.iter().filter(|example| model.is_right(example)).count();
    println!("{right} of {} right in training", examples.len());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/route/smart/weights.bin");
    std::fs::write(path, model.table(origin(&examples))).unwrap();
}
