//! Counts of requests by how they ended.

use serde_json::{Map, Value, json};

/// Requests kept.
pub const KEPT: usize = 50;

/// Totals as they stand in `/status` and in every event of a feed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub total: u64,
    pub success: u64,
    pub failed: u64,
    pub refused: u64,
}

impl Totals {
    /// As members of an object, with the share of those that were whole among those that could have been.
    pub fn put_into(self, members: &mut Map<String, Value>) {
        let judged = self.success + self.failed;
        let rate = (judged > 0).then(|| self.success as f64 / judged as f64);
        members.insert("total".into(), json!(self.total));
        members.insert("success".into(), json!(self.success));
        members.insert("failed".into(), json!(self.failed));
        members.insert("refused".into(), json!(self.refused));
        members.insert("success_rate".into(), json!(rate));
    }
}
