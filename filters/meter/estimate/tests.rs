use super::*;

/// Text, its tokens in the o200k vocabulary, and the error allowed, in percent.
const SAMPLES: &[(&str, &str, f64, f64)] = &[
    ("English", include_str!("samples/english.txt"), 133.0, 5.0),
    ("Rust", include_str!("samples/rust.txt"), 194.0, 6.0),
    ("JSON", include_str!("samples/json.txt"), 165.0, 15.0),
    ("CSV", include_str!("samples/csv.txt"), 459.0, 20.0),
    ("Markdown", include_str!("samples/markdown.txt"), 134.0, 11.0),
    ("Chinese", include_str!("samples/chinese.txt"), 103.0, 20.0),
    ("Japanese", include_str!("samples/japanese.txt"), 106.0, 22.0),
    ("Russian", include_str!("samples/russian.txt"), 82.0, 31.0),
    ("Hindi", include_str!("samples/hindi.txt"), 90.0, 9.0),
    ("Arabic", include_str!("samples/arabic.txt"), 95.0, 18.0),
    ("Thai", include_str!("samples/thai.txt"), 110.0, 26.0),
    ("Korean", include_str!("samples/korean.txt"), 91.0, 32.0),
    ("emoji", include_str!("samples/emoji.txt"), 64.0, 20.0),
    ("digits", include_str!("samples/digits.txt"), 159.0, 25.0),
    ("base64", include_str!("samples/base64.txt"), 885.0, 5.0),
    ("data URL", include_str!("samples/data_url.txt"), 563.0, 12.0),
];

#[test]
fn near_the_vocabulary_in_every_language() {
    for (name, sample, tokens, allowed) in SAMPLES {
        let error = (text(sample) as f64 / 1000.0 / tokens - 1.0) * 100.0;
        println!("{name}: {error:+.1} %");
        assert!(error.abs() <= *allowed, "{name}: {error:+.1} %");
    }
}

#[test]
fn classes() {
    assert_eq!(text(""), 0);
    assert_eq!(text("aZ"), 460);
    assert_eq!(text("7 \n\t."), 550 + 30 + 400 + 400 + 570);
    assert_eq!(text("中かハ한Ａ"), 5 * 800);
    assert_eq!(text("éжा☀"), 4 * 340);
    assert_eq!(text("😀"), 2500);
    assert_eq!(tokens(1), 1);
    assert_eq!(tokens(2000), 2);
}

#[test]
fn only_base64_is_taken_for_base64() {
    let words = "a".repeat(64) + &"B".repeat(64) + &"5".repeat(64);
    assert_eq!(text(&words), 64 * (230 + 230 + 550));
    let path = "https://example.com/Some/Long/Path/v2/".repeat(4);
    let letters = path.bytes().filter(u8::is_ascii_alphabetic).count() as u64;
    assert_eq!(text(&path), letters * 230 + 4 * (550 + 9 * 570));
}

proptest::proptest! {
    #[test]
    fn pieces_add_up(pieces in proptest::collection::vec(".{0,30}", 0..6)) {
        // Longer pieces could be told for base64 in one way of cutting and not in another.
        let sum: u64 = pieces.iter().map(|piece| text(piece)).sum();
        proptest::prop_assert_eq!(text(&pieces.concat()), sum);
    }
}
