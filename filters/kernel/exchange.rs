//! One request in flight, as the filters see it. Each field is set once, by the station named.

use std::{any::Any, net::IpAddr, sync::Arc, time::Instant};

use super::{
    input::Input,
    license::{Credential, License},
    period::UnixMs,
    plan::OnDisconnect,
    ports::{Balance, ConversationDemand, Cut, Permit, Reservation},
    route::{AskedTier, Dialect, Route, Target},
    usage::{Metered, Usage, UsageSource},
};

/// The public endpoints that reach a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    Chat,
    Responses,
    Embeddings,
    /// Anthropic's.
    Messages,
    /// Gemini's `:generateContent` and `:streamGenerateContent`.
    Generate,
}

impl Endpoint {
    pub const ALL: [Endpoint; 5] = [
        Endpoint::Chat,
        Endpoint::Responses,
        Endpoint::Embeddings,
        Endpoint::Messages,
        Endpoint::Generate,
    ];

    /// Metric label and record field.
    pub fn name(self) -> &'static str {
        match self {
            Endpoint::Chat => "chat",
            Endpoint::Responses => "responses",
            Endpoint::Embeddings => "embeddings",
            Endpoint::Messages => "messages",
            Endpoint::Generate => "generate",
        }
    }

    /// The API of the app.
    pub fn dialect(self) -> Dialect {
        match self {
            Endpoint::Chat | Endpoint::Responses | Endpoint::Embeddings => Dialect::OpenAi,
            Endpoint::Messages => Dialect::Anthropic,
            Endpoint::Generate => Dialect::Gemini,
        }
    }

    /// The endpoint of a provider for this request; `None` if it has none. Chat is translated for
    /// Anthropic; the others need a provider of their own dialect.
    pub fn at(self, provider: Dialect) -> Option<Endpoint> {
        match (self, provider) {
            (Endpoint::Chat, Dialect::Anthropic) => Some(Endpoint::Messages),
            _ => (self.dialect() == provider).then_some(self),
        }
    }
}

/// How far a request came; decides what a charge may give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestProgress {
    /// Some provider was asked, if only with half a request.
    pub sent: bool,
    /// Some attempt's request was written whole: its provider may work on it.
    pub written: bool,
    /// Some provider answered 2xx.
    pub answered: bool,
    /// Some attempt's answer reported usage, or held output: it was read as one.
    pub counted: bool,
    /// An event of an answer went to the app: nothing comes back after this.
    pub delivered: bool,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The whole answer was handed to the app's connection.
    Whole,
    /// The answer broke after its first event.
    Broken,
    /// The app left.
    Abandoned,
    /// Our own 4xx.
    Refused,
    /// A provider's 4xx about the request itself.
    Relayed,
    /// Our own 5xx.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// 499 when the app left first.
    pub status: u16,
    pub delivery: Delivery,
}

/// Output that a target may have made of an answer that never began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    pub target: Arc<Target>,
    pub tokens: u64,
    /// Picodollars.
    pub cost: u64,
}

/// What settled; for the record and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settled {
    pub tokens: u64,
    /// The provider reported more than was reserved.
    pub overrun: bool,
}

/// No answer is more tokens than this: the largest output of any model on sale.
pub const MOST_OUTPUT: u64 = 131_072;

pub struct Exchange {
    pub id: Arc<str>,
    pub endpoint: Endpoint,
    pub arrived: Instant,
    pub now: UnixMs,
    pub credential: Credential,
    /// Where the app is, if that is known.
    pub address: Option<IpAddr>,
    pub message_id: Option<Arc<str>>,
    pub instance_id: Option<Arc<str>>,
    /// Names the conversation that the request belongs to, if that is known.
    pub conversation: Option<u64>,
    /// The conversation that counts the request and the hash of the user's last turn, where the plan limits
    /// conversations.
    pub counted_in: Option<ConversationDemand>,
    /// The public name of the prompt that the app asked for, `prompt/NAME`.
    pub prompt: Option<Arc<str>>,
    /// The tier that the app asked for.
    pub asked_tier: AskedTier,
    /// `anthropic-version`, where the app sent one.
    pub api_version: Option<Arc<str>>,

    /// `license`
    pub license: Option<License>,
    /// `rate_limit`
    pub permit: Option<Permit>,
    /// `route`
    pub route: Option<Route>,
    /// `quota`
    pub reservation: Option<Reservation>,
    pub balance: Option<Balance>,
    /// Output cap to send upstream, `None` to send the app's body as it is.
    pub output_cap: Option<u64>,
    /// The cap was lowered to fit what is left.
    pub shrunk: bool,
    /// What the request brings along.
    pub input: Input,
    /// Estimate of it at the target where it is dearest.
    pub input_tokens: u64,
    /// `meter`
    pub metered: Metered,
    pub settled: Settled,
    /// Of attempts that a provider worked on, and whose answers the app did not get.
    pub wasted: Usage,
    /// Picodollars of those.
    pub wasted_cost: u64,
    /// Tokens of the last failed attempt that reported usage or delivered text: charged if no other attempt
    /// serves.
    pub spoilt: u64,
    /// Of the last of them: tokens of output.
    pub last_wasted: u64,
    /// Tokens of output, and their cost, that count if the target proves to work.
    pub doubtful: Vec<Doubt>,
    /// Picodollars, waste included; known when the chain settles.
    pub cost: u64,
    /// Picodollars that the complex tier would have cost more; known when the chain settles.
    pub saved: u64,

    /// The attempt loop.
    pub progress: RequestProgress,
    /// When the latest attempt's request had been written whole.
    pub written: Option<Instant>,
    /// When the head of its answer came.
    pub headed: Option<Instant>,
    /// Some attempt's request was written whole and its answer took too long.
    pub timed_out: bool,
    /// The answer comes event by event.
    pub streamed: bool,
    pub served: Option<Arc<Target>>,
    /// The key that `served` was asked with.
    pub served_key: Option<Arc<str>>,

    /// State of filters that the kernel does not know, found by type.
    pub extensions: Extensions,
    /// How many filters of the chain were entered; they are settled, no others.
    pub(super) entered: usize,
    pub(super) closed: bool,
}

impl Exchange {
    pub fn new(endpoint: Endpoint, credential: Credential, now: UnixMs, arrived: Instant) -> Self {
        Self {
            id: Arc::from(""),
            endpoint,
            arrived,
            now,
            credential,
            address: None,
            message_id: None,
            instance_id: None,
            conversation: None,
            counted_in: None,
            prompt: None,
            asked_tier: AskedTier::None,
            api_version: None,
            license: None,
            permit: None,
            route: None,
            reservation: None,
            balance: None,
            output_cap: None,
            shrunk: false,
            input: Input::default(),
            input_tokens: 0,
            metered: Metered::default(),
            settled: Settled::default(),
            wasted: Usage::default(),
            wasted_cost: 0,
            spoilt: 0,
            last_wasted: 0,
            doubtful: Vec::new(),
            cost: 0,
            saved: 0,
            progress: RequestProgress::default(),
            written: None,
            headed: None,
            timed_out: false,
            streamed: false,
            served: None,
            served_key: None,
            extensions: Extensions::default(),
            entered: 0,
            closed: false,
        }
    }

    /// The public name that the app asked for, of a model or a prompt: the one in records.
    pub fn asked_name(&self) -> Option<&Arc<str>> {
        self.prompt.as_ref().or(self.route.as_ref().map(|route| &route.asked.name))
    }

    /// How the answer ends when the app disconnects.
    pub fn on_disconnect(&self) -> OnDisconnect {
        self.license.as_ref().map_or(OnDisconnect::Cut, |license| license.plan.on_disconnect)
    }

    /// Starts an attempt: readings of a failed one are discarded.
    pub fn begin_attempt(&mut self, target: &Arc<Target>) {
        self.served = Some(target.clone());
        self.metered = Metered { vocabulary: target.counting.vocabulary, ..Metered::default() };
        (self.written, self.headed) = (None, None);
        self.progress.answered = false;
    }

    /// The answer as it stands when it is cut off; `None` before its request was written whole.
    pub fn cut(&self, at: Instant) -> Option<Cut> {
        let sent = self.written?;
        Some(Cut { streamed: self.streamed, sent, head: self.headed, at })
    }

    /// What the answer used so far, as far as that is possible; nothing before a provider began one.
    pub fn usage(&self) -> (Usage, UsageSource) {
        if self.progress.answered {
            let (usage, source) = self.metered.usage(self.input_estimate());
            (usage.within(self.input.most(), MOST_OUTPUT), source)
        } else {
            (Usage::default(), UsageSource::Estimated)
        }
    }

    /// Estimate of the input at the target that serves.
    pub fn input_estimate(&self) -> u64 {
        let target = self.served.as_ref().filter(|_| self.input != Input::default());
        target.map_or(self.input_tokens, |target| self.input.tokens(&target.counting))
    }

    /// The output cap that the provider was sent, if any.
    pub fn cap_sent(&self) -> Option<u64> {
        let required = self.served.as_ref().and_then(|target| target.dialect.required_cap());
        self.output_cap.or(required)
    }
}

/// A small map by type: few entries, so a list is faster than a hash map.
#[derive(Default)]
pub struct Extensions(Vec<Box<dyn Any + Send + Sync>>);

impl Extensions {
    pub fn insert<T: Any + Send + Sync>(&mut self, value: T) {
        match self.get_mut::<T>() {
            Some(slot) => *slot = value,
            None => self.0.push(Box::new(value)),
        }
    }

    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.iter().find_map(|entry| entry.downcast_ref())
    }

    pub fn get_mut<T: Any>(&mut self) -> Option<&mut T> {
        self.0.iter_mut().find_map(|entry| entry.downcast_mut())
    }
}
