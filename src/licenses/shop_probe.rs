//! Questions that no buyer asked: about a key that can't exist.
//!
//! At the start, of shops that show a mistake of the configuration by it: a product id that is none shows then, not
//! with the first buyer. Later, of a shop that failed: its state must not stay what it was for want of requests.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    call_budget::CallPriority,
    online::{made_up, unknown_license},
    shop_lookup::NO_KEY,
    sources::{ConfiguredShops, ShopQuery},
    validator::LicenseValidator,
};
use crate::shops::Asked;

/// How often is looked whether a shop is to be asked.
const LOOK: Duration = Duration::from_secs(5);

impl LicenseValidator {
    /// These are the sources from now on.
    pub fn probe(self: &Arc<Self>, sources: Arc<ConfiguredShops>) {
        for shop in sources.shops() {
            let questions = sources.questions_to(*shop);
            let is_asked =
                |subject: &str| questions.iter().any(|question| question.name() == subject);
            self.health(*shop).keep_mistakes(is_asked);
        }
        self.configured.store(Some(sources.clone()));
        let validator = self.clone();
        self.runtime.spawn(async move {
            let shops = sources.shops().iter().filter(|shop| shop.constants().is_probed);
            for question in shops.flat_map(|shop| sources.questions_to(*shop)) {
                if let Some(_permit) = validator.permit(&question, CallPriority::Behind, None).await
                {
                    let asked = Asked { subject: &question.subject, ..Asked::about(NO_KEY) };
                    validator.call(&sources, &question, &asked).await;
                }
            }
        });
    }

    /// Asks shops that failed, one call a minute, until they answer.
    pub(super) async fn probe_failed(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(sources) = self.configured.load_full() else { continue };
            for shop in sources.shops() {
                let Some(mistake) = self.health(*shop).wants_probe(Instant::now()) else {
                    continue;
                };
                let questions = sources.questions_to(*shop);
                let is_it = |question: &&ShopQuery| mistake.as_deref() == Some(question.name());
                let question = questions.iter().find(is_it).or(questions.first());
                if let Some(question) = question
                    && let Some(_permit) = self.permit(question, CallPriority::Rest, None).await
                {
                    let source = &question.account.source;
                    let known = unknown_license(source);
                    self.call(&sources, question, &made_up(source, &question.subject, &known))
                        .await;
                }
            }
        }
    }
}
