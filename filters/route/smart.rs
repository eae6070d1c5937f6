//! Scores how hard a request is; a smart model sends it to its simple or its complex tier accordingly.
//!
//! A pure function of the request, without calls or state, and with bounded work: 1.5 KiB of the user's
//! text, however long the request. The hardest of the user's turns decides: the last one, the first one,
//! which sets the subject, and those between as far as the bound reaches. So a conversation that began hard
//! stays with its model, and with the provider's cache of it.

mod features;
mod hashed_terms;
mod keywords;
mod languages;
mod last_turn;
mod length;
mod model_weights;
mod prompt;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod training;

use std::borrow::Cow;

use self::{
    features::READ,
    prompt::{Effort, PromptText},
};
use crate::kernel::{ModelRequest, Score};

/// Bytes read of a turn that is not the last one.
const EARLIER: usize = READ / 4;
/// Bytes read of all those together: a request waits for this, however long its conversation is.
const BUDGET: usize = READ / 2;

pub fn score(ask: &ModelRequest) -> Score {
    let prompt = PromptText::read(ask);
    likelihood(hardest(&prompt.turns) + around(&prompt))
}

/// Evidence of the hardest turn that the budget reaches.
fn hardest(turns: &[Cow<'_, str>]) -> f32 {
    let mut budget = BUDGET;
    let mut hardest: Option<f32> = None;
    for (place, turn) in turns.iter().enumerate() {
        let limit = if place == 0 { READ } else { EARLIER.min(budget) };
        let evidence = features::evidence(turn, limit);
        hardest = Some(hardest.map_or(evidence, |so_far| so_far.max(evidence)));
        if place > 0 {
            budget -= turn.len().min(limit);
        }
        if budget == 0 {
            break;
        }
    }
    hardest.unwrap_or_else(|| features::evidence("", 0))
}

/// Evidence beside the user's words. Apps send most of it with every request, so none of it decides alone,
/// except an explicit request for reasoning.
fn around(prompt: &PromptText<'_>) -> f32 {
    let if_so = |is: bool, weight: f32| if is { weight } else { 0.0 };
    let length = match prompt.output_cap {
        Some(..=100) => -0.6,
        Some(4000..) => 0.6,
        _ => 0.0,
    };
    let effort = match prompt.effort {
        Some(Effort::High) => 3.0,
        Some(Effort::Low) => -1.0,
        None => 0.0,
    };
    // 16,000 tokens weigh as much as a technical word.
    let context = (prompt.text_tokens as f32 / 16_000.0).min(2.0);
    length
        + effort
        + context
        + if_so(prompt.tools, 0.2)
        + if_so(prompt.tool_results, 0.4)
        + if_so(prompt.images, 0.4)
        + if_so(prompt.schema, 0.4)
}

fn likelihood(evidence: f32) -> Score {
    let likelihood = 1.0 / (1.0 + (-evidence).exp());
    Score::from_hundredths((likelihood * 100.0).round() as u64)
}

#[cfg(test)]
mod tests;
