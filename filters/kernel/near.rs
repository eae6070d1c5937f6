//! The known name that a misspelt one is near to.

/// Longer names are not compared, and the number of names is limited: a generated file must not make this
/// slow.
const LONGEST: usize = 128;
const MOST: usize = 2000;

/// The nearest known name within a third of its length; one letter off is always near enough.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > LONGEST {
        return None;
    }
    let name = name.to_lowercase();
    known
        .into_iter()
        .take(MOST)
        .filter(|known| known.len() <= LONGEST)
        .map(|known| (strsim::damerau_levenshtein(&known.to_lowercase(), &name), known))
        .filter(|(distance, known)| *distance <= (known.chars().count() / 3).max(1))
        .min()
        .map(|(_, known)| known)
}
