//! Lists of licences from another shop.

use gatekeeper_filters::kernel::UnixMs;
use serde::Deserialize;
use serde_json::{Value, json};

use super::args;
use crate::{
    ledger::OperatorActionKind,
    license_admin::{ApiError, LicenseAdmin, random_id},
    licenses::issued::{
        ImportOutcome, ImportRow, ImportedDevice, ImportedIds, IssuedBook, IssuedStatus,
    },
};

/// Rows of one order.
const MOST: usize = 500;
const LONGEST_KEY: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportOrder {
    rows: Vec<RowArgs>,
    #[serde(default)]
    dry_run: bool,
    id: Option<String>,
}

/// A row as it stands in the list: all texts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct RowArgs {
    line: u64,
    key: String,
    plan: String,
    until: String,
    status: String,
    max_devices: String,
    store_id: String,
    product_id: String,
    variant_id: String,
    order_id: String,
    created_at: String,
    activations: Vec<DeviceArgs>,
}

/// An id alone, or with what its buyer calls the device.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum DeviceArgs {
    Id(String),
    Named { id: String, name: String },
}

impl DeviceArgs {
    fn read(&self) -> ImportedDevice {
        match self {
            DeviceArgs::Id(id) => ImportedDevice { id: id.clone(), name: None },
            DeviceArgs::Named { id, name } => ImportedDevice {
                id: id.clone(),
                name: Some(name.clone()).filter(|n| !n.is_empty()),
            },
        }
    }
}

impl RowArgs {
    fn read(&self, issued: &IssuedBook) -> Result<ImportRow, String> {
        let key = self.key.trim();
        let fits =
            (8..=LONGEST_KEY).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
        if !fits {
            return Err(format!("key: expected 8 to {LONGEST_KEY} printable ASCII characters"));
        }
        if !issued.has_plan(&self.plan) {
            return Err(format!("plan: there is no plan `{}`", self.plan));
        }
        let date =
            |name: &str, text: &str, of: fn(&str) -> Result<UnixMs, ApiError>| match text.trim() {
                "" => Ok(None),
                text => of(text)
                    .map(Some)
                    .map_err(|_| format!("{name}: expected a date like 2027-01-31")),
            };
        let number = |name: &str, text: &str| match text.trim() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| format!("{name}: expected a number")),
        };
        let status = match self.status.trim() {
            // Lemon Squeezy's word for a licence without a device.
            "" | "inactive" => IssuedStatus::Active,
            word => IssuedStatus::parse(word)
                .ok_or("status: expected active, inactive, expired, disabled or refunded")?,
        };
        Ok(ImportRow {
            key: key.to_owned(),
            plan: self.plan.clone(),
            until: date("until", &self.until, args::moment)?,
            status,
            max_devices: number("max_devices", &self.max_devices)?,
            ids: ImportedIds {
                store: number("store_id", &self.store_id)?,
                product: number("product_id", &self.product_id)?,
                variant: number("variant_id", &self.variant_id)?,
                order: number("order_id", &self.order_id)?,
            },
            created: date("created_at", &self.created_at, args::beginning)?,
            activations: self.activations.iter().map(DeviceArgs::read).collect(),
        })
    }
}

impl LicenseAdmin {
    pub(super) async fn import(
        &self,
        issued: &IssuedBook,
        args: ImportOrder,
    ) -> Result<Value, ApiError> {
        if args.rows.len() > MOST {
            return Err(ApiError::invalid(format!("rows: {MOST} at most in one order")));
        }
        let id = args.id.map_or_else(random_id, Ok)?;
        let read: Vec<(u64, Result<ImportRow, String>)> =
            args.rows.iter().map(|row| (row.line, row.read(issued))).collect();
        let good: Vec<ImportRow> = read.iter().filter_map(|(_, row)| row.clone().ok()).collect();
        let outcomes = issued.import(&good, args.dry_run).await?;
        let mut outcomes = outcomes.into_iter();
        let mut rows = Vec::with_capacity(read.len());
        for (line, row) in &read {
            rows.push(match row {
                Err(why) => json!({ "line": line, "outcome": "wrong", "why": why }),
                Ok(row) => {
                    let Some((license, outcome)) = outcomes.next() else { continue };
                    if !args.dry_run && outcome != ImportOutcome::Same {
                        let detail = format!("plan {}, {}", row.plan, row.status.name());
                        let kind = OperatorActionKind::Import;
                        self.record(kind, license, (&id, ""), &detail)?;
                    }
                    json!({
                        "line": line, "outcome": outcome.name(), "license": license.to_hex(),
                        "plan": row.plan, "status": row.status.name(),
                        "until": row.until.map(|at: UnixMs| at.to_rfc3339().to_string()),
                        "devices": row.activations.len(),
                    })
                }
            });
        }
        let done = json!({ "action": "import", "id": id, "dry_run": args.dry_run });
        Ok(json!({ "licenses": rows, "done": done }))
    }
}
