//! How long a text is, in rough tokens: a weight for each class of characters. The table of weights was trained
//! by these figures, so they stay as they are, whatever the meter's estimates become.

/// Thousandths of a token per character.
const LETTER: u32 = 230;
const DIGIT: u32 = 550;
const SPACE: u32 = 30;
const LINE: u32 = 400;
const OTHER_ASCII: u32 = 570;
const WIDE: u64 = 800;
const OTHER: u64 = 340;
const ASTRAL: u64 = 2500;

/// Base64 is no language: few of its letters stand together in a vocabulary.
const BASE64: u64 = 690;

/// A block of this many bytes that can only be base64 is counted as such. No word, path or number is
/// that long and has capitals, small letters and digits, but nothing between them.
const BLOCK: usize = 64;

/// What kinds of characters a block holds, above the weight in an entry of [`ASCII`].
const CAPITAL: u32 = 1 << 16;
const SMALL: u32 = 1 << 17;
const NUMERAL: u32 = 1 << 18;
const NOT_BASE64: u32 = 1 << 19;
const WEIGHT: u32 = CAPITAL - 1;

static ASCII: [u32; 128] = ascii();

const fn ascii() -> [u32; 128] {
    let mut table = [OTHER_ASCII | NOT_BASE64; 128];
    let mut at = 0;
    while at < 128 {
        table[at] = match at as u8 {
            b'A'..=b'Z' => LETTER | CAPITAL,
            b'a'..=b'z' => LETTER | SMALL,
            b'0'..=b'9' => DIGIT | NUMERAL,
            b'+' | b'/' | b'=' | b'-' | b'_' => OTHER_ASCII,
            b' ' => SPACE | NOT_BASE64,
            b'\n' | b'\t' => LINE | NOT_BASE64,
            _ => OTHER_ASCII | NOT_BASE64,
        };
        at += 1;
    }
    table
}

/// Rounded up to whole tokens.
pub fn tokens(texts: [&str; 2]) -> u64 {
    texts.map(millitokens).iter().sum::<u64>().div_ceil(1000)
}

fn millitokens(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut total = 0;
    let mut at = 0;
    while at < bytes.len() {
        let block = &bytes[at..bytes.len().min(at + BLOCK)];
        // The whole block is looked at together, many bytes at a time; most are all ASCII.
        let plain = if block.is_ascii() {
            block.len()
        } else {
            block.iter().position(|byte| !byte.is_ascii()).unwrap_or(block.len())
        };
        total += ascii_block(&block[..plain]);
        at += plain;
        if plain < block.len() {
            for character in text[at..].chars().take_while(|character| !character.is_ascii()) {
                total += character_weight(character);
                at += character.len_utf8();
            }
        }
    }
    total
}

fn ascii_block(block: &[u8]) -> u64 {
    let (mut sum, mut kinds) = (0, 0);
    for byte in block {
        let entry = ASCII[usize::from(byte & 127)];
        sum += entry & WEIGHT;
        kinds |= entry;
    }
    let base64 = CAPITAL | SMALL | NUMERAL;
    if block.len() == BLOCK && kinds & (base64 | NOT_BASE64) == base64 {
        return BASE64 * BLOCK as u64;
    }
    u64::from(sum)
}

fn character_weight(character: char) -> u64 {
    match u32::from(character) {
        // Hangul; CJK from radicals over kana to ideographs; compatibility and full-width forms.
        0x1100..=0x11FF | 0xA960..=0xA97F | 0xAC00..=0xD7FF => WIDE,
        0x2E80..=0x9FFF | 0xF900..=0xFAFF | 0xFE30..=0xFE4F | 0xFF00..=0xFFEF => WIDE,
        0x1_0000.. => ASTRAL,
        _ => OTHER,
    }
}
