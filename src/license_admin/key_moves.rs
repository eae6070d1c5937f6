//! Licences move to other keys.

use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    ApiError, ApiResponse, LicenseAdmin,
    move_order::{MoveOrder, MovePair, NewName},
};
use crate::{
    ledger::{self, OperatorActionKind},
    licenses::{
        ConfiguredLicenses,
        key_move::{MoveOutcome, MoveTarget, Replacement},
        revocation::LicenseReport,
    },
    shops::{self, signed},
};

/// How long requests of a new key that were begun before the move are waited for.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);
/// How long another gateway may take a new key for a licence of its own before it hears of the move.
const NEWS: std::time::Duration = std::time::Duration::from_secs(1);

/// Where a licence moves, and at which source that is.
struct Destination {
    target: MoveTarget,
    source: &'static str,
}

impl LicenseAdmin {
    /// Moves each pair, one after the other; those that are done stay done when a later one fails.
    pub(super) async fn move_keys(
        &self,
        book: &ConfiguredLicenses,
        body: &[u8],
    ) -> Result<ApiResponse, ApiError> {
        let order = MoveOrder::read(body)?;
        let mut moves = Vec::with_capacity(order.pairs.len());
        let mut moved = Vec::new();
        for pair in &order.pairs {
            moves.push(match self.move_one(book, &order, pair, &mut moved).await? {
                Ok(done) => done,
                Err(why) => json!({ "result": "refused", "why": why }),
            });
        }
        if self.shared.is_some() && !moved.is_empty() {
            tokio::time::sleep(NEWS).await;
            for (account, new) in &moved {
                self.carry(account, new).await?;
            }
        }
        let body = json!({ "moves": moves, "dry_run": order.dry_run });
        Ok(ApiResponse { status: StatusCode::OK, body })
    }

    /// What became of one pair, or why it can't be moved. `moved` gets the licence, and the new key if that is
    /// known.
    async fn move_one(
        &self,
        book: &ConfiguredLicenses,
        order: &MoveOrder,
        pair: &MovePair,
        moved: &mut Vec<(LicenseId, LicenseReport)>,
    ) -> Result<Result<Value, String>, ApiError> {
        let (now, validator) = (UnixMs::now(), &book.validator);
        let old = book.id(&pair.old, now);
        let place = match destination(book, &pair.new, now).await {
            Ok(place) => place,
            Err(why) => return Ok(Err(why)),
        };
        let say = order.say.clone().unwrap_or_else(|| sentence(place.source));
        let accepted_until = order.accept_until.unwrap_or_default();
        let wanted = Replacement { by: place.target.id, accepted_until, say };
        let outcome = match validator.may_move(&old, &place.target, &wanted) {
            Ok(outcome) => outcome,
            Err(why) => return Ok(Err(why.to_string())),
        };
        let account = validator.account(&old);
        let is_known =
            validator.is_known(&old) || self.store.last_use(&account).ok().flatten().is_some();
        let mut done = json!({
            "result": if outcome == MoveOutcome::Already { "already" } else { "moved" },
            "license": account.to_hex(), "source": place.source, "used_here": is_known,
        });
        if order.dry_run {
            return Ok(Ok(done));
        }
        let before = book.find_here(place.target.id).await;
        // Written again where it was so already: a first time may not have reached the disk, or the others.
        if !validator.move_key(old, place.target, wanted).await {
            return Err(not_written());
        }
        // What it used by itself, when it is moved again, too: requests may have been too late for the first time.
        let own = before.filter(|new| new.key == place.target.id && new.key != account);
        let carried = match &own {
            Some(new) => self.carry(&account, new).await?,
            None => Carried::Nothing,
        };
        moved.extend(own.map(|new| (account, new)));
        done["carried"] = match carried {
            Carried::Nothing => Value::Null,
            Carried::Used([messages, tokens]) => json!({ "messages": messages, "tokens": tokens }),
            Carried::Busy => json!("busy"),
        };
        if outcome == MoveOutcome::Moved {
            self.note_move(&account, &place, order)?;
        }
        Ok(Ok(done))
    }

    /// What the new key had used by itself counts on the licence that it continues from now on.
    async fn carry(&self, account: &LicenseId, new: &LicenseReport) -> Result<Carried, ApiError> {
        let limits = new.plan.as_ref().map(|plan| (plan.messages, plan.tokens));
        let (messages, tokens) = limits.unwrap_or_default();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let used = loop {
            let used = match &self.shared {
                Some(shared) => shared.overview(&new.key, messages, tokens).await.ok(),
                None => self.store.overview(&new.key, messages, tokens, UnixMs::now()).ok(),
            };
            match used {
                Some(used) if used.open == 0 => break used,
                _ if tokio::time::Instant::now() >= deadline => return Ok(Carried::Busy),
                _ => tokio::time::sleep(LOOK).await,
            }
        };
        let amounts = [used.balance.messages.used, used.balance.tokens.used];
        if amounts == [0, 0] {
            return Ok(Carried::Nothing);
        }
        // Named by all that was ever settled there: carried again after a failure, it counts once.
        let settled = [amounts[0] + used.messages.forgiven, amounts[1] + used.tokens.forgiven];
        let id = format!("carry-{}-{}-{}", short(&new.key), settled[0], settled[1]);
        let order =
            ledger::AdjustRequest { license: *account, id: &id, note: "", messages, tokens };
        let of_new = ledger::AdjustRequest { license: new.key, ..order };
        match &self.shared {
            Some(shared) => {
                shared.carry(&order, amounts).await?;
                shared.reset(&of_new).await?;
            }
            None => {
                self.store.carry(&order, amounts, UnixMs::now())?;
                self.store.reset(&of_new, UnixMs::now())?;
            }
        }
        Ok(Carried::Used(amounts))
    }

    fn note_move(
        &self,
        account: &LicenseId,
        place: &Destination,
        order: &MoveOrder,
    ) -> Result<(), ApiError> {
        let detail = match order.accept_until {
            Some(until) => {
                format!("to {}, the old key is taken until {}", place.source, until.to_rfc3339())
            }
            None => format!("to {}, the old key is refused", place.source),
        };
        let id = format!(
            "move-{}-{}",
            short(&place.target.id),
            order.accept_until.unwrap_or_default().0
        );
        let wanted = ledger::AdjustRequest {
            license: *account,
            id: &id,
            note: &order.note,
            messages: None,
            tokens: None,
        };
        if self.store.note(OperatorActionKind::Move, &wanted, &detail, UnixMs::now())? {
            self.log(OperatorActionKind::Move, &wanted);
        }
        Ok(())
    }
}

enum Carried {
    Nothing,
    Used([u64; 2]),
    /// Requests of the new key that began before the move still run.
    Busy,
}

async fn destination(
    book: &ConfiguredLicenses,
    new: &NewName,
    now: UnixMs,
) -> Result<Destination, String> {
    let validator = &book.validator;
    let plain = |id| MoveTarget { id, pending: None };
    match new {
        NewName::Key(key) => {
            let source = book.source_of(key, now).ok_or(
                "no source of this configuration has keys of the new key's shape; add its shop to \
                 licenses.sources first",
            )?;
            Ok(Destination { target: plain(book.id(key, now)), source })
        }
        NewName::Id { source, .. } if !book.has_source(source) => {
            Err(format!("there is no source `{source}` in licenses.sources"))
        }
        NewName::Id { source: signed::NAME, id } => {
            let id = validator.hasher.signed(signed::NAME, id);
            Ok(Destination { target: plain(id), source: signed::NAME })
        }
        NewName::Id { source, id } => {
            if !shops::by_name(source).is_some_and(|shop| shop.constants().names_licenses) {
                return Err(format!("{source} names no licence by an id here; give the new key"));
            }
            let reference = validator.hasher.order(source, &format!("license:{id}"));
            let pending = validator.hasher.moved(&reference);
            let known = validator.key_of(&reference).await;
            let target = MoveTarget { id: known.unwrap_or(pending), pending: Some(pending) };
            Ok(Destination { target, source })
        }
    }
}

/// The message for a buyer who still uses the old key.
fn sentence(source: &str) -> String {
    let from = shops::by_name(source).map_or("the seller", |shop| shop.constants().title);
    format!(
        "This licence key was replaced by a new one. You find the new key in the e-mail from {from}; \
         enter it in the app."
    )
}

fn short(id: &LicenseId) -> String {
    let mut hex = id.to_hex();
    hex.truncate(16);
    hex
}

fn not_written() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "store_unavailable",
        "The database did not take a move. Look at the disk and run it again: what was moved stays \
         moved.",
    )
}
