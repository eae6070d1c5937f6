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
        "{count} {verb} fewer than {OWN} characters beyond what two keys share, so that others could be \
         guessed; give each key {OWN} random characters of its own or more"
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
    (0..keys.len()).filter(|index| keys[*index].chars().count() - most_shared(*index) < OWN).count()
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
}
