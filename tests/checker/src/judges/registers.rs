//! Definitions of topics and groups behave as one register each (I15).
//!
//! Each value is written once, so no search is needed (Gibbons and Korach, "Testing shared memories", 1997).
//! All operations on one value must be able to stand together: from the first that ended to the last that
//! began no other value can be there. Where that span is empty, the value still must have its moment between
//! the last beginning and the first end, and no other value may hold all of that.

use std::collections::HashMap;

use super::Judge;
use crate::checker::{Call, Invariant, Moment, Outcome, Report, Step};
use crate::event::{Answer, Request};

/// All that was done with one value.
#[derive(Clone, Copy)]
struct Span {
    /// When its write began, if it may have had an effect.
    written: Option<u64>,
    /// The first end of an operation on it.
    first_end: u64,
    /// The last beginning of one.
    last_begin: u64,
    was_read: bool,
}

impl Default for Span {
    fn default() -> Self {
        Self {
            written: None,
            first_end: u64::MAX,
            last_begin: 0,
            was_read: false,
        }
    }
}

impl Span {
    fn include(&mut self, begun: u64, ended: u64) {
        self.first_end = self.first_end.min(ended);
        self.last_begin = self.last_begin.max(begun);
    }
}

/// No value is the one that was there before the history.
type Values = HashMap<Option<String>, Span>;

/// All registers.
#[derive(Default)]
pub(super) struct Registers {
    registers: HashMap<String, Values>,
}

impl Registers {
    fn span(&mut self, register: &str, value: Option<&str>) -> &mut Span {
        let values = self
            .registers
            .entry(register.to_string())
            .or_insert_with(|| {
                let initial = Span {
                    written: Some(0),
                    first_end: 0,
                    ..Span::default()
                };
                HashMap::from([(None, initial)])
            });
        values.entry(value.map(str::to_string)).or_default()
    }

    fn ended(&mut self, number: u64, call: &Call, outcome: &Outcome<'_>, report: &mut Report) {
        match (&call.request, outcome) {
            (Request::Put { register, value }, Outcome::Ok(_)) => {
                self.span(register, Some(value))
                    .include(call.number, number);
            }
            (Request::Put { register, value }, Outcome::Fail) => {
                self.span(register, Some(value)).written = None;
            }
            (Request::Get { register }, Outcome::Ok(Answer::Value(value))) => {
                report.judged(Invariant::I15);
                let span = self.span(register, value.as_deref());
                span.was_read = true;
                span.include(call.number, number);
            }
            _ => {}
        }
    }
}

impl Judge for Registers {
    fn see(&mut self, moment: Moment, step: &Step<'_>, report: &mut Report) {
        match step {
            Step::Begun(call) => {
                if let Request::Put { register, value } = &call.request {
                    let span = self.span(register, Some(value));
                    if let Some(first) = span.written.replace(call.number) {
                        let text = format!("{register} is given the value {value} twice");
                        report.broken(Invariant::History, &[first, call.number], text);
                    }
                    span.last_begin = span.last_begin.max(call.number);
                }
            }
            Step::Ended { call, outcome } => self.ended(moment.number, call, outcome, report),
            Step::Noted(_) => {}
        }
    }

    fn finish(&mut self, _moment: Moment, report: &mut Report) {
        for (register, values) in &self.registers {
            judge(register, values, report);
        }
    }
}

fn judge(register: &str, values: &Values, report: &mut Report) {
    let mut held = Vec::new();
    let mut momentary = Vec::new();
    for (value, span) in values {
        let name = value.as_deref().unwrap_or("nothing");
        match span.written {
            Some(written) if span.first_end < written => {
                let text = format!("{register} is {name} before that was written");
                report.broken(Invariant::I15, &[span.first_end, written], text);
            }
            None if span.was_read => {
                let text = format!("{register} is {name}, which was never written");
                report.broken(Invariant::I15, &[span.first_end], text);
            }
            Some(_) if span.first_end < span.last_begin => held.push((*span, name)),
            Some(_) if span.first_end < u64::MAX => momentary.push((*span, name)),
            _ => {}
        }
    }
    held.sort_by_key(|(span, _)| span.first_end);
    for pair in held.windows(2) {
        let [(first, one), (second, other)] = pair else {
            continue;
        };
        if second.first_end < first.last_begin {
            let text = format!("{register} is {one} both before and after it is {other}");
            let events = [first.first_end, second.first_end, first.last_begin];
            report.broken(Invariant::I15, &events, text);
        }
    }
    for (span, name) in momentary {
        let before = held.partition_point(|(other, _)| other.first_end < span.last_begin);
        let Some((other, holder)) = before.checked_sub(1).map(|last| held[last]) else {
            continue;
        };
        if span.first_end < other.last_begin {
            let text = format!("{register} is {holder} before and after it is set to {name}");
            let events = [
                other.first_end,
                span.last_begin,
                span.first_end,
                other.last_begin,
            ];
            report.broken(Invariant::I15, &events, text);
        }
    }
}
