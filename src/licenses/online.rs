//! One question to one shop, outside of any gateway: for `check --online`.

use super::shop_client::ShopClient;
use crate::{
    config::settings::ShopAccount,
    shops::{Asked, ShopLicense, ShopReply, ShopSource, Status},
    vault::KeyedHash,
};

/// A key, and an id, that no shop ever made.
const KEY: &str = "00000000-0000-0000-0000-000000000000";
const ID: &str = "gatekeeper-check";

/// A licence of that id.
pub(super) fn unknown_license(source: &ShopSource) -> ShopLicense {
    ShopLicense { handle: Some(ID.into()), ..ShopLicense::new(source.shop, Status::Active) }
}

/// What a shop knows nothing of. With a credential of ours a shop that can be asked by the id of a licence is asked
/// by one, because only that question needs the credential.
pub(super) fn made_up<'a>(
    source: &ShopSource,
    subject: &'a str,
    unknown: &'a ShopLicense,
) -> Asked<'a> {
    let by_id = source.shop.constants().checks_by_id && source.api_key.is_some();
    Asked { key: KEY, subject, known: by_id.then_some(unknown), instance: Some(ID) }
}

/// Asks about a made-up key.
///
/// # Errors
/// TLS can't be set up.
pub async fn ask_once(account: &ShopAccount) -> anyhow::Result<ShopReply> {
    let source = &account.source;
    let (unknown, subjects) = (unknown_license(source), source.shop.subjects(source));
    let subject = subjects.first().map(|subject| &**subject).unwrap_or_default();
    let asked = made_up(source, subject, &unknown);
    let Some(request) = source.shop.request(source, &asked) else {
        return Ok(ShopReply::NeedsDevice);
    };
    Ok(match ShopClient::new()?.send(&account.base, &request).await {
        // What is hashed here is kept nowhere.
        Ok(response) => source.shop.read(source, &asked, &response, &KeyedHash::new(&[0; 32])),
        Err(trouble) => ShopReply::Unknown(trouble),
    })
}
