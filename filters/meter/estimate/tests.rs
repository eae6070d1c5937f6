use std::time::Instant;

use serde::Deserialize;

use super::*;
use crate::kernel::Vocabulary;

/// A text, how it came to be, and its tokens in both vocabularies.
#[derive(Deserialize)]
struct Sample {
    name: String,
    /// `plain`, or what was done to it.
    kind: String,
    text: String,
    o200k: u64,
    cl100k: u64,
}

impl Sample {
    fn all() -> Vec<Self> {
        let lines = include_str!("samples.jsonl").lines();
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What `estimate` is of the true count.
    fn ratios(&self, estimate: Estimate) -> [f64; 2] {
        let of = |vocabulary, count: u64| {
            estimate.millitokens(vocabulary) as f64 / 1000.0 / count.max(1) as f64
        };
        [of(Vocabulary::O200k, self.o200k), of(Vocabulary::Cl100k, self.cl100k)]
    }
}

/// The bounds of an estimate: what is reserved covers nine tenths of the truth at least.
const LEAST: f64 = 0.9;
const MOST: f64 = 1.6;

fn outside(kinds: &[&str], bounds: std::ops::RangeInclusive<f64>) -> Vec<String> {
    let samples = Sample::all();
    assert!(samples.iter().filter(|sample| sample.kind == kinds[0]).count() >= 100);
    samples
        .iter()
        .filter(|sample| kinds.contains(&&*sample.kind))
        .flat_map(|sample| sample.ratios(text(&sample.text)).map(|ratio| (sample, ratio)))
        .filter(|(_, ratio)| !bounds.contains(ratio))
        .map(|(sample, ratio)| format!("{} {}: {ratio:.3}", sample.name, sample.kind))
        .collect()
}

#[test]
fn near_the_truth_in_every_script() {
    assert_eq!(outside(&["plain"], LEAST..=MOST), Vec::<String>::new());
}

/// Whatever is done to a text so that it weighs little. Where all its letters are shuffled, or every other six of them
/// another text's, it is no text of its language any more.
#[test]
fn no_mutation_weighs_less_than_nine_tenths() {
    let kept = ["sparse", "words", "capitals", "spaced"];
    assert_eq!(outside(&kept, LEAST..=2.5), Vec::<String>::new());
    assert_eq!(outside(&["letters", "spliced"], 0.85..=2.5), Vec::<String>::new());
}

#[test]
fn where_nothing_is_known_the_larger_count_holds() {
    let georgian = text("საქართველო");
    let (new, old) = (georgian.tokens(Vocabulary::O200k), georgian.tokens(Vocabulary::Cl100k));
    assert!(old >= 2 * new, "{new} and {old}");
    assert_eq!(georgian.tokens(Vocabulary::Unknown), old);
    assert_eq!(text("").tokens(Vocabulary::Unknown), 0);
    let one = text("a").tokens(Vocabulary::O200k);
    assert!((1..=2).contains(&one), "a text is a token at least: {one}");
}

/// A stream is cut anywhere: into tokens, words, or in the middle of them.
#[test]
fn pieces_weigh_about_what_the_whole_does() {
    let mut random = fastrand(7);
    for sample in Sample::all().iter().filter(|sample| sample.kind == "plain") {
        let letters: Vec<char> = sample.text.chars().collect();
        for most in [1, 3, 8, 40] {
            let (mut sum, mut at) = (Estimate::default(), 0);
            while at < letters.len() {
                let end = letters.len().min(at + 1 + random() % most);
                sum += piece(&letters[at..end].iter().collect::<String>());
                at = end;
            }
            // Characters one by one show nothing of what stands together.
            let bounds = if most == 1 { 0.35..3.0 } else { 0.6..2.3 };
            for ratio in sample.ratios(sum) {
                assert!(bounds.contains(&ratio), "{} by {most}: {ratio:.2}", sample.name);
            }
        }
    }
}

/// Numbers that are always the same.
fn fastrand(seed: u64) -> impl FnMut() -> usize {
    let mut state = seed;
    move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    }
}

/// Sums of weights are kept in 32 bits for a while only.
#[test]
fn a_text_of_many_megabytes_weighs_what_its_parts_do() {
    let part = "\u{E000}ꀀ x1 ";
    let times = 400_000;
    let (one, all) = (text(&part.repeat(4)), text(&part.repeat(4 * times)));
    for vocabulary in [Vocabulary::O200k, Vocabulary::Cl100k] {
        let expected = one.millitokens(vocabulary) as f64 * times as f64;
        let ratio = all.millitokens(vocabulary) as f64 / expected;
        assert!((0.98..1.02).contains(&ratio), "{ratio}");
    }
}

/// One pass and no allocation: a debug build weighs a megabyte in well under a second.
#[test]
fn weighing_is_cheap() {
    let long = "The parcel left our warehouse. Посылка вышла. 包裹于周二发出。".repeat(10_000);
    let began = Instant::now();
    assert!(text(&long).tokens(Vocabulary::Unknown) > 100_000);
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

proptest::proptest! {
    /// A character is never more than five tokens, and a text hardly less than one.
    #[test]
    fn any_text_weighs_something_and_not_too_much(any in "\\PC{0,60}|(?s:.){0,60}") {
        for vocabulary in [Vocabulary::O200k, Vocabulary::Cl100k, Vocabulary::Unknown] {
            let tokens = text(&any).tokens(vocabulary);
            proptest::prop_assert!(tokens <= 6 * any.chars().count() as u64);
            proptest::prop_assert_eq!(tokens == 0, any.is_empty());
        }
    }
}

/// Character by character, as the weights are defined.
fn by_definition(text: &str, start: u8) -> (u64, u64) {
    let (mut last, mut before, mut sums) = (start, 0, (0, 0));
    for byte in text.bytes() {
        let place = if last.is_ascii_lowercase() && byte.is_ascii_lowercase() {
            let pair = usize::from(last - b'a') << 5 | usize::from(byte - b'a');
            LETTERS + 2 * (usize::from(BEFORE[usize::from(before)]) << 10 | pair)
        } else {
            ASCII + 2 * (usize::from(last) << 7 | usize::from(byte))
        };
        sums = (sums.0 + u64::from(WEIGHTS[place]), sums.1 + u64::from(WEIGHTS[place + 1]));
        before = last;
        let control = byte < b' ' && !matches!(byte, b'\t' | b'\r');
        last = if control { CONTROL } else { byte };
    }
    (sums.0 * UNIT, sums.1 * UNIT)
}

#[test]
fn ascii_weighs_what_its_characters_do() {
    let (mut seed, signs) = (7_u64, b"abcdefghijklmnopqrstuvwxyz etaoin  AZ09.,\n\t\r\0{}\"");
    for length in 0..400 {
        let next = || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            char::from(signs[(seed >> 33) as usize % signs.len()])
        };
        let text: String = std::iter::repeat_with(next).take(length).collect();
        for start in [START, CUT] {
            let found = weigh(&text, start);
            assert_eq!((found.o200k, found.cl100k), by_definition(&text, start), "{text:?}");
        }
    }
}
