//! In which order the targets of a request are asked: the conversation's own first, and no fallback
//! that is dearer than what the plan pays for anyway.

use std::{borrow::Cow, sync::Arc};

use gatekeeper_filters::kernel::{ModelSet, Models, Plan, Target};
use rustc_hash::FxHashMap;

/// Picodollars per output token of the dearest first target among a plan's own models, by plan name.
/// A plan that may use every model has no bound.
#[derive(Debug, Default)]
pub struct PriceCeilings(FxHashMap<Arc<str>, u64>);

impl PriceCeilings {
    pub fn of(plans: &[Arc<Plan>], models: &Models) -> Self {
        let bound = |plan: &Arc<Plan>| {
            let ModelSet::Only(names) = &plan.models else { return None };
            let own = names.iter().filter_map(|name| models.get(name));
            let first = own.filter_map(|model| model.targets.first());
            let dearest =
                first.filter_map(|target| target.price).map(|price| price.output).max()?;
            Some((plan.name.clone(), dearest))
        };
        Self(plans.iter().filter_map(bound).collect())
    }

    pub fn for_plan(&self, plan: &str) -> Option<u64> {
        if self.0.is_empty() { None } else { self.0.get(plan).copied() }
    }
}

/// `remembered` is the label of the target that served the conversation last.
pub fn order<'a>(
    targets: &'a [Arc<Target>],
    bound: Option<u64>,
    remembered: Option<&str>,
) -> Cow<'a, [Arc<Target>]> {
    // The model that was asked for is the plan's own, whatever it costs; so is a free one.
    let fits = |(place, target): (usize, &Arc<Target>)| {
        let dear =
            target.price.is_some_and(|price| bound.is_some_and(|bound| price.output > bound));
        place == 0 || !dear
    };
    let first = |target: &Arc<Target>| remembered.is_some_and(|label| *target.label == *label);
    if targets.iter().enumerate().all(fits) && targets.iter().skip(1).all(|target| !first(target)) {
        return Cow::Borrowed(targets);
    }
    let affordable =
        targets.iter().enumerate().filter(|pair| fits(*pair)).map(|(_, target)| target);
    let (mut ordered, rest): (Vec<_>, Vec<_>) = affordable.cloned().partition(first);
    ordered.extend(rest);
    Cow::Owned(ordered)
}

#[cfg(test)]
mod tests {
    use gatekeeper_filters::kernel::{Dialect, Price};
    use proptest::prelude::*;

    use super::*;

    fn target(label: &str, output: Option<u64>) -> Arc<Target> {
        Arc::new(Target {
            provider: 0,
            provider_name: "p".into(),
            model: "m".into(),
            label: label.into(),
            dialect: Dialect::OpenAi,
            counting: gatekeeper_filters::kernel::Counting::default(),
            price: output.map(|output| Price {
                input: 1,
                output,
                cached: 1,
                cache_write: 1,
                cache_write_1h: 1,
            }),
        })
    }

    fn labels(targets: &[Arc<Target>], bound: Option<u64>, remembered: Option<&str>) -> String {
        let ordered = order(targets, bound, remembered);
        ordered.iter().map(|target| &*target.label).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn dear_fallbacks_are_skipped_and_the_conversations_own_target_comes_first() {
        let targets =
            [target("a", Some(10)), target("b", Some(9)), target("c", Some(20)), target("d", None)];
        assert_eq!(labels(&targets, None, None), "a b c d");
        assert_eq!(labels(&targets, Some(10), None), "a b d");
        assert_eq!(labels(&targets, Some(5), None), "a d", "the first is never too dear");
        assert_eq!(labels(&targets, None, Some("c")), "c a b d");
        assert_eq!(labels(&targets, Some(10), Some("c")), "a b d", "nor is a dear one remembered");
        assert_eq!(labels(&targets, None, Some("gone")), "a b c d");
        assert!(matches!(order(&targets, None, Some("a")), Cow::Borrowed(_)));
    }

    proptest! {
        /// Nothing is invented or doubled, and the first one is always there.
        #[test]
        fn it_is_a_selection_of_what_was_there(
            prices in prop::collection::vec(prop::option::of(0u64..5), 1..6),
            bound in prop::option::of(0u64..5),
            remembered in prop::option::of(0usize..8),
        ) {
            let targets: Vec<_> =
                prices.iter().enumerate().map(|(n, price)| target(&n.to_string(), *price)).collect();
            let label = remembered.map(|n| n.to_string());
            let ordered = order(&targets, bound, label.as_deref());
            let mut places: Vec<usize> =
                ordered.iter().map(|target| target.label.parse().unwrap()).collect();
            places.sort_unstable();
            places.dedup();
            prop_assert_eq!(places.len(), ordered.len());
            prop_assert!(places.contains(&0));
        }
    }
}
