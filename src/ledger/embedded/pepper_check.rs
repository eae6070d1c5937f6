//! The pepper under which licence keys become licence ids, and its guard.
//!
//! Every counter is kept under a licence id. With another pepper the same key has another id, so a
//! pepper that changed unnoticed would give every buyer a fresh quota.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::ledger::sqlite::Database;

pub type PepperCheck = Zeroizing<[u8; 32]>;

/// Key of the store's own pepper in `meta`.
const OWN: &str = "pepper";
/// Key of the check value of a configured pepper in `meta`.
const CHECK: &str = "pepper_check";
const LABEL: &[u8] = b"gatekeeper pepper check v1";

#[derive(Debug, thiserror::Error)]
pub enum PepperMismatch {
    #[error(
        "the pepper differs from the one this store was used with: licence ids would change and \
         every buyer's used quota would read 0. Set vault.pepper (or vault.kek, if the pepper \
         comes from it) back to its former value, or begin with a new store.path"
    )]
    Differs,
    #[error(
        "this store was begun without a vault and keeps its own pepper; the vault brings another \
         one: licence ids would change and every buyer's used quota would read 0. Set vault.pepper \
         to the store's pepper (table meta, key pepper), or begin with a new store.path"
    )]
    StoreHasItsOwn,
    #[error(
        "this store was used with the pepper of a vault, and now there is no vault: licence ids \
         would change and every buyer's used quota would read 0. Put the vault section back, or \
         begin with a new store.path"
    )]
    Missing,
    #[error("no random bytes for a pepper: {0}")]
    Random(getrandom::Error),
    #[error("the store's pepper cannot be read or written: {0}")]
    Store(#[from] rusqlite::Error),
}

/// The pepper to use: the configured one, checked, or the store's own, made when missing.
pub fn settle(db: &Database, configured: Option<&[u8; 32]>) -> Result<PepperCheck, PepperMismatch> {
    let own = db.secret(OWN)?;
    let check = db.secret(CHECK)?;
    match (configured, own, check) {
        (Some(pepper), None, None) => {
            db.keep_secret(CHECK, &check_value(pepper))?;
            Ok(Zeroizing::new(*pepper))
        }
        (Some(pepper), None, Some(check)) if *check == check_value(pepper) => {
            Ok(Zeroizing::new(*pepper))
        }
        (Some(pepper), Some(own), _) if *own == *pepper => Ok(own),
        (Some(_), None, Some(_)) => Err(PepperMismatch::Differs),
        (Some(_), Some(_), _) => Err(PepperMismatch::StoreHasItsOwn),
        (None, Some(own), _) => Ok(own),
        (None, None, Some(_)) => Err(PepperMismatch::Missing),
        (None, None, None) => {
            let mut pepper = Zeroizing::new([0; 32]);
            getrandom::fill(&mut *pepper).map_err(PepperMismatch::Random)?;
            db.keep_secret(OWN, &pepper)?;
            Ok(pepper)
        }
    }
}

/// Distinguishes two peppers and reveals nothing else about them.
fn check_value(pepper: &[u8; 32]) -> [u8; 32] {
    // HMAC fills a short key up with zeros; a whole block is a key that cannot be refused.
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(pepper);
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    mac.update(LABEL);
    mac.finalize().into_bytes().into()
}
