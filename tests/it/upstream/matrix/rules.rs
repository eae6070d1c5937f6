//! What a fault comes to: one table, written from the product's promises and not from its code.

/// Faults that come to the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// This key is not taken.
    Key,
    /// Its account is out of money, or out of its day.
    Account,
    /// Its account is too fast.
    Limited,
    /// Its account does not have the model in its tier.
    Tier,
    /// Its account, or this target, takes no request so large.
    TooLarge,
    /// The same, of every account of the target.
    TooLong,
    /// What the app's user wrote is not liked, by the provider or by a firewall in front of it.
    Disliked,
    /// What the model wrote could not be read: the provider's status, if that happens twice.
    Unreadable(u16),
    /// The target does not have the model.
    Model,
    /// The request itself is at fault; the provider's status.
    Request(u16),
    /// The provider is at fault, before the app has seen anything.
    Provider,
    /// The same, in a way that may have passed in a moment: where nothing else is left, its key is asked once more.
    Passing,
    /// The same, by saying nothing: no other key of the target is made to do the work again.
    Silent,
    /// The same, after the head of an answer: another account may do better.
    Stalled,
    /// The provider is at fault, and the app has seen a part of its answer.
    Broken,
    /// No fault at all, if it looks like one.
    Fine,
}

/// Who may mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mends {
    AnotherKey,
    AnotherAccount,
    /// Asking once more, whatever the key.
    Again,
    Nobody,
}

/// What the app sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    Whole,
    /// Words, then an error.
    Broken,
    /// The provider's words about the app's own mistake.
    Relayed(u16),
    /// The gateway's about it.
    Told(u16),
    Refused(u16, &'static str),
}

/// What the licence is charged in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    None,
    /// What was said so far: the input, and some of the output.
    Some,
    /// The same, where something was said or counted; else nothing.
    AtMost,
    Reported,
}

pub struct Rule {
    pub mends: Mends,
    /// Requests to the provider when it fails for every key, by the number of keys: one; two of two
    /// accounts; three of two accounts.
    pub requests: [usize; 3],
    pub sees: Sees,
}

pub fn rule(class: Class) -> Rule {
    use Mends::{Again, AnotherAccount, AnotherKey, Nobody};
    let error = Sees::Refused(502, "upstream_error");
    let (mends, requests, sees) = match class {
        Class::Key => (AnotherKey, [1, 2, 3], error),
        Class::Account => (AnotherAccount, [1, 2, 2], error),
        Class::Limited => (AnotherAccount, [1, 2, 2], Sees::Refused(503, "upstream_exhausted")),
        Class::Tier => (AnotherAccount, [1, 2, 2], error),
        Class::TooLarge => (AnotherAccount, [1, 2, 2], Sees::Told(413)),
        Class::TooLong => (Nobody, [1, 1, 1], Sees::Told(413)),
        Class::Disliked => (Nobody, [1, 1, 1], Sees::Told(400)),
        Class::Unreadable(status) => (Again, [2, 2, 2], Sees::Relayed(status)),
        Class::Provider => (AnotherKey, [1, 2, 3], error),
        Class::Passing => (AnotherKey, [2, 3, 3], error),
        Class::Silent => (Nobody, [1, 1, 1], Sees::Refused(504, "upstream_timeout")),
        Class::Stalled => (AnotherAccount, [1, 2, 2], Sees::Refused(504, "upstream_timeout")),
        Class::Model => (Nobody, [1, 1, 1], error),
        Class::Request(status) => (Nobody, [1, 1, 1], Sees::Relayed(status)),
        Class::Broken => (Nobody, [1, 1, 1], Sees::Broken),
        Class::Fine => (Nobody, [1, 1, 1], Sees::Whole),
    };
    Rule { mends, requests, sees }
}

/// Messages and tokens. `counted`: some attempt reported usage.
pub fn charge(sees: Sees, counted: bool) -> (u64, Tokens) {
    match sees {
        Sees::Whole => (1, Tokens::Reported),
        Sees::Broken => (1, Tokens::Some),
        Sees::Relayed(_) | Sees::Told(_) => (0, Tokens::None),
        Sees::Refused(..) if counted => (0, Tokens::AtMost),
        Sees::Refused(..) => (0, Tokens::None),
    }
}
