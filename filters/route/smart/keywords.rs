//! Finds the keywords in a text.
//!
//! Case, accents and punctuation don't count: text and words are folded alike (see [`fold`]). The
//! languages share one table: what an app's user writes in is not known, and few words mean opposite
//! things in two of them.

use std::sync::LazyLock;

use super::languages::LANGUAGES;

/// What a keyword indicates about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeywordClass {
    /// Asks for reasoning: why, prove, compare, plan.
    Hard,
    /// A subject that small models are weak at: code, law, money.
    Technical,
    /// Courtesy, one fact, one phrase to translate.
    Easy,
}

const SLOTS: usize = 4096;

struct Entry {
    folded: Box<[u8]>,
    class: KeywordClass,
    /// The next entry with the same slot, plus one; 0 for none.
    next: u16,
}

/// A hash table over the beginnings of words.
struct Table {
    slots: Box<[u16; SLOTS]>,
    entries: Vec<Entry>,
}

static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

/// The slot of what begins with the same three letters, or with the same ideograph. Shorter words (and
/// those of two letters with their space) are not in the table.
fn slot(text: &[u8]) -> Option<usize> {
    // Letters beyond ASCII have two bytes each, in all scripts that are written with spaces here.
    let length = if (0x80..0xE0).contains(text.first()?) { 6 } else { 3 };
    let key = text.get(..length)?.iter().fold(0_u64, |key, byte| key << 8 | u64::from(*byte));
    Some((key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 52) as usize % SLOTS)
}

impl Table {
    fn new() -> Self {
        let mut table = Self { slots: Box::new([0; SLOTS]), entries: Vec::with_capacity(2048) };
        for language in &LANGUAGES {
            let lists = [
                (KeywordClass::Hard, language.hard),
                (KeywordClass::Technical, language.technical),
                (KeywordClass::Easy, language.easy),
            ];
            for (class, list) in lists {
                list.split('|').for_each(|word| table.add(word, class));
            }
        }
        table
    }

    fn add(&mut self, word: &str, class: KeywordClass) {
        let stem = word.strip_suffix('*');
        let mut folded = String::with_capacity(word.len() + 1);
        stem.unwrap_or(word).chars().for_each(|c| fold(c, &mut folded));
        // Scripts without spaces have no ends of words.
        if stem.is_none() && !folded.chars().next_back().is_some_and(is_unspaced) {
            folded.push(' ');
        }
        let Some(slot) = slot(folded.as_bytes()) else { return };
        if self.find(folded.as_bytes()).is_some_and(|it| it.0 == folded.len()) {
            return;
        }
        let slot = &mut self.slots[slot];
        let entry = Entry { folded: folded.into_bytes().into(), class, next: *slot };
        self.entries.push(entry);
        *slot = self.entries.len() as u16;
    }

    /// The longest word that `text` begins with: its length and class.
    fn find(&self, text: &[u8]) -> Option<(usize, KeywordClass)> {
        let mut best: Option<(usize, KeywordClass)> = None;
        let mut at = self.slots[slot(text)?];
        while let Some(entry) = usize::from(at).checked_sub(1).and_then(|at| self.entries.get(at)) {
            if text.starts_with(&entry.folded) && best.is_none_or(|it| it.0 < entry.folded.len()) {
                best = Some((entry.folded.len(), entry.class));
            }
            at = entry.next;
        }
        best
    }
}

/// Written without spaces between words: kana and ideographs.
pub fn is_unspaced(character: char) -> bool {
    matches!(u32::from(character), 0x3040..=0x30FF | 0x3400..=0x9FFF | 0xF900..=0xFAFF)
}

/// Bases of U+00C0 to U+00FF; a space stands for what is no letter.
const LATIN: &[u8; 64] = b"aaaaaaaceeeeiiiidnooooo ouuuuytsaaaaaaaceeeeiiiidnooooo ouuuuyty";

/// Appends a character without case and accents; all that is neither letter nor digit is one space.
#[inline]
pub fn fold(character: char, into: &mut String) {
    let folded = match character {
        'a'..='z' | '0'..='9' | 'а'..='я' | '\u{4E00}'..='\u{9FFF}' => character,
        'A'..='Z' => character.to_ascii_lowercase(),
        // Arabic vowel signs and the lengthening stroke; combining accents.
        '\u{64B}'..='\u{652}' | '\u{640}' | '\u{300}'..='\u{36F}' => return,
        'أ' | 'إ' | 'آ' => 'ا',
        'ى' => 'ي',
        'Ё' | 'ё' => 'е',
        'А'..='Я' => char::from_u32(u32::from(character) + 32).unwrap_or(character),
        '\u{C0}'..='\u{FF}' => char::from(LATIN[u32::from(character) as usize - 0xC0]),
        _ if character.is_ascii() || !character.is_alphanumeric() => ' ',
        _ => character,
    };
    if folded != ' ' || !into.ends_with(' ') {
        into.push(folded);
    }
}

/// How often each class occurs in a folded text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeywordCounts {
    pub hard: u32,
    pub technical: u32,
    pub easy: u32,
}

/// Counts words, each stretch of text for one of them. `folded` ends with a space.
pub fn count(folded: &str) -> KeywordCounts {
    let (table, bytes) = (&*TABLE, folded.as_bytes());
    let mut found = KeywordCounts::default();
    let (mut at, mut fresh) = (0, true);
    while let Some(first) = bytes.get(at) {
        // Kana and ideographs begin with E3 to E9; each of them may begin a word.
        let unspaced = (0xE3..=0xE9).contains(first);
        if (fresh || unspaced)
            && let Some((length, class)) = find_arabic(table, &bytes[at..])
        {
            match class {
                KeywordClass::Hard => found.hard += 1,
                KeywordClass::Technical => found.technical += 1,
                KeywordClass::Easy => found.easy += 1,
            }
            at += length;
            fresh = bytes[at - 1] == b' ' || unspaced;
            continue;
        }
        fresh = *first == b' ';
        at += if unspaced { 3 } else { 1 };
    }
    found
}

/// In Arabic, "and" and "so" are written together with the word that follows.
fn find_arabic(table: &Table, text: &[u8]) -> Option<(usize, KeywordClass)> {
    let and = "و".as_bytes();
    let so = "ف".as_bytes();
    table.find(text).or_else(|| {
        let rest = text.strip_prefix(and).or_else(|| text.strip_prefix(so))?;
        table.find(rest).map(|(length, class)| (length + and.len(), class))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> (u32, u32, u32) {
        let mut folded = String::new();
        text.chars().chain([' ']).for_each(|c| fold(c, &mut folded));
        let found = count(&folded);
        (found.hard, found.technical, found.easy)
    }

    #[test]
    fn words_are_found_whatever_their_case_accents_and_endings() {
        assert_eq!(found("WHY?"), (1, 0, 0));
        assert_eq!(found("whyever"), (0, 0, 0));
        assert_eq!(found("Erklär' mir das Programm"), (1, 1, 0));
        assert_eq!(found("demuestralo: por que"), (2, 0, 0));
        assert_eq!(found("СРАВНИТЕ"), (1, 0, 0));
        assert_eq!(found("请证明"), (1, 0, 0));
        assert_eq!(found("なぜですか"), (1, 0, 0));
        assert_eq!(found("وقارن"), (1, 0, 0));
        assert_eq!(found("hi"), (0, 0, 1));
        assert_eq!(found(""), (0, 0, 0));
    }

    #[test]
    fn every_list_is_in_the_table() {
        assert!(TABLE.entries.len() > 1000);
        assert!(TABLE.entries.len() < usize::from(u16::MAX));
    }
}
