//! The inputs that are kept in the repository.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the inputs of a target are.
pub fn directory(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}

/// The inputs of a target with their names, in the order of those.
///
/// # Panics
/// If they cannot be read: a corpus that is lost must not look like one that holds.
pub fn read(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(directory(target)).expect("the corpus is in the repository") {
        let path = entry.expect("the corpus can be listed").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let bytes = fs::read(&path).expect("the corpus can be read");
        inputs.push((name.into_owned(), bytes));
    }
    inputs.sort();
    inputs
}
