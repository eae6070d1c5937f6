//! The message for a user whose conversation has reached a limit.

use crate::kernel::{
    Code, ConversationRefused, Plan, QuotaDetail, Rejection, UnixMs, reject::MAX_RETRY_AFTER,
};

use super::day::day;

pub fn reject(plan: &Plan, refused: ConversationRefused) -> Rejection {
    match refused {
        ConversationRefused::Rate { limit, resets_at } => {
            let wait = UnixMs::now().seconds_until(resets_at);
            let message = format!(
                "This conversation goes faster than {} messages a {}. Please wait a moment.",
                limit.count,
                limit.per.name()
            );
            if wait <= MAX_RETRY_AFTER {
                return Rejection::new(Code::ConversationTooFast, message).retry_after(wait);
            }
            limited(plan, message, ("conversation_rate", limit.count, resets_at))
        }
        ConversationRefused::Messages { limit, resets_at } => {
            let message = format!(
                "This conversation has had its {} messages of this {}. It can go on {}; other conversations can now.",
                limit.count,
                limit.per.name(),
                day(&resets_at.to_rfc3339())
            );
            limited(plan, message, ("conversation_messages", limit.count, resets_at))
        }
        ConversationRefused::Repeats { limit, resets_at } => {
            let message = format!(
                "The same message came more than {} in this conversation. Send another one, or the same one again {}.",
                if limit == 1 { "once".to_owned() } else { format!("{limit} times") },
                day(&resets_at.to_rfc3339())
            );
            limited(plan, message, ("conversation_repeats", u64::from(limit), resets_at))
        }
    }
}

fn limited(
    plan: &Plan,
    message: String,
    (kind, limit, resets_at): (&'static str, u64, UnixMs),
) -> Rejection {
    let quota = Some(QuotaDetail { kind, limit, used: limit, resets_at });
    Rejection { quota, ..Rejection::new(Code::ConversationLimited, message) }
        .upgrade_url(plan.upgrade_url.clone())
}
