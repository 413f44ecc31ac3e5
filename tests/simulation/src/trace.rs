//! What happened in a run, line by line: its checksum always, the lines where somebody wants to read them.

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::time::Time;

/// The trace of a run. Clones write the same.
#[derive(Clone)]
pub struct Trace {
    time: Time,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    checksum: u64,
    lines: u64,
    line: String,
    out: Option<BufWriter<File>>,
}

impl Trace {
    /// A trace whose lines also go to `out`.
    pub fn new(time: Time, out: Option<File>) -> Self {
        let inner = Inner {
            checksum: 0xcbf2_9ce4_8422_2325,
            lines: 0,
            line: String::new(),
            out: out.map(BufWriter::new),
        };
        Trace {
            time,
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// Adds a line: the time, who, what.
    pub fn line(&self, who: impl fmt::Display, what: fmt::Arguments<'_>) {
        use fmt::Write as _;
        let now = self.time.now_ns();
        let mut inner = self.lock();
        let Inner {
            checksum,
            lines,
            line,
            out,
        } = &mut *inner;
        line.clear();
        let (ms, ns) = (now / 1_000_000, now % 1_000_000);
        writeln!(line, "{ms:6}.{ns:06} {who:<8} {what}").expect("a string takes everything");
        for byte in line.as_bytes() {
            *checksum = (*checksum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        *lines += 1;
        if let Some(out) = out {
            out.write_all(line.as_bytes())
                .expect("the trace file takes a line");
        }
    }

    /// Number of lines, and a checksum over all of them.
    pub fn checksum(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.lines, inner.checksum)
    }

    /// Writes out what is buffered, unless a line is being written.
    pub fn flush(&self) {
        let Ok(mut inner) = self.inner.try_lock() else {
            return;
        };
        if let Some(out) = &mut inner.out {
            out.flush().expect("the trace file takes its last lines");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("writing a line does not panic")
    }
}
