//! What the program logs, as lines of the trace.

use std::fmt::Write as _;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::trace::Trace;

/// Sends what is logged in this process into a trace. Whatever was set before stays.
pub fn into(trace: Trace) {
    // A process that runs several seeds, as tests do, logs those after the first nowhere.
    drop(tracing::subscriber::set_global_default(Lines { trace }));
}

struct Lines {
    trace: Trace,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What libraries say at leisure shows instants of the machine's clock, which no seed decides.
        let most = match metadata.target().starts_with("gantry") {
            true => Level::INFO,
            false => Level::WARN,
        };
        *metadata.level() <= most && metadata.is_event()
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        let (level, target) = (metadata.level(), metadata.target());
        self.trace
            .line("log", format_args!("{level} {target}{}", text.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {field}={value:?}").expect("a string takes everything");
    }
}
