//! Text without what doesn't count: case, accents, punctuation.

/// Written without spaces between words: kana and ideographs.
pub fn is_unspaced(character: char) -> bool {
    matches!(u32::from(character), 0x3040..=0x30FF | 0x3400..=0x9FFF | 0xF900..=0xFAFF)
}

/// Bases of U+00C0 to U+00FF; a space stands for what is no letter.
const LATIN: &[u8; 64] = b"aaaaaaaceeeeiiiidnooooo ouuuuytsaaaaaaaceeeeiiiidnooooo ouuuuyty";

/// A character without case and accents. All that is neither letter nor digit is a space, `None` what
/// only marks another character.
#[inline]
pub fn fold(character: char) -> Option<char> {
    Some(match character {
        'a'..='z' | '0'..='9' | 'а'..='я' | '\u{4E00}'..='\u{9FFF}' => character,
        'A'..='Z' => character.to_ascii_lowercase(),
        // Arabic vowel signs and the lengthening stroke; combining accents.
        '\u{64B}'..='\u{652}' | '\u{640}' | '\u{300}'..='\u{36F}' => return None,
        'أ' | 'إ' | 'آ' => 'ا',
        'ى' => 'ي',
        'Ё' | 'ё' => 'е',
        'А'..='Я' => char::from_u32(u32::from(character) + 32).unwrap_or(character),
        '\u{C0}'..='\u{FF}' => char::from(LATIN[u32::from(character) as usize - 0xC0]),
        _ if character.is_ascii() || !character.is_alphanumeric() => ' ',
        _ => character,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_accents_and_punctuation_do_not_count() {
        let folded = |text: &str| text.chars().filter_map(fold).collect::<String>();
        assert_eq!(folded("Erklär' MIR, por qué?"), "erklar  mir  por que ");
        assert_eq!(folded("СРАВНИТЕ Ёлку"), "сравните елку");
        assert_eq!(folded("أَيْنَ"), "اين");
        assert_eq!(folded("请证明なぜ"), "请证明なぜ");
    }
}
