//! What one text shows of its difficulty, read in one pass over a bounded part of it.

pub use super::model_weights::SIGNALS;
use super::{
    hashed_terms,
    keywords::{self, KeywordCounts},
    length, model_weights,
};

/// Bytes read of one text: its beginning and its end, where instructions stand.
pub const READ: usize = 1024;

/// What means the same in every language.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Features {
    pub words: KeywordCounts,
    /// Estimate over the whole text.
    pub tokens: u64,
    /// Numbers of up to three digits; longer ones are years, orders and telephones.
    pub numbers: u32,
    /// Signs of percent and of currencies.
    pub amounts: u32,
    /// Fences, and signs that only code has many of.
    pub code: u32,
    pub math: u32,
    pub questions: u32,
    /// Lines that begin like items of a list.
    pub items: u32,
    pub quotes: u32,
    pub lines: u32,
}

/// Evidence for `complex`: above 0 it is likelier than not. `limit` bounds the bytes that are read.
pub fn evidence(text: &str, limit: usize) -> f32 {
    let (mut sum, mut count) = (0_i32, 0_u32);
    let signals = Features::read(text, limit, |term| {
        sum += model_weights::of_term(term);
        count += 1;
    });
    model_weights::evidence(&signals.features(), sum, count)
}

impl Features {
    /// Counts, and calls `term` with the bucket of each term.
    pub fn read(text: &str, limit: usize, term: impl FnMut(usize)) -> Self {
        let (head, tail) = windows(text, limit.min(READ));
        let mut signals = Self::default();
        let mut folded = String::with_capacity(head.len() + tail.len() + 2);
        signals.count(head, &mut folded);
        folded.push(' ');
        signals.count(tail, &mut folded);
        folded.push(' ');
        signals.words = keywords::count(&folded);
        hashed_terms::each(&folded, term);
        let read = (head.len() + tail.len()).max(1) as u64;
        let tokens = length::tokens([head, tail]);
        signals.tokens = tokens.saturating_mul(text.len() as u64) / read;
        signals
    }

    fn count(&mut self, text: &str, folded: &mut String) {
        let (mut digits, mut line_start, mut before) = (0_u32, true, ' ');
        for character in text.chars() {
            if character.is_ascii_digit() {
                digits += 1;
            } else {
                if (1..=3).contains(&digits) {
                    self.numbers += 1;
                }
                self.sign(character, before, line_start, digits);
                digits = 0;
                if character == '\n' {
                    line_start = true;
                } else if character != ' ' {
                    line_start = false;
                }
            }
            keywords::fold(character, folded);
            before = character;
        }
        if (1..=3).contains(&digits) {
            self.numbers += 1;
        }
    }

    #[inline]
    fn sign(&mut self, character: char, before: char, line_start: bool, digits: u32) {
        match character {
            'a'..='z' | 'A'..='Z' | ' ' => {}
            '\n' => self.lines += 1,
            '?' | '？' | '؟' => self.questions += 1,
            '{' | '}' | ';' | '<' | '>' | '`' | '_' | '|' | '\\' | '[' | ']' => self.code += 1,
            '(' if before.is_ascii_alphanumeric() => self.code += 1,
            '=' if "=!<>:+-".contains(before) => self.code += 1,
            '=' | '^' | '²' | '³' | '√' | '∫' | '∑' | 'π' | '≤' | '≥' | '×' | '÷' | '∞' | '−' =>
            {
                self.math += 1;
            }
            '%' | '$' | '€' | '£' | '¥' | '₽' | '٪' | '％' | '￥' => self.amounts += 1,
            '"' | '“' | '„' | '«' | '「' => self.quotes += 1,
            '-' | '*' | '•' | '・' if line_start => self.items += 1,
            '.' | ')' | '、' if line_start && (1..=2).contains(&digits) => self.items += 1,
            _ => {}
        }
    }

    /// What is weighed, none of it much above 3.
    pub fn features(&self) -> [f32; SIGNALS] {
        let capped = |count: u32, most: u32| count.min(most) as f32;
        [
            capped(self.words.hard, 3),
            capped(self.words.technical, 4) / 2.0,
            capped(self.words.easy, 3),
            (self.tokens as f32 / 20.0).ln_1p(),
            capped(self.numbers, 6) / 3.0,
            capped(self.amounts, 3) / 2.0,
            capped(self.code, 12) / 4.0,
            capped(self.math, 3) / 2.0,
            capped(self.questions, 1),
            capped(self.questions.saturating_sub(1), 3),
            capped(self.items, 4) / 2.0,
            capped(self.quotes, 2),
            capped(self.lines, 4) / 2.0,
        ]
    }
}

/// A text, or its first and last bytes; cut between characters.
fn windows(text: &str, limit: usize) -> (&str, &str) {
    if text.len() <= limit {
        return (text, "");
    }
    let head = text.floor_char_boundary(limit / 2);
    let tail = text.ceil_char_boundary(text.len() - limit / 2);
    (&text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn signs_are_counted() {
        let read = |text| Features::read(text, READ, |_| ());
        let signals = read("1. Is 20 % of x² = 5?\n- or 12345？\n* `f(x)`؟ \"«");
        assert_eq!((signals.numbers, signals.amounts, signals.math), (3, 1, 2));
        assert_eq!((signals.questions, signals.items, signals.code), (3, 3, 3));
        assert_eq!((signals.quotes, signals.lines), (2, 2));
    }

    #[test]
    fn of_a_long_text_both_ends_are_read() {
        let terms = |text: &str| {
            let mut terms = Vec::new();
            let signals = Features::read(text, READ, |term| terms.push(term));
            (signals, terms)
        };
        let (_, why) = terms("why");
        let padding = "und weiter ".repeat(10_000);
        let (signals, found) = terms(&format!("{padding}. why?"));
        assert_eq!(signals.questions, 1);
        // All but the pair with the first edge.
        assert_eq!(why.iter().filter(|term| found.contains(term)).count(), 5);
        let (signals, found) = terms(&format!("{padding} why? {padding}"));
        assert_eq!(signals.questions, 0);
        assert_eq!(why.iter().filter(|term| found.contains(term)).count(), 0);
        assert!(signals.tokens > 40_000);
    }

    proptest! {
        #[test]
        fn any_text_at_any_limit_has_finite_evidence(text in "\\PC{0,300}", limit in 0_usize..200) {
            prop_assert!(evidence(&text, limit).is_finite());
            prop_assert!(evidence(&text.repeat(40), READ).is_finite());
        }

        #[test]
        fn a_text_is_read_to_its_ends(text in "[a-z ؟ئ私🦀]{0,400}", limit in 0_usize..300) {
            let (head, tail) = windows(&text, limit);
            prop_assert!(head.len() + tail.len() <= limit.max(text.len().min(limit)));
            prop_assert!(text.starts_with(head) && text.ends_with(tail));
        }
    }
}
