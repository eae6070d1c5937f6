//! The labelled prompts, and what must hold for any request.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{score, testing::ask};
use crate::{kernel::Score, meter::estimate::Estimate};

const THRESHOLD: u64 = 50;

macro_rules! half {
    ($half:literal) => {
        half!($half, "ar" "de" "en" "es" "fr" "it" "ja" "pt" "ru" "zh")
    };
    ($half:literal, $($language:literal)*) => {
        [$(include_str!(concat!("prompts/", $half, "/", $language, ".jsonl"))),*].concat()
    };
}

pub(super) struct Prompt {
    pub language: String,
    pub complex: bool,
    pub text: String,
}

/// What the weights are trained from.
pub(super) fn tuning() -> Vec<Prompt> {
    prompts(&half!("tuning"))
}

fn prompts(lines: &str) -> Vec<Prompt> {
    let prompt = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        Prompt {
            language: text("language"),
            complex: text("label") == "complex",
            text: text("text"),
        }
    };
    lines.lines().map(prompt).collect()
}

fn score_of(text: &str) -> Score {
    score(&ask(&json!({ "messages": [{ "role": "user", "content": text }] }).to_string()))
}

/// By true class and by predicted class: `[complex][predicted complex]`.
type Matrix = [[u32; 2]; 2];

fn measure(prompts: &[Prompt]) -> (BTreeMap<&str, Matrix>, String) {
    let (mut of, mut wrong) = (BTreeMap::<&str, Matrix>::new(), String::new());
    for prompt in prompts {
        let score = score_of(&prompt.text);
        let taken = score >= Score::from_hundredths(THRESHOLD);
        for name in [&*prompt.language, "all"] {
            of.entry(name).or_default()[usize::from(prompt.complex)][usize::from(taken)] += 1;
        }
        if taken != prompt.complex {
            let text: String = prompt.text.chars().take(70).collect();
            let _ = writeln!(wrong, "{} {score} {text}", prompt.language);
        }
    }
    (of, wrong)
}

fn accuracy(matrix: &Matrix) -> f64 {
    let all: u32 = matrix.iter().flatten().sum();
    f64::from(matrix[0][0] + matrix[1][1]) / f64::from(all)
}

fn table(of: &BTreeMap<&str, Matrix>) -> String {
    let mut table = String::from("      simple→simple →complex | complex→simple →complex\n");
    for (name, m) in of {
        let share = accuracy(m) * 100.0;
        let _ = writeln!(
            table,
            "{name:<4} {:>14} {:>8} | {:>14} {:>8}   {share:.1} %",
            m[0][0], m[0][1], m[1][0], m[1][1]
        );
    }
    table
}

/// Reports nothing about single prompts, so that the keywords are not tuned on the test half.
#[test]
fn the_test_half_is_told_apart() {
    let lines = half!("test");
    let prompts = prompts(&lines);
    assert!(prompts.len() >= 200);
    let (of, _) = measure(&prompts);
    println!("{}", table(&of));
    assert!(accuracy(&of["all"]) >= 0.85, "{}", table(&of));
    for (language, matrix) in &of {
        assert!(accuracy(matrix) >= 0.75, "{language}: {}", table(&of));
    }
}

/// Other subjects than those of the keyword lists, by another author: measures how well the classifier
/// generalises. A floor against regressions; as in the test half, single prompts are not reported.
#[test]
fn unseen_subjects_are_told_apart_less_well() {
    let lines = half!("unseen");
    let prompts = prompts(&lines);
    assert!(prompts.len() >= 200);
    let (of, _) = measure(&prompts);
    println!("{}", table(&of));
    let all = &of["all"];
    assert!(accuracy(all) >= 0.72, "{}", table(&of));
    assert!(all[1][1] * 3 >= (all[1][0] + all[1][1]) * 2, "{}", table(&of));
}

#[test]
fn the_tuning_half_is_told_apart() {
    let prompts = tuning();
    assert!(prompts.len() >= 2000);
    let (of, wrong) = measure(&prompts);
    println!("{}\n{wrong}", table(&of));
    assert!(accuracy(&of["all"]) >= 0.85, "{}", table(&of));
}

#[test]
fn no_prompt_is_in_two_sets() {
    let (tuning, test, unseen) = (half!("tuning"), half!("test"), half!("unseen"));
    let mut seen = BTreeSet::new();
    for prompt in [&tuning, &test, &unseen].into_iter().flat_map(|lines| prompts(lines)) {
        assert!(seen.insert(prompt.text.clone()), "{}", prompt.text);
    }
}

/// Stretches of three characters, of two where there are no spaces between words.
fn stretches(text: &str) -> BTreeSet<Vec<char>> {
    let lower = text.to_lowercase();
    let words: Vec<&str> =
        lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let dense = words.iter().flat_map(|word| word.chars()).any(super::keywords::is_unspaced);
    let length = if dense { 2 } else { 3 };
    let joined: Vec<char> = format!(" {} ", words.join(" ")).chars().collect();
    joined.windows(length).map(<[char]>::to_vec).collect()
}

/// A score is only meaningful for prompts unlike those that the weights were trained on.
#[test]
fn no_prompt_is_a_variant_of_one_in_the_tuning_half() {
    let tuning: Vec<_> =
        tuning().into_iter().map(|prompt| (stretches(&prompt.text), prompt)).collect();
    for prompt in [half!("test"), half!("unseen")].iter().flat_map(|lines| prompts(lines)) {
        let its = stretches(&prompt.text);
        for (stretches, other) in &tuning {
            let shared = its.intersection(stretches).count() as f64;
            let alike = shared / (its.union(stretches).count() as f64);
            assert!(alike < 0.45, "{alike:.2}: {} | {}", prompt.text, other.text);
        }
    }
}

#[test]
fn a_conversation_that_was_complex_stays_complex() {
    let user = |text: &str| json!({ "role": "user", "content": text });
    let of = |turns: &[Value]| score(&ask(&json!({ "messages": turns }).to_string()));
    let hard = user("Prove by induction that the sum is right, step by step.");
    let thanks = user("Thanks, bye!");
    assert!(of(std::slice::from_ref(&thanks)) < of(std::slice::from_ref(&hard)));
    assert_eq!(of(&[hard.clone(), thanks.clone()]), of(std::slice::from_ref(&hard)));
    // However much follows.
    let talk = (0..40).map(|_| user(&"Thanks, that is very kind of you. ".repeat(20)));
    let long: Vec<Value> = [hard.clone()].into_iter().chain(talk).collect();
    assert!(of(&long) >= of(std::slice::from_ref(&hard)));
    // Text of the system or the model is no measure of difficulty.
    let system = json!({ "role": "system", "content": "Prove, explain and compare everything." });
    assert_eq!(of(&[system, thanks.clone()]), of(&[thanks]));
}

#[test]
fn what_the_app_wants_of_the_answer_counts() {
    let of = |members: Value| {
        let mut body =
            json!({ "messages": [{ "role": "user", "content": "Where does it come from?" }] });
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        score(&ask(&body.to_string()))
    };
    let plain = of(json!({}));
    assert!(of(json!({ "reasoning_effort": "high" })) > plain);
    assert!(of(json!({ "reasoning_effort": "low" })) < plain);
    assert!(of(json!({ "tools": [{ "type": "function" }] })) >= plain);
    assert!(of(json!({ "response_format": { "type": "json_schema" } })) > plain);
}

proptest! {
    #[test]
    fn any_request_has_a_score(
        text in "\\PC{0,80}", times in 1_usize..2000, role in "user|system|tool|x", cap in any::<Option<u64>>(),
        tokens in any::<u64>(),
    ) {
        let turn = json!({ "role": role, "content": text.repeat(times) });
        let mut ask = ask(&json!({ "messages": [turn, turn] }).to_string());
        ask.output_cap = cap;
        ask.input.text = Estimate::of_tokens(tokens);
        prop_assert!(score(&ask) <= Score::from_hundredths(100));
    }
}
