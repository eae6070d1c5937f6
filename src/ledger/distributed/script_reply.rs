//! Decodes the reply of the reservation script.

use gatekeeper_filters::kernel::{ConversationLimits, ConversationRefused, Demand, Denied, UnixMs};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptReply {
    Granted {
        /// By the store's clock.
        now: UnixMs,
        /// `None` where nothing caps the output.
        output: Option<u64>,
        messages: LimitCount,
        tokens: LimitCount,
        role: MessageRole,
    },
    /// The windows do not match the store's clock.
    Clock(UnixMs),
    Places,
    Rate,
    Messages(LimitCount),
    Tokens {
        count: LimitCount,
        left: u64,
        needed: u64,
    },
    Busy,
    Conversation {
        limit: ConversationLimit,
        resets_at: UnixMs,
    },
    /// Data of this gateway is missing in the store.
    Lost,
}

/// Which limit of a conversation is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConversationLimit {
    Rate,
    Messages,
    Repeats,
}

impl ConversationLimit {
    pub fn refused(self, demand: &Demand, resets_at: UnixMs) -> Denied {
        let Some(limits) = demand.conversation.map(|asked| asked.limits) else {
            return Denied::StoreDown;
        };
        let refused = match (self, limits) {
            (Self::Rate, ConversationLimits { rate: Some(limit), .. }) => {
                ConversationRefused::Rate { limit, resets_at }
            }
            (Self::Messages, ConversationLimits { messages: Some(limit), .. }) => {
                ConversationRefused::Messages { limit, resets_at }
            }
            (Self::Repeats, ConversationLimits { repeats: Some(limit), .. }) => {
                ConversationRefused::Repeats { limit, resets_at }
            }
            _ => return Denied::StoreDown,
        };
        Denied::Conversation(refused)
    }
}

/// The role of a request for the message that it shares by an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageRole {
    /// It has no id.
    Alone,
    /// The first of its group: it holds the message.
    Owns,
    /// Another open request holds the message.
    Shares,
    /// The message was charged before.
    Paid,
}

/// Used and allowed, operators' adjustments included; `limit` is meaningless where the plan has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitCount {
    pub used: u64,
    pub limit: u64,
}

impl LimitCount {
    pub fn left(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

impl ScriptReply {
    /// `None` for anything that the scripts never reply.
    pub fn read(numbers: &[i64]) -> Option<(UnixMs, ScriptReply)> {
        let [code, now, rest @ ..] = numbers else { return None };
        let now = UnixMs(u64::try_from(*now).ok()?);
        let at = |place: usize| rest.get(place).map(|number| (*number).max(0) as u64);
        let count = |used, limit| Some(LimitCount { used: at(used)?, limit: at(limit)? });
        let answer = match code {
            0 => ScriptReply::Granted {
                now,
                output: rest.first().filter(|cap| **cap >= 0).map(|cap| *cap as u64),
                messages: count(1, 2)?,
                tokens: count(3, 4)?,
                role: match at(5)? {
                    0 => MessageRole::Alone,
                    1 => MessageRole::Owns,
                    2 => MessageRole::Shares,
                    _ => MessageRole::Paid,
                },
            },
            1 => ScriptReply::Clock(now),
            2 => ScriptReply::Places,
            3 => ScriptReply::Rate,
            4 => ScriptReply::Messages(count(0, 1)?),
            5 => ScriptReply::Tokens { count: count(0, 3)?, left: at(1)?, needed: at(2)? },
            6 => ScriptReply::Busy,
            7 => ScriptReply::Lost,
            8 => ScriptReply::Conversation {
                limit: match at(0)? {
                    1 => ConversationLimit::Rate,
                    2 => ConversationLimit::Messages,
                    _ => ConversationLimit::Repeats,
                },
                resets_at: UnixMs(at(1)?),
            },
            _ => return None,
        };
        Some((now, answer))
    }

    /// Whether the refusal rests on usage presumed of a gateway, whose own figure may be lower.
    pub fn has_presumed(numbers: &[i64]) -> bool {
        matches!(numbers, [4, _, _, _, 1] | [5, _, _, _, _, _, 1] | [6, _, 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_they_are_written() {
        let count = |used, limit| LimitCount { used, limit };
        let now = UnixMs(5);
        let (messages, tokens) = (count(1, 50), count(90, 100));
        let granted = ScriptReply::Granted {
            now,
            output: Some(9),
            messages,
            tokens,
            role: MessageRole::Alone,
        };
        assert_eq!(ScriptReply::read(&[0, 5, 9, 1, 50, 90, 100, 0]), Some((now, granted)));
        let uncapped = ScriptReply::read(&[0, 5, -1, 1, -1, 90, -1, 1]);
        let (messages, tokens) = (count(1, 0), count(90, 0));
        let owns =
            ScriptReply::Granted { now, output: None, messages, tokens, role: MessageRole::Owns };
        assert_eq!(uncapped, Some((now, owns)));
        let denied = ScriptReply::Tokens { count: count(90, 100), left: 10, needed: 20 };
        assert_eq!(ScriptReply::read(&[5, 5, 90, 10, 20, 100]), Some((now, denied)));
        assert_eq!(
            ScriptReply::read(&[4, 5, 50, 50]),
            Some((now, ScriptReply::Messages(count(50, 50))))
        );
        for nonsense in [&[][..], &[0], &[0, 5], &[9, 5], &[0, -5], &[5, 5, 90]] {
            assert_eq!(ScriptReply::read(nonsense), None, "{nonsense:?}");
        }
    }
}
