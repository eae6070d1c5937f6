//! A key at rest: sealed under the KEK for one licence and one order, until it was shown.

use std::time::Duration;

use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use secrecy::SecretString;

use super::record::{IssuedLicense, SealedKey};
use crate::vault::{self, SealError, VaultKeys};

/// How long it stays after it was first shown.
const SHOWN: Duration = Duration::from_secs(24 * 3600);
/// How long it stays in any case.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// A place that no provider's key can have: names of providers hold no line feed.
fn place(license: &LicenseId) -> String {
    format!("licence\n{}", license.to_hex())
}

pub fn seal(
    vault: &VaultKeys,
    license: &LicenseId,
    order: &str,
    key: &str,
    now: UnixMs,
) -> Result<SealedKey, SealError> {
    let secret = SecretString::from(key.to_owned());
    let text = vault::seal(&vault.kek, &place(license), order, &secret)?;
    Ok(SealedKey { text, order: order.to_owned(), made: now, shown: None })
}

/// The key, as long as it is there, for the order that made it.
pub fn open(
    vault: &VaultKeys,
    license: &LicenseId,
    sealed: &SealedKey,
    order: &str,
    now: UnixMs,
) -> Option<SecretString> {
    if is_over(sealed, now) || sealed.order != order {
        return None;
    }
    let opened = vault::open(vault, &place(license), order, &sealed.text);
    opened.inspect_err(|why| log::error!("licences: a key that was not shown yet {why}")).ok()
}

fn is_over(sealed: &SealedKey, now: UnixMs) -> bool {
    let shown = sealed.shown.is_some_and(|shown| shown.plus(SHOWN) <= now);
    shown || sealed.made.plus(LONGEST) <= now
}

/// The licence without what is to be kept no longer, and with its key under the KEK of now; `None` where nothing is
/// to be done.
pub fn tidy(
    vault: &VaultKeys,
    id: &LicenseId,
    license: &IssuedLicense,
    now: UnixMs,
) -> Option<IssuedLicense> {
    let mut next = license.clone();
    next.codes.retain(|code| code.until > now);
    next.sealed = next.sealed.filter(|sealed| !is_over(sealed, now));
    let old_kek = |sealed: &&SealedKey| {
        vault::Sealed::parse(&sealed.text).is_ok_and(|sealed| sealed.kek_id != vault.kek.id())
    };
    if let Some(sealed) = next.sealed.as_ref().filter(old_kek)
        && let Some(key) = open(vault, id, sealed, &sealed.order, now)
    {
        use secrecy::ExposeSecret;
        let again = seal(vault, id, &sealed.order, key.expose_secret(), now).ok()?;
        next.sealed = Some(SealedKey { made: sealed.made, shown: sealed.shown, ..again });
    }
    (next != *license).then_some(next)
}

/// How long a buyer may stay at `/claim` with one link.
const VISIT: Duration = Duration::from_secs(3600);
/// The place of a visit's cookie; no licence has it.
const VISIT_PLACE: (&str, &str) = ("licence\nvisit", "claim");

impl super::book::IssuedBook {
    /// Seals the id of a checkout session for a cookie.
    pub fn seal_visit(&self, session: &str, now: UnixMs) -> Option<String> {
        let secret = SecretString::from(format!("{}.{session}", now.plus(VISIT).0));
        vault::seal(&self.vault.kek, VISIT_PLACE.0, VISIT_PLACE.1, &secret).ok()
    }

    /// The id in a cookie that is not over.
    pub fn open_visit(&self, cookie: &str, now: UnixMs) -> Option<String> {
        use secrecy::ExposeSecret;
        let opened = vault::open(&self.vault, VISIT_PLACE.0, VISIT_PLACE.1, cookie).ok()?;
        let (until, session) = opened.expose_secret().split_once('.')?;
        let until: u64 = until.parse().ok()?;
        (now.0 < until).then(|| session.to_owned())
    }
}
