use super::*;

fn format() -> KeyFormat {
    KeyFormat::new("JSTAR").unwrap()
}

/// Deterministic noise, so that each run checks the same keys.
fn keys(count: usize) -> impl Iterator<Item = NormalKey> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..count).map(move |_| {
        let random = std::array::from_fn(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        });
        format().of(&random)
    })
}

fn symbols_of(key: &NormalKey) -> [u8; SYMBOLS] {
    let typed = key.as_str()[5..].bytes().filter(|byte| *byte != b'-');
    let values: Vec<u8> = typed.map(|byte| value(byte).unwrap()).collect();
    values.try_into().unwrap()
}

#[test]
fn a_new_key_is_read_and_no_two_are_one() {
    let mut seen = std::collections::HashSet::new();
    for _ in 0..1_000 {
        let key = format().make().unwrap();
        assert_eq!(key.len(), "JSTAR-XXXXX-XXXXX-XXXXX-XXXXX".len(), "{}", *key);
        let KeyReading::Good(normal) = format().read(&key) else { panic!("{}", *key) };
        assert_eq!(normal.as_str(), &**key);
        assert!(seen.insert(key.to_string()));
    }
}

#[test]
fn every_single_wrong_symbol_and_every_swap_of_neighbours_is_told() {
    for key in keys(1_000) {
        let symbols = symbols_of(&key);
        for place in 0..SYMBOLS {
            for other in 0..32 {
                let mut wrong = symbols;
                wrong[place] = other;
                assert_eq!(sum(&wrong) == 0, wrong == symbols, "{} at {place}", key.as_str());
            }
            for with in place + 1..SYMBOLS {
                let mut swapped = symbols;
                swapped.swap(place, with);
                assert_eq!(sum(&swapped) == 0, swapped == symbols, "{}", key.as_str());
            }
        }
    }
}

#[test]
fn one_key_has_many_spellings() {
    let key = format().of(&[0, 1, 2, 3, 0, 1, 31, 30, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0]);
    let text = key.as_str();
    assert!(text.starts_with("JSTAR-01230-1ZY01-01010-1010"), "{text}");
    let spellings = [
        text.to_ascii_lowercase(),
        format!("  {text}\t"),
        text.replace('-', ""),
        text.replace('0', "O").replace('1', "I"),
        text.replace('0', "o").replace('1', "l"),
        text.replace("JSTAR-", "jstar"),
    ];
    for spelling in spellings {
        assert_eq!(format().read(&spelling), KeyReading::Good(key.clone()), "{spelling}");
    }
}

#[test]
fn what_has_another_form_is_for_other_sources() {
    let key = format().of(&[7; SYMBOLS]);
    let text = key.as_str();
    for other in [
        "",
        "JSTAR",
        "JSTAR-DEMO-0001",
        "3F2A9C1E-7B4D-4E8A-9D60-5C1B8E7F2A34",
        &text.replace("JSTAR", "OTHER"),
        &format!("{text}0"),
        &text[..text.len() - 1],
        &text.replacen('7', "U", 1),
        &text.replacen('7', "é", 1),
    ] {
        assert_eq!(format().read(other), KeyReading::Other, "{other}");
    }
    let wrong = text.replacen('7', "8", 1);
    assert_eq!(format().read(&wrong), KeyReading::Wrong);
}

#[test]
fn prefixes_are_words_and_may_hold_what_is_folded() {
    for wrong in ["", "A", "A-B", "A B", "SEVENTEENLETTERSX", "É1"] {
        assert!(KeyFormat::new(wrong).is_none(), "{wrong}");
    }
    let oil = KeyFormat::new("oil").unwrap();
    let key = oil.make().unwrap();
    assert!(key.starts_with("OIL-"));
    assert!(matches!(oil.read(&key.replace("OIL", "01l")), KeyReading::Good(_)));
}

#[test]
fn the_field_is_one() {
    for one in 1..32 {
        let products: std::collections::HashSet<u8> =
            (0..32).map(|other| times(one, other)).collect();
        assert_eq!(products.len(), 32, "{one} has no zero divisor");
    }
    let mut power = 1;
    let powers: std::collections::HashSet<u8> = (0..31)
        .map(|_| {
            power = times(power, 2);
            power
        })
        .collect();
    assert_eq!(powers.len(), 31, "2 is primitive");
}
