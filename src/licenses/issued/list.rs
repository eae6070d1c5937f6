//! Our own licences in a list, without keys.

use gatekeeper_filters::kernel::{LicenseId, UnixMs};

use super::{
    book::IssuedBook,
    record::{IssuedKind, IssuedLicense},
};

/// Which licences to list; all by default.
#[derive(Debug, Default)]
pub struct ListFilter {
    pub plan: Option<String>,
    /// `active`, `expired`, `disabled`, `refunded`, `revoked`.
    pub state: Option<String>,
}

/// One line.
#[derive(Debug)]
pub struct ListedLicense {
    pub id: LicenseId,
    pub license: IssuedLicense,
    pub plan: String,
    pub state: &'static str,
    /// The last request since the start of this gateway.
    pub seen: Option<UnixMs>,
    /// Its key was not shown yet.
    pub is_unseen: bool,
    pub devices: u64,
}

impl IssuedBook {
    /// The oldest first.
    pub fn list(&self, filter: &ListFilter) -> Vec<ListedLicense> {
        let now = UnixMs::now();
        let mut found: Vec<ListedLicense> = Vec::new();
        for (id, slot) in self.validator.memory_cache.all() {
            let Some(IssuedKind::License(license)) =
                slot.record.issued.as_ref().map(|issued| &issued.is)
            else {
                continue;
            };
            let plan = self.source.plan_of(license.price.as_deref(), &license.plan);
            let plan = plan.map_or(&*license.plan, |plan| &plan.name).to_owned();
            let state = match slot.record.revocation.revoked {
                true => "revoked",
                false => license.state(now),
            };
            let fits = filter.plan.as_ref().is_none_or(|wanted| *wanted == plan)
                && filter.state.as_ref().is_none_or(|wanted| wanted == state);
            if fits {
                let sealed = license.sealed.as_ref();
                found.push(ListedLicense {
                    id,
                    plan,
                    state,
                    seen: Some(slot.seen()).filter(|seen| seen.0 > 0),
                    is_unseen: sealed.is_some_and(|sealed| sealed.shown.is_none()),
                    devices: slot.record.active().count() as u64,
                    license: license.clone(),
                });
            }
        }
        found.sort_by_key(|listed| (listed.license.created, listed.id));
        found
    }

    /// Whether the configuration has any plan of this name.
    pub fn has_plan(&self, name: &str) -> bool {
        self.source.plan(name).is_some()
    }
}
