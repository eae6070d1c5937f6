//! Licence keys of the file that could be guessed.

use secrecy::ExposeSecret;

use crate::config::{
    compile::field_reader::FieldReader,
    diagnostics::Diagnostics,
    settings::{LicenseSettings, LicenseSource, ProviderSettings},
};

/// Characters that a key must have after what it shares with another one. Ten of a buyer's own, of
/// 32 signs each, are 50 bits; the throttle of unknown keys does the rest.
const OWN: usize = 10;

/// Of those, so many that say something new: letters and digits that neither repeat the one before, nor count on from
/// it, nor follow as they followed before. Of ten random ones two in a thousand keys have fewer.
const TELLING: usize = 6;

/// A buyer who sees `BUYER-0001-ABCD` tries `BUYER-0002-....`. Not where nothing but the stand-in provider
/// could be had that way.
pub fn warn_of_guessable_keys(
    view: &FieldReader<'_>,
    licenses: &LicenseSettings,
    providers: &[ProviderSettings],
    report: &mut Diagnostics,
) {
    if providers.iter().all(|provider| provider.base.stand_in) {
        return;
    }
    let mut keys: Vec<String> = Vec::new();
    for source in &licenses.sources {
        let LicenseSource::Static(listed) = source else { continue };
        keys.extend(listed.iter().map(|listed| listed.key.expose_secret().to_uppercase()));
    }
    let guessable = count_guessable(&mut keys);
    if guessable == 0 {
        return;
    }
    let (count, verb) = match guessable {
        1 => ("1 licence key".to_owned(), "has"),
        many => (format!("{many} licence keys"), "have"),
    };
    let message = format!(
        "{count} {verb} fewer than {OWN} characters beyond what two keys share, or a pattern in their place, so that \
         others could be guessed; give each key {OWN} random characters of its own or more"
    );
    report.warn(view.at("sources"), view.path("sources"), message);
}

/// Sorted, the key that shares most with another one stands next to it.
fn count_guessable(keys: &mut [String]) -> usize {
    keys.sort_unstable();
    let shared = |one: &str, other: &str| {
        one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count()
    };
    let most_shared = |index: usize| {
        let before = index.checked_sub(1).map_or(0, |before| shared(&keys[before], &keys[index]));
        let after = keys.get(index + 1).map_or(0, |after| shared(&keys[index], after));
        before.max(after)
    };
    let is_guessable = |index: &usize| {
        let own: Vec<char> = keys[*index].chars().skip(most_shared(*index)).collect();
        own.len() < OWN || telling(&own) < TELLING
    };
    (0..keys.len()).filter(is_guessable).count()
}

/// How many characters say something new.
fn telling(own: &[char]) -> usize {
    let signs: Vec<u32> = own.iter().filter(|c| c.is_alphanumeric()).map(|c| *c as u32).collect();
    let is_new = |at: usize| {
        let Some(before) = at.checked_sub(1) else { return true };
        let known = signs[..at].windows(2).any(|pair| pair == &signs[before..=at]);
        signs[at].abs_diff(signs[before]) > 1 && !known
    };
    (0..signs.len()).filter(|at| is_new(*at)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guessable(keys: &[&str]) -> usize {
        count_guessable(&mut keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn keys_need_ten_characters_of_their_own() {
        assert_eq!(guessable(&["BUYER-0001-ABCD", "BUYER-0002-EFGH"]), 2);
        assert_eq!(guessable(&["JSTAR-7KQ2M9XW4T", "JSTAR-B3HN8VZ5RC"]), 0);
        assert_eq!(guessable(&["ACME-2026-7KQ2M9XW4T", "ACME-2026-B3HN8VZ5RC", "ACME-2026-B3"]), 2);
        assert_eq!(guessable(&["SHORTKEY1"]), 1);
        assert_eq!(guessable(&["LONGENOUGH1"]), 0);
        assert_eq!(guessable(&[]), 0);
    }

    #[test]
    fn a_pattern_is_no_character_of_its_own() {
        for key in [
            "aaaaaaaaaaaaaaaa",
            "abababababababab",
            "1111-2222-3333-4444",
            "0123456789012345",
            "ABCDEFGHIJKLMNOP",
            "passpasspasspass",
            "0000-0000-0000-0001",
            "----------------",
        ] {
            assert_eq!(guessable(&[key]), 1, "{key}");
        }
        assert_eq!(guessable(&["JSTAR-aaaaaaaaaaaa", "JSTAR-7KQ2M9XW4T"]), 1);
        for key in
            ["7f3a9c0e51d84b26", "Kx7-Qp2-Mz9-Lw4", "4096318275608413", "K7QM2XW9ZT", "1F0E2D9B7A"]
        {
            assert_eq!(guessable(&[&key.to_uppercase()]), 0, "{key}");
        }
    }
}
