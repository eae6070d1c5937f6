//! Where a request may go: public model names and the targets behind them.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use http::HeaderValue;

pub use super::dialect::Dialect;
use super::{input::Counting, price::Price};

/// One upstream model at one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Place in the snapshot's list of providers.
    pub provider: usize,
    pub provider_name: Arc<str>,
    /// The provider's own model name.
    pub model: Arc<str>,
    /// `provider/model`, as answers and records show it.
    pub label: Arc<str>,
    pub dialect: Dialect,
    /// How it counts its input.
    pub counting: Counting,
    /// `None` where the operator gave no price; then an answer costs nothing.
    pub price: Option<Price>,
}

/// A public model name: its targets in order, first choice first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Model {
    pub name: Arc<str>,
    pub targets: Vec<Arc<Target>>,
    /// Content part types beside text and images that the targets take: `input_audio`, `file`, `video_url`.
    pub accepts: Vec<Arc<str>>,
    /// An answer is read to its end before it is sent, so that even a break in the middle can be retried.
    pub whole: bool,
    /// An answer without output is delivered as it is; else it is asked for once more.
    pub delivers_hollow: bool,
    pub timeouts: ModelTimeouts,
    /// A conversation that has no name of its own is known by its first messages.
    pub sticky: bool,
    /// Set where the name stands for two other models; then it has no targets of its own.
    pub smart: Option<Smart>,
}

/// Two models, one for each tier of difficulty. Neither is smart itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smart {
    pub simple: Arc<Model>,
    pub complex: Arc<Model>,
    /// Requests that score this or more are complex.
    pub threshold: Score,
}

impl Smart {
    pub fn model(&self, tier: Tier) -> &Arc<Model> {
        match tier {
            Tier::Simple => &self.simple,
            Tier::Complex => &self.complex,
        }
    }

    /// What an answer would have cost at the first priced target of the complex model.
    pub fn complex_price(&self) -> Option<Price> {
        self.complex.targets.iter().find_map(|target| target.price)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    Simple,
    Complex,
}

impl Tier {
    pub fn name(self) -> &'static str {
        match self {
            Tier::Simple => "simple",
            Tier::Complex => "complex",
        }
    }

    pub fn other(self) -> Self {
        match self {
            Tier::Simple => Tier::Complex,
            Tier::Complex => Tier::Simple,
        }
    }
}

/// What the app wrote into `x-gatekeeper-tier`. Only a smart model looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AskedTier {
    #[default]
    None,
    Tier(Tier),
    /// Neither `simple` nor `complex`.
    Unknown,
}

/// How hard a request is: hundredths, 0 to 100. What is shown is what was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score(u8);

impl Score {
    /// More than 1.00 is 1.00.
    pub fn from_hundredths(hundredths: u64) -> Self {
        Self(hundredths.min(100) as u8)
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// Timeouts of a model; those not set are the provider's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModelTimeouts {
    pub first_byte: Option<Duration>,
    pub first_token: Option<Duration>,
    pub idle: Option<Duration>,
    pub total: Option<Duration>,
}

pub type Models = BTreeMap<Arc<str>, Arc<Model>>;

/// The outcome of routing one request.
#[derive(Debug, Clone)]
pub struct Route {
    /// The model that the app named; its name is the one in records.
    pub asked: Arc<Model>,
    /// The model that serves: `asked`, or one of its tiers.
    pub model: Arc<Model>,
    /// Targets of `model` that serve the endpoint, in order, never empty.
    pub targets: Vec<Arc<Target>>,
    pub why: RouteReason,
}

impl Route {
    /// The price of the complex tier, where a smart model chose the simple one.
    pub fn would_cost(&self) -> Option<Price> {
        match self.why {
            RouteReason::Smart(Choice { tier: Tier::Simple, .. }) => {
                self.asked.smart.as_ref().and_then(Smart::complex_price)
            }
            _ => None,
        }
    }
}

/// Why these targets: `x-gatekeeper-route`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteReason {
    /// The app named them.
    Model,
    /// A smart model chose them.
    Smart(Choice),
}

/// What a smart model made of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The tier that serves.
    pub tier: Tier,
    pub by: TierSource,
    /// Why it is not the tier that `by` asked for.
    pub diverted: Option<DivertReason>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TierSource {
    Score(Score),
    Header,
}

/// Why the other tier serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DivertReason {
    /// The plan does not include the tier's model.
    Plan,
    /// The tier's model has no target that takes such a request.
    Model,
}

impl RouteReason {
    pub fn header(&self) -> HeaderValue {
        match self {
            RouteReason::Model => HeaderValue::from_static("model"),
            RouteReason::Smart(choice) => HeaderValue::from_str(&choice.to_string())
                .unwrap_or_else(|_| HeaderValue::from_static("smart")),
        }
    }
}

/// `simple;score=0.08`, `complex;tier=header`, and `;plan` or `;model` where the other tier serves.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tier.name())?;
        match self.by {
            TierSource::Score(score) => write!(f, ";score={score}")?,
            TierSource::Header => f.write_str(";tier=header")?,
        }
        f.write_str(match self.diverted {
            Some(DivertReason::Plan) => ";plan",
            Some(DivertReason::Model) => ";model",
            None => "",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_who_chose_and_why_not_the_other() {
        let shown = |by, diverted| Choice { tier: Tier::Simple, by, diverted }.to_string();
        let score = TierSource::Score(Score::from_hundredths(8));
        assert_eq!(shown(score, None), "simple;score=0.08");
        assert_eq!(
            shown(TierSource::Score(Score::from_hundredths(999)), None),
            "simple;score=1.00"
        );
        assert_eq!(shown(score, Some(DivertReason::Plan)), "simple;score=0.08;plan");
        assert_eq!(
            shown(TierSource::Header, Some(DivertReason::Model)),
            "simple;tier=header;model"
        );
        assert_eq!(RouteReason::Model.header(), "model");
    }
}
