-- For people as much as for the gateway: text is readable, times are RFC 3339 in UTC and sort.
CREATE TABLE IF NOT EXISTS meta (
    key   TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- What each licence was charged, by window; start is the window's first moment.
CREATE TABLE IF NOT EXISTS usage (
    license  TEXT    NOT NULL,
    period   TEXT    NOT NULL,
    start    TEXT    NOT NULL,
    messages INTEGER NOT NULL,
    tokens   INTEGER NOT NULL,
    PRIMARY KEY (license, period, start)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS usage_by_window ON usage (period, start);

-- One row a finished request, in the order in which they finished. No prompt, no key, no address.
-- No index: it would cost every request more than a scan costs a report, and `usage` has the
-- sums. `CREATE INDEX` works at any time.
CREATE TABLE IF NOT EXISTS requests (
    time      TEXT    NOT NULL,
    license   TEXT,
    endpoint  TEXT    NOT NULL,
    plan      TEXT    NOT NULL,
    model     TEXT    NOT NULL,
    served    TEXT    NOT NULL,
    provider  TEXT    NOT NULL,
    "key"     TEXT    NOT NULL,
    input     INTEGER NOT NULL,
    output    INTEGER NOT NULL,
    cached    INTEGER NOT NULL,
    reasoning INTEGER NOT NULL,
    source    TEXT    NOT NULL,
    charged   INTEGER NOT NULL,
    status    INTEGER NOT NULL,
    ms        INTEGER NOT NULL,
    attempts  INTEGER NOT NULL,
    cost      INTEGER NOT NULL DEFAULT 0, -- picodollars, waste included: 10^12 are one dollar
    cache_write INTEGER NOT NULL DEFAULT 0, -- part of input
    wasted    INTEGER NOT NULL DEFAULT 0, -- tokens of attempts whose answers the app did not get
    wasted_cost INTEGER NOT NULL DEFAULT 0 -- part of cost
) STRICT;
-- status 0: the gateway was killed meanwhile, the input was charged.

-- What known licences did on each day (UTC). requests are all that ended, messages what was charged
-- (until schema 5: requests that reached a provider), wasted are tokens of attempts whose answers no
-- app got, costs are in picodollars. `gatekeeper usage` reads this.
CREATE TABLE IF NOT EXISTS daily (
    day      TEXT    NOT NULL,
    license  TEXT    NOT NULL,
    plan     TEXT    NOT NULL,
    model    TEXT    NOT NULL,
    provider TEXT    NOT NULL,
    requests INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    input    INTEGER NOT NULL,
    output   INTEGER NOT NULL,
    cached   INTEGER NOT NULL,
    cost     INTEGER NOT NULL,
    cache_write INTEGER NOT NULL DEFAULT 0,
    wasted   INTEGER NOT NULL DEFAULT 0,
    wasted_cost INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, license, plan, model, provider)
) STRICT, WITHOUT ROWID;

-- Reservations without an outcome; charged at the next start if the gateway dies.
CREATE TABLE IF NOT EXISTS open (
    hold    INTEGER PRIMARY KEY,
    license TEXT    NOT NULL,
    time    INTEGER NOT NULL,
    input   INTEGER NOT NULL,
    grp     INTEGER NOT NULL,
    message INTEGER,
    plan     TEXT    NOT NULL DEFAULT '',
    model    TEXT    NOT NULL DEFAULT '',
    provider TEXT    NOT NULL DEFAULT '',
    cost     INTEGER NOT NULL DEFAULT 0
) STRICT;

-- What answers of each target had that no app saw, so that an answer that is cut off can be estimated
-- (src/budget/unseen_tokens.rs). JSON.
CREATE TABLE IF NOT EXISTS unseen (
    target TEXT NOT NULL PRIMARY KEY,
    known  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Requests so far in a rate's current hour, day or month.
CREATE TABLE IF NOT EXISTS rates (
    license TEXT    NOT NULL,
    period  TEXT    NOT NULL,
    start   TEXT    NOT NULL,
    count   INTEGER NOT NULL,
    PRIMARY KEY (license, period)
) STRICT, WITHOUT ROWID;

-- Answers of shops about licences, without anything about their buyers. Written by a thread of the licences
-- (src/licenses/disk_cache.rs).
CREATE TABLE IF NOT EXISTS licenses (
    license TEXT NOT NULL PRIMARY KEY,
    record  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Grants of operators in one window: extras add up, everything settled up to the forgiven
-- level does not count.
CREATE TABLE IF NOT EXISTS adjustments (
    license            TEXT    NOT NULL,
    period             TEXT    NOT NULL,
    start              TEXT    NOT NULL,
    extra_messages     INTEGER NOT NULL,
    extra_tokens       INTEGER NOT NULL,
    forgiven_messages  INTEGER NOT NULL,
    forgiven_tokens    INTEGER NOT NULL,
    PRIMARY KEY (license, period, start)
) STRICT, WITHOUT ROWID;

-- What an operator did about licences, kept for 400 days. No key.
CREATE TABLE IF NOT EXISTS actions (
    time    TEXT NOT NULL,
    action  TEXT NOT NULL,
    license TEXT NOT NULL,
    id      TEXT NOT NULL,
    detail  TEXT NOT NULL,
    note    TEXT NOT NULL
) STRICT;

-- What licences spent while the store that gateways share was away, in the window that began then.
CREATE TABLE IF NOT EXISTS leases (
    license        TEXT    NOT NULL PRIMARY KEY,
    kept           TEXT    NOT NULL,
    messages_start TEXT    NOT NULL,
    messages       INTEGER NOT NULL,
    tokens_start   TEXT    NOT NULL,
    tokens         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
