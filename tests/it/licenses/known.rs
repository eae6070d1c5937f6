//! Licences a gateway knows already: rows in the store of one that is not running.

use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use rusqlite::Connection;
use sha2::Sha256;

use crate::support::Gateway;

/// HMAC-SHA256 in hexadecimal digits.
pub fn hmac(secret: &[u8], message: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the store knows of licence `model`, it now knows of all these keys.
fn copy(store: &Path, model: &str, keys: &[String]) {
    let mut db = Connection::open(store).unwrap();
    let pepper: Vec<u8> =
        db.query_row("SELECT value FROM meta WHERE key = 'pepper'", [], |row| row.get(0)).unwrap();
    let id = |key: &str| hmac(&pepper, key.trim().to_ascii_uppercase().as_bytes());
    let record: String = db
        .query_row("SELECT record FROM licenses WHERE license = ?1", [id(model)], |row| row.get(0))
        .expect("the store knows the licence");
    let change = db.transaction().unwrap();
    for key in keys {
        change
            .execute("INSERT INTO licenses (license, record) VALUES (?1, ?2)", [&id(key), &record])
            .unwrap();
    }
    change.commit().unwrap();
}

/// How many licences the store of a running gateway knows.
pub fn licenses(store: &Path) -> i64 {
    let db = Connection::open(store).unwrap();
    db.query_row("SELECT count(*) FROM licenses", [], |row| row.get(0)).unwrap()
}

/// Ends the gateway, which knows `model` from its shop, and starts it again knowing all `keys`.
pub async fn restart_knowing(gateway: &mut Gateway, model: &str, keys: &[String]) {
    gateway.signal(rustix::process::Signal::TERM);
    gateway.exited(std::time::Duration::from_secs(5)).await;
    copy(&gateway.store(), model, keys);
    gateway.restart().await;
}
