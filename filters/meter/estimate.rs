//! Estimates tokens where no count was reported: how likely a token begins at each character.
//!
//! A vocabulary joins frequent sequences, so whether a token begins at a character depends on the
//! characters before: hardly ever inside `the`, almost always inside `xqz`. The weights are those
//! probabilities, for two families of vocabularies at once, counted over text in 500 languages, code, noise
//! and shuffled text; `README.md` beside `weights.bin` describes how. They cover pairs of ASCII characters,
//! small letters by the two characters before, pairs within a script, and every other character by itself.
//! `samples.jsonl` holds texts of each kind with their true counts.

#[cfg(test)]
mod tests;

pub use crate::kernel::Estimate;

/// What the wrapping of one message costs beside its text.
pub const MESSAGE_TOKENS: u64 = 4;

/// What a request costs beside its messages.
pub const REQUEST_TOKENS: u64 = 3;

/// A whole text. Where there is any, it is a token at least.
pub fn text(text: &str) -> Estimate {
    if text.is_empty() {
        return Estimate::default();
    }
    weigh(text, START).max(Estimate::of_tokens(1))
}

/// A piece of a text that goes on before and after it, so that the pieces of a text add up to about the
/// text, however it was cut.
pub fn piece(text: &str) -> Estimate {
    weigh(text, CUT)
}

/// Pairs of ASCII characters, pages of 128 characters up to U+1FFFF, and what these have of their own.
static WEIGHTS: &[u8; WEIGHTS_END] = include_bytes!("estimate/weights.bin");

/// Millitokens of one step of a weight.
const UNIT: u64 = 20;

const PAIRS: usize = 26;
const PAGES: usize = 450;

/// Two weights, `o200k` first, for each of 128 characters after each of 128.
const ASCII: usize = 0;
/// The same for a small letter after a small letter, by the class of what stands before both.
const LETTERS: usize = ASCII + 2 * 128 * 128;
/// The place of a page's characters among [`CHARACTERS`].
const PAGE: usize = LETTERS + 2 * 32 * 32 * 32;
/// Which of [`PAIRS`] a page has, 0 for none.
const PAIRED: usize = PAGE + 2 * 1024;
/// A class for each character of a page with pairs; 0 is all that are rare.
const CLASSES: usize = PAIRED + 2 * 1024;
/// Two weights for each of 64 classes after each of 64.
const SCRIPTS: usize = CLASSES + PAIRS * 128;
/// Two weights for each character of a page.
const CHARACTERS: usize = SCRIPTS + PAIRS * 2 * 64 * 64;
const WEIGHTS_END: usize = CHARACTERS + PAGES * 2 * 128;

/// What stands before an ASCII character where that is none itself; the places of control characters, which
/// all count as line ends.
const START: u8 = 1;
const LATIN: u8 = 2;
const LETTER: u8 = 3;
const SIGN: u8 = 4;
const CUT: u8 = 5;
const CONTROL: u8 = b'\n';

/// In the place of a character: what stood before was cut off and could be any.
const ANY: u32 = u32::MAX;

/// Beyond U+1FFFF each byte of a character is a token.
const FAR: u64 = 220 << 32 | 220;

/// Classes of what stands before two small letters: each small letter, capitals, a space, digits, line ends,
/// signs; 31 is nothing or no ASCII.
static BEFORE: [u8; 128] = before();

const fn before() -> [u8; 128] {
    let mut table = [30; 128];
    let mut at = 0;
    while at < 128 {
        table[at] = match at as u8 {
            letter @ b'a'..=b'z' => letter - b'a',
            b'A'..=b'Z' => 26,
            b' ' => 27,
            b'0'..=b'9' => 28,
            b'\n' | b'\t' | b'\r' | START => 29,
            0..32 => 31,
            _ => 30,
        };
        at += 1;
    }
    table
}

/// Both weights at a place, `cl100k` in the upper half.
#[inline]
fn weight(place: usize) -> u64 {
    match WEIGHTS.get(place..place + 2) {
        Some(two) => u64::from(two[0]) | u64::from(two[1]) << 32,
        None => 0,
    }
}

#[inline]
fn short(place: usize) -> usize {
    match WEIGHTS.get(place..place + 2) {
        Some(two) => usize::from(u16::from_le_bytes([two[0], two[1]])),
        None => 0,
    }
}

/// What stands before the next character.
struct Context {
    /// ASCII, or one of the constants above.
    last: u8,
    before: u8,
    /// The whole character.
    character: u32,
}

fn weigh(text: &str, start: u8) -> Estimate {
    let bytes = text.as_bytes();
    let character = if start == CUT { ANY } else { 0 };
    let mut context = Context { last: start, before: 0, character };
    let (mut o200k, mut cl100k) = (0, 0);
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let sums = if byte.is_ascii() {
            let (sums, length) = ascii(&mut context, &bytes[at..]);
            at += length;
            sums
        } else {
            let Some(character) = text[at..].chars().next() else { break };
            at += character.len_utf8();
            other(&mut context, character.into())
        };
        o200k += sums & u64::from(u32::MAX);
        cl100k += sums >> 32;
    }
    Estimate { o200k: o200k * UNIT, cl100k: cl100k * UNIT }
}

/// ASCII characters whose weights fit into a sum of 32 bits.
const RUN: usize = 1 << 20;

/// What stands before a character for each ASCII character: control characters all count as line ends.
static LAST: [u8; 128] = last();

const fn last() -> [u8; 128] {
    let mut table = [CONTROL; 128];
    let mut at = 0;
    while at < 128 {
        if at >= 32 || matches!(at as u8, b'\t' | b'\r') {
            table[at] = at as u8;
        }
        at += 1;
    }
    table
}

/// The ASCII that `bytes` begin with: what it weighs and how long it is.
#[inline]
fn ascii(context: &mut Context, bytes: &[u8]) -> (u64, usize) {
    let weights = WEIGHTS.as_chunks::<2>().0;
    let (mut last, mut before) = (context.last & 127, context.before & 127);
    let (mut o200k, mut cl100k) = (0, 0);
    let mut add = |[first, second]: [u8; 2]| {
        o200k += u64::from(first);
        cl100k += u64::from(second);
    };
    let bytes = &bytes[..bytes.len().min(RUN)];
    let mut rest = bytes.iter().copied();
    while let Some(byte) = rest.clone().next().filter(u8::is_ascii) {
        let (first, second) = (last.wrapping_sub(b'a'), byte.wrapping_sub(b'a'));
        if first >= 26 || second >= 26 {
            add(weights[usize::from(last) << 7 | usize::from(byte & 127)]);
            (before, last) = (last, LAST[usize::from(byte & 127)]);
            rest.next();
            continue;
        }
        // A run of small letters, of which most texts are: each by the two characters before it.
        let (mut class, mut letter) = (BEFORE[usize::from(before)] & 31, first & 31);
        while let Some(next) = rest.clone().next().map(|byte| byte.wrapping_sub(b'a')) {
            if next >= 26 {
                break;
            }
            let place = usize::from(class) << 10 | usize::from(letter) << 5 | usize::from(next);
            add(weights[LETTERS / 2 + place]);
            (class, letter) = (letter, next & 31);
            rest.next();
        }
        (before, last) = (class + b'a', letter + b'a');
    }
    let length = bytes.len() - rest.len();
    *context = Context { last, before, character: u32::from(last) };
    (o200k | cl100k << 32, length)
}

fn other(context: &mut Context, character: u32) -> u64 {
    let weight = match character {
        0x2_0000.. => FAR,
        _ => script(context.character, character),
    };
    *context = Context { last: kind(character), before: context.last, character };
    weight
}

fn script(before: u32, character: u32) -> u64 {
    let page = (character >> 7) as usize;
    let place = (character & 127) as usize;
    let pairs = short(PAIRED + 2 * page);
    if pairs > 0 && (before == ANY || before >> 7 == character >> 7) {
        let class = |place: usize| {
            let classes = CLASSES + (pairs - 1) * 128;
            WEIGHTS.get(classes + place).copied().map_or(0, usize::from)
        };
        // After what is rare, or not known, a character weighs what it does on the whole.
        let first = if before == ANY { 0 } else { class((before & 127) as usize) };
        let second = class(place);
        if second > 0 {
            return weight(SCRIPTS + (pairs - 1) * 2 * 64 * 64 + 2 * (first << 6 | second));
        }
    }
    weight(CHARACTERS + short(PAGE + 2 * page) * 2 * 128 + 2 * place)
}

/// What a character beyond ASCII is for the ASCII after it.
fn kind(character: u32) -> u8 {
    match character {
        0..0x250 | 0x300..0x370 | 0x1E00..0x1F00 => LATIN,
        0x2000..0x2C00 | 0x3000..0x3040 | 0xE000..0xF900 => SIGN,
        0xFE00..0xFE10 | 0xFF00..0xFF10 | 0x1_F000.. => SIGN,
        _ => LETTER,
    }
}
