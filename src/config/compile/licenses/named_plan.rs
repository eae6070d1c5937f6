//! Plans by the names that sources of licences give them.

use std::sync::Arc;

use gatekeeper_filters::kernel::Plan;

use crate::config::diagnostics::{Diagnostics, Position, did_you_mean};

/// The plan of that name, or a problem at that place.
pub(super) fn named_plan(
    name: &str,
    plans: &[Arc<Plan>],
    (at, path): (Position, String),
    report: &mut Diagnostics,
) -> Option<Arc<Plan>> {
    let plan = plans.iter().find(|plan| &*plan.name == name).cloned();
    if plan.is_none() {
        let near = did_you_mean(name, plans.iter().map(|plan| &*plan.name));
        report.problem(at, path, format!("unknown plan `{name}`{near}"));
    }
    plan
}
