//! What one model was used for: the sums that the store, the live view and other gateways exchange.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::usage_figures::UsageFigures;

/// Names of models; a configuration that is changed all day long must not fill the memory.
pub const MODELS: usize = 1024;

/// The sums of one model over one day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelTotals {
    /// The public name, which apps ask for.
    #[serde(serialize_with = "write_name", deserialize_with = "read_name")]
    pub model: Arc<str>,
    #[serde(flatten)]
    pub figures: UsageFigures,
}

fn write_name<S: Serializer>(name: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name)
}

fn read_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    String::deserialize(deserializer).map(Arc::from)
}

/// Adds up by name. Names are few and nearly always the same object: looking at all is the fastest.
pub fn add(models: &mut Vec<ModelTotals>, more: &ModelTotals) {
    let is_it =
        |known: &ModelTotals| Arc::ptr_eq(&known.model, &more.model) || known.model == more.model;
    match models.iter().position(is_it) {
        Some(place) => models[place].figures.add(&more.figures),
        None if models.len() < MODELS => models.push(more.clone()),
        None => {}
    }
}
