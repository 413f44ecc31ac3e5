//! The fault log: what was done and what happened, with the time since the start.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use crate::shell::{Outcome, while_doing};

/// Writes lines to a file and to standard output.
pub struct Trace {
    started: Instant,
    file: File,
}

impl Trace {
    /// A new log.
    pub fn create(path: &Path) -> Outcome<Self> {
        let file = File::create(path).map_err(while_doing("creating the fault log"))?;
        Ok(Self {
            started: Instant::now(),
            file,
        })
    }

    /// One more line.
    pub fn line(&mut self, text: &str) -> Outcome {
        let line = format!("{:>9.3} {text}", self.started.elapsed().as_secs_f64());
        println!("{line}");
        writeln!(self.file, "{line}").map_err(while_doing("writing the fault log"))
    }
}
