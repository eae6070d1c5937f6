//! The long form of a model: how its answers are delivered, its timeouts, its conversations.

use std::{sync::Arc, time::Duration};

use gatekeeper_filters::kernel::{Model, ModelTimeouts};

use super::view::View;
use crate::config::problem::Report;

pub fn compile(view: &View<'_>, model: &mut Model, report: &mut Report) {
    model.accepts = view.texts("accepts").into_iter().map(Arc::from).collect();
    model.whole = view.text("delivery") == Some("whole");
    model.delivers_hollow = view.text("on_empty") == Some("deliver");
    model.sticky = view.bool("sticky");
    model.timeouts = timeouts(&view.sub("timeouts"), report);
}

fn timeouts(view: &View<'_>, report: &mut Report) -> ModelTimeouts {
    view.positive(&["first_byte", "first_token", "idle", "total"], report);
    let of = |name| Some(view.duration(name)).filter(|stated: &Duration| !stated.is_zero());
    ModelTimeouts {
        first_byte: of("first_byte"),
        first_token: of("first_token"),
        idle: of("idle"),
        total: of("total"),
    }
}
