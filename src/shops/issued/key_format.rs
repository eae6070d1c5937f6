//! `PREFIX-XXXXX-XXXXX-XXXXX-XXXXX`: 19 random symbols of Crockford's base32 (95 bits) and a check symbol.
//!
//! The check symbol makes a weighted sum over GF(32) zero. The weights are distinct powers of a primitive
//! element, none of them zero: a single wrong symbol changes the sum by weight × error, a swap of two
//! symbols by (difference of weights) × (difference of symbols), and neither product is zero in a field. So
//! both kinds of error are detected without a look-up.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// Crockford's alphabet (<https://www.crockford.com/base32.html>): no I, L, O and U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Symbols of a key behind its prefix, the check symbol last.
const SYMBOLS: usize = 20;
const GROUP: usize = 5;
/// x⁵ + x² + 1, which is primitive.
const POLYNOMIAL: u8 = 0b10_0101;
const LONGEST_PREFIX: usize = 16;
/// A prefix, and each group with the hyphen before it.
const LONGEST: usize = LONGEST_PREFIX + SYMBOLS + SYMBOLS / GROUP;

/// How keys of one source look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFormat {
    /// Upper case.
    prefix: String,
}

/// What a text is that was typed as a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyReading {
    /// Of another form.
    Other,
    /// Of this form, with a typing error in it.
    Wrong,
    Good(NormalKey),
}

/// A key in its one spelling. On the stack, and wiped.
#[derive(Clone, PartialEq, Eq)]
pub struct NormalKey {
    bytes: [u8; LONGEST],
    length: usize,
}

impl fmt::Debug for NormalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NormalKey(***)")
    }
}

impl Drop for NormalKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl NormalKey {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }
}

impl KeyFormat {
    /// `None` unless the prefix is 2 to 16 letters and digits.
    pub fn new(prefix: &str) -> Option<Self> {
        let fits = (2..=LONGEST_PREFIX).contains(&prefix.len())
            && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric());
        fits.then(|| Self { prefix: prefix.to_ascii_uppercase() })
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Hyphens and case do not count; O is 0, I and L are 1.
    pub fn read(&self, text: &str) -> KeyReading {
        let mut typed = text.trim().bytes().filter(|byte| *byte != b'-');
        for expected in self.prefix.bytes() {
            if typed.next().map(fold) != Some(fold(expected)) {
                return KeyReading::Other;
            }
        }
        let mut symbols = [0; SYMBOLS];
        for symbol in &mut symbols {
            match typed.next().and_then(value) {
                Some(value) => *symbol = value,
                None => return KeyReading::Other,
            }
        }
        match (typed.next(), sum(&symbols)) {
            (Some(_), _) => KeyReading::Other,
            (None, 0) => KeyReading::Good(self.write(&symbols)),
            (None, _) => KeyReading::Wrong,
        }
    }

    /// A new key.
    ///
    /// # Errors
    /// The operating system gives no random numbers.
    pub fn make(&self) -> Result<Zeroizing<String>, getrandom::Error> {
        let mut random = Zeroizing::new([0; SYMBOLS]);
        getrandom::fill(&mut *random)?;
        Ok(Zeroizing::new(self.of(&random).as_str().to_owned()))
    }

    /// The key of these values, of which the last five bits of all but the last count.
    fn of(&self, random: &[u8; SYMBOLS]) -> NormalKey {
        let mut symbols = random.map(|byte| byte & 31);
        symbols[SYMBOLS - 1] = 0;
        symbols[SYMBOLS - 1] = sum(&symbols);
        let key = self.write(&symbols);
        symbols.zeroize();
        key
    }

    fn write(&self, symbols: &[u8; SYMBOLS]) -> NormalKey {
        let mut key = NormalKey { bytes: [0; LONGEST], length: 0 };
        self.prefix.bytes().for_each(|byte| key.push(byte));
        for group in symbols.chunks(GROUP) {
            key.push(b'-');
            group.iter().for_each(|symbol| key.push(ALPHABET[usize::from(symbol & 31)]));
        }
        key
    }
}

/// A letter as it is compared.
fn fold(byte: u8) -> u8 {
    match byte.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        other => other,
    }
}

fn value(byte: u8) -> Option<u8> {
    let folded = fold(byte);
    ALPHABET.iter().position(|symbol| *symbol == folded).map(|place| place as u8)
}

/// The weighted sum; 0 for a whole key. The check symbol's weight is 1, so it is the sum of the others.
fn sum(symbols: &[u8; SYMBOLS]) -> u8 {
    let mut weight = 1;
    let mut sum = symbols[SYMBOLS - 1];
    for symbol in &symbols[..SYMBOLS - 1] {
        weight = times(weight, 2);
        sum ^= times(weight, *symbol);
    }
    sum
}

/// Multiplication in GF(32).
fn times(mut one: u8, mut other: u8) -> u8 {
    let mut product = 0;
    while other > 0 {
        if other & 1 == 1 {
            product ^= one;
        }
        one <<= 1;
        if one & 32 != 0 {
            one ^= POLYNOMIAL;
        }
        other >>= 1;
    }
    product
}

#[cfg(test)]
mod tests;
