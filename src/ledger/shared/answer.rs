//! What the store answers to a reservation.

use gatekeeper_filters::kernel::UnixMs;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Granted {
        /// By the store's clock.
        now: UnixMs,
        /// `None` where nothing caps the output.
        output: Option<u64>,
        messages: Count,
        tokens: Count,
        role: Role,
    },
    /// The windows were not those of the store's clock.
    Clock(UnixMs),
    Places,
    Rate,
    Messages(Count),
    Tokens {
        count: Count,
        left: u64,
        needed: u64,
    },
    Busy,
    /// What this gateway had written is gone.
    Lost,
}

/// What a request is to the message that it shares by an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It has no id.
    Alone,
    /// Its group had no message: this one holds it.
    Owns,
    /// Another open request holds it.
    Shares,
    /// It was charged before.
    Paid,
}

/// Used and allowed, what the operator gave included; `limit` means nothing where the plan has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub used: u64,
    pub limit: u64,
}

impl Count {
    pub fn left(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

impl Answer {
    /// `None` for what no script of ours says.
    pub fn read(numbers: &[i64]) -> Option<(UnixMs, Answer)> {
        let [code, now, rest @ ..] = numbers else { return None };
        let now = UnixMs(u64::try_from(*now).ok()?);
        let at = |place: usize| rest.get(place).map(|number| (*number).max(0) as u64);
        let count = |used, limit| Some(Count { used: at(used)?, limit: at(limit)? });
        let answer = match code {
            0 => Answer::Granted {
                now,
                output: rest.first().filter(|cap| **cap >= 0).map(|cap| *cap as u64),
                messages: count(1, 2)?,
                tokens: count(3, 4)?,
                role: match at(5)? {
                    0 => Role::Alone,
                    1 => Role::Owns,
                    2 => Role::Shares,
                    _ => Role::Paid,
                },
            },
            1 => Answer::Clock(now),
            2 => Answer::Places,
            3 => Answer::Rate,
            4 => Answer::Messages(count(0, 1)?),
            5 => Answer::Tokens { count: count(0, 3)?, left: at(1)?, needed: at(2)? },
            6 => Answer::Busy,
            7 => Answer::Lost,
            _ => return None,
        };
        Some((now, answer))
    }

    /// Whether something stood in the way that is only presumed of a gateway, which may know better.
    pub fn has_presumed(numbers: &[i64]) -> bool {
        matches!(numbers, [4, _, _, _, 1] | [5, _, _, _, _, _, 1] | [6, _, 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_they_are_written() {
        let count = |used, limit| Count { used, limit };
        let now = UnixMs(5);
        let (messages, tokens) = (count(1, 50), count(90, 100));
        let granted = Answer::Granted { now, output: Some(9), messages, tokens, role: Role::Alone };
        assert_eq!(Answer::read(&[0, 5, 9, 1, 50, 90, 100, 0]), Some((now, granted)));
        let uncapped = Answer::read(&[0, 5, -1, 1, -1, 90, -1, 1]);
        let (messages, tokens) = (count(1, 0), count(90, 0));
        let owns = Answer::Granted { now, output: None, messages, tokens, role: Role::Owns };
        assert_eq!(uncapped, Some((now, owns)));
        let denied = Answer::Tokens { count: count(90, 100), left: 10, needed: 20 };
        assert_eq!(Answer::read(&[5, 5, 90, 10, 20, 100]), Some((now, denied)));
        assert_eq!(Answer::read(&[4, 5, 50, 50]), Some((now, Answer::Messages(count(50, 50)))));
        for nonsense in [&[][..], &[0], &[0, 5], &[9, 5], &[0, -5], &[5, 5, 90]] {
            assert_eq!(Answer::read(nonsense), None, "{nonsense:?}");
        }
    }
}
