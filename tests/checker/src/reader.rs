//! Reads history files in the order of time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::event::{Event, What};

/// Why a history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// A whole line is no event.
    #[error("{}:{line}: {error}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// A line is older than the one before it.
    #[error("{}:{line}: older than the line before", path.display())]
    Disorder {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
    },
}

/// An event with its place.
#[derive(Debug)]
pub struct Entry {
    /// Place in the order of time over all files, from 1.
    pub number: u64,
    /// Which of the files.
    pub file: usize,
    /// Which of its lines, from 1.
    pub line: u64,
    /// The event.
    pub event: Event,
}

/// The events of several files as one history; holds one line of each file.
pub struct Merged {
    files: Vec<Lines>,
    /// The next event of each file by time; at the same time beginnings come first, so that nothing is
    /// taken to precede what it may have overlapped.
    heads: BinaryHeap<Reverse<(u64, bool, usize)>>,
    number: u64,
}

impl Merged {
    /// Opens the files.
    ///
    /// # Errors
    /// When a file cannot be opened or its first line cannot be read.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self, ReadError> {
        let mut files = Vec::new();
        for path in paths {
            files.push(Lines::open(path.as_ref())?);
        }
        let mut merged = Self {
            files,
            heads: BinaryHeap::new(),
            number: 0,
        };
        for file in 0..merged.files.len() {
            merged.advance(file)?;
        }
        Ok(merged)
    }

    /// Files whose last line was cut short by the end of their writer, as far as they were read.
    pub fn torn(&self) -> impl Iterator<Item = &Path> {
        self.files
            .iter()
            .filter(|file| file.torn)
            .map(|file| file.path.as_path())
    }

    fn advance(&mut self, file: usize) -> Result<(), ReadError> {
        self.files[file].advance()?;
        if let Some(event) = &self.files[file].head {
            let is_later = !matches!(event.what, What::Invoke { .. });
            self.heads.push(Reverse((event.at, is_later, file)));
        }
        Ok(())
    }
}

impl Iterator for Merged {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((_, _, file)) = self.heads.pop()?;
        let line = self.files[file].line;
        let event = self.files[file]
            .head
            .take()
            .expect("a file in the heap has a head");
        self.number += 1;
        let entry = Entry {
            number: self.number,
            file,
            line,
            event,
        };
        Some(self.advance(file).map(|()| entry))
    }
}

/// One file.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    bytes: Vec<u8>,
    /// Number of the last line read.
    line: u64,
    last_at: u64,
    head: Option<Event>,
    torn: bool,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, ReadError> {
        let failed = |error| ReadError::Io {
            path: path.to_path_buf(),
            error,
        };
        let file = File::open(path).map_err(failed)?;
        Ok(Self {
            path: path.to_path_buf(),
            reader: BufReader::with_capacity(1 << 16, file),
            bytes: Vec::new(),
            line: 0,
            last_at: 0,
            head: None,
            torn: false,
        })
    }

    fn advance(&mut self) -> Result<(), ReadError> {
        self.bytes.clear();
        let read = self.reader.read_until(b'\n', &mut self.bytes);
        let length = read.map_err(|error| ReadError::Io {
            path: self.path.clone(),
            error,
        })?;
        if length == 0 {
            return Ok(());
        }
        if self.bytes.last() != Some(&b'\n') {
            self.torn = true;
            return Ok(());
        }
        self.line += 1;
        let (path, line) = (&self.path, self.line);
        let parsed = serde_json::from_slice::<Event>(&self.bytes);
        let event = parsed.map_err(|error| ReadError::Line {
            path: path.clone(),
            line,
            error,
        })?;
        if event.at < self.last_at {
            return Err(ReadError::Disorder {
                path: path.clone(),
                line,
            });
        }
        self.last_at = event.at;
        self.head = Some(event);
        Ok(())
    }
}
