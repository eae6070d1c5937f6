//! Whether an answer that was marked as finished really is.
//!
//! A finish reason counts as the end once something of the answer came, and no later chunk brought more. Gemini, and
//! gateways to it, may send `STOP` in every chunk, or in an empty first one: a chunk with output takes a finish
//! before it back.

use std::time::Duration;

use gatekeeper_filters::meter::{Output, Reading, StreamEnd};

/// How long a provider may be silent after the end of its answer: its usage has come, or may still come.
const SETTLED: Duration = Duration::from_secs(2);
const UNSETTLED: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Conclusion {
    /// The most output so far.
    said: Output,
    /// A finish stands that no output has taken back.
    finished: bool,
    ending: StreamEnd,
    /// What the provider counted last.
    output: Option<u64>,
    /// Nothing but a count came since the finish: no chunk of an answer follows that.
    closed: bool,
    /// A finish came beside the first output, or was taken back: finishes of this stream are not reliable.
    wavers: bool,
    stirred: bool,
}

impl Conclusion {
    pub(super) fn take(&mut self, reading: &Reading) {
        self.stirred = true;
        if reading.output != Output::None {
            self.wavers |= self.finished || (reading.finished && self.said < Output::Answer);
            self.finished = false;
            self.closed = false;
            self.said = self.said.max(reading.output);
        }
        if reading.finished {
            self.finished = true;
            self.ending = reading.ending;
        }
        if let Some(usage) = reading.usage {
            self.output = Some(usage.output);
            self.closed = self.finished && reading.usage_only;
        }
    }

    /// The answer has ended, as far as can be decided.
    pub(super) fn holds(&self) -> bool {
        self.finished && self.said == Output::Answer
    }

    pub(super) fn patience(&self) -> Option<Duration> {
        let settled = self.closed || (self.output.is_some() && !self.wavers);
        self.holds().then_some(if settled { SETTLED } else { UNSETTLED })
    }

    /// It was marked as finished, and has no content so far.
    pub(super) fn may_be_hollow(&self) -> bool {
        self.finished && self.said == Output::None && self.ending != StreamEnd::Other
    }

    pub(super) fn is_hollow(&self) -> bool {
        self.finished && self.said == Output::None && self.ending.is_hollow(self.output)
    }

    pub(super) fn take_stirred(&mut self) -> bool {
        std::mem::take(&mut self.stirred)
    }
}

#[cfg(test)]
mod tests {
    use gatekeeper_filters::kernel::Usage;

    use super::*;

    fn word() -> Reading {
        Reading { output: Output::Answer, commits: true, ..Reading::default() }
    }

    fn stop() -> Reading {
        let ending = StreamEnd::Natural;
        Reading { finished: true, commits: true, ending, ..Reading::default() }
    }

    fn counted(output: u64) -> Option<Usage> {
        Some(Usage { input: 9, output, ..Usage::default() })
    }

    fn patience(readings: &[Reading]) -> Option<u64> {
        let mut conclusion = Conclusion::default();
        readings.iter().for_each(|reading| conclusion.take(reading));
        conclusion.patience().map(|patience| patience.as_secs())
    }

    #[test]
    fn a_finish_counts_once_something_was_said_and_nothing_more_came() {
        let thought = Reading { output: Output::Reasoning, ..word() };
        let both = || Reading { finished: true, ..word() };
        let counts = || Reading { usage: counted(7), usage_only: true, ..Reading::default() };
        let counted_stop = || Reading { usage: counted(7), ..stop() };
        let counted_both = || Reading { usage: counted(7), ..both() };
        for (readings, expected) in [
            (&[word()][..], None),
            (&[stop()], None),
            (&[thought, stop()], None),
            (&[word(), stop()], Some(10)),
            (&[word(), stop(), counts()], Some(2)),
            (&[word(), counted_stop()], Some(2)),
            (&[word(), counted_both()], Some(2)),
            // In each chunk, usage too: one more may follow.
            (&[counted_both()], Some(10)),
            (&[counted_both(), counted_both()], Some(10)),
            (&[both(), counts()], Some(2)),
            (&[both(), counts(), word()], None),
            // In an empty first chunk.
            (&[counted_stop(), word()], None),
            (&[counted_stop(), word(), counted_stop()], Some(10)),
            (&[word(), stop(), word()], None),
        ] {
            assert_eq!(patience(readings), expected, "{readings:?}");
        }
    }

    #[test]
    fn only_an_end_of_nothing_is_hollow() {
        let with = |output| Reading { usage: counted(output), ..stop() };
        let call = Reading { ending: StreamEnd::MalformedCall, ..with(9) };
        let other = Reading { ending: StreamEnd::Other, ..with(0) };
        for (reading, may, is) in [
            (stop(), true, false),
            (with(0), true, true),
            (with(3), true, false),
            (call, true, true),
            (other, false, false),
            (Reading { output: Output::Answer, ..with(0) }, false, false),
        ] {
            let mut conclusion = Conclusion::default();
            conclusion.take(&reading);
            assert_eq!(
                (conclusion.may_be_hollow(), conclusion.is_hollow()),
                (may, is),
                "{reading:?}"
            );
            assert_eq!(reading.is_hollow(), is, "{reading:?}");
        }
    }
}
