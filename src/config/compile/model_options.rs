//! The long form of a model: how its answers are delivered, its timeouts, its conversations.

use std::{sync::Arc, time::Duration};

use gatekeeper_filters::kernel::{Counting, Model, ModelTimeouts, Target, Vocabulary};

use super::field_reader::FieldReader;
use crate::config::{diagnostics::Diagnostics, scalars};

pub fn compile(view: &FieldReader<'_>, model: &mut Model, report: &mut Diagnostics) {
    model.accepts = view.texts("accepts").into_iter().map(Arc::from).collect();
    model.whole = view.text("delivery") == Some("whole");
    model.delivers_hollow = view.text("on_empty") == Some("deliver");
    model.sticky = view.bool("sticky");
    model.timeouts = timeouts(&view.sub("timeouts"), report);
    for target in &mut model.targets {
        let counting = counting(view, target);
        if counting != target.counting {
            *target = Arc::new(Target { counting, ..Target::clone(target) });
        }
    }
}

/// How a target of the model counts: its settings take precedence over what is known of its name.
fn counting(view: &FieldReader<'_>, target: &Target) -> Counting {
    let images = view.text("image_tokens").and_then(|text| scalars::image_tokens(text).ok());
    let default = target.counting;
    Counting {
        vocabulary: match view.text("vocabulary") {
            Some("o200k") => Vocabulary::O200k,
            Some("cl100k") => Vocabulary::Cl100k,
            _ => default.vocabulary,
        },
        images: images.map_or(default.images, |setting| setting.of(&target.model)),
        file_tokens: view.int("file_tokens").unwrap_or(default.file_tokens),
        audio_tokens: view.int("audio_tokens").unwrap_or(default.audio_tokens),
    }
}

fn timeouts(view: &FieldReader<'_>, report: &mut Diagnostics) -> ModelTimeouts {
    view.positive(&["first_byte", "first_token", "idle", "total"], report);
    let of = |name| Some(view.duration(name)).filter(|stated: &Duration| !stated.is_zero());
    ModelTimeouts {
        first_byte: of("first_byte"),
        first_token: of("first_token"),
        idle: of("idle"),
        total: of("total"),
    }
}
