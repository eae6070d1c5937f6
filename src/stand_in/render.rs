//! An answer of the stand-in in the dialect in which it was asked.

use gatekeeper_filters::kernel::Endpoint;

use super::{answer::StandInRequest, chat, embeddings, gemini, messages, responses};

impl StandInRequest {
    /// The answer as one JSON.
    pub fn whole(&self) -> String {
        match self.endpoint {
            Endpoint::Embeddings => embeddings::whole(self, &self.body),
            Endpoint::Messages => messages::whole(self),
            Endpoint::Generate => gemini::whole(self),
            Endpoint::Responses => responses::whole(self),
            Endpoint::Chat => chat::whole(self),
        }
        .to_string()
    }

    /// The answer as events, in the pieces in which they are sent.
    pub fn events(&self) -> Vec<String> {
        match self.endpoint {
            Endpoint::Messages => messages::events(self),
            Endpoint::Generate => gemini::events(self),
            Endpoint::Responses => responses::events(self),
            Endpoint::Chat | Endpoint::Embeddings => chat::events(self),
        }
    }
}
