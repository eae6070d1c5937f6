//! What texts weigh, as `dialect` weighs them in a body of an app.

use std::ops::{Add, AddAssign};

use gatekeeper_filters::{
    kernel::{Estimate, Input},
    meter::estimate,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weight {
    pub text: Estimate,
    pub bytes: u64,
}

impl Weight {
    pub fn of(text: &str) -> Self {
        Self { text: estimate::text(text), bytes: text.len() as u64 }
    }

    /// One message with this text.
    #[must_use]
    pub fn as_message(self) -> Self {
        self + Self { text: Estimate::of_tokens(estimate::MESSAGE_TOKENS), bytes: 0 }
    }

    /// All of a request, with what surrounds its messages.
    pub fn into_input(self) -> Input {
        let text = self.text + Estimate::of_tokens(estimate::REQUEST_TOKENS);
        Input { text, bytes: self.bytes, ..Input::default() }
    }
}

impl Add for Weight {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { text: self.text + other.text, bytes: self.bytes + other.bytes }
    }
}

impl AddAssign for Weight {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
