//! Runs the tools of the system.

use std::process::Stdio;

use tokio::process::Command;

/// Why the harness itself could not go on; says what was tried.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// What most of this crate gives back.
pub type Outcome<T = ()> = Result<T, Failure>;

/// A failure with a text.
pub fn failure<T>(text: impl Into<String>) -> Outcome<T> {
    Err(Failure(text.into()))
}

/// Turns an error into a failure that says what was being done.
pub fn while_doing<E: std::fmt::Display>(what: impl Into<String>) -> impl FnOnce(E) -> Failure {
    let what = what.into();
    move |error| Failure(format!("{what}: {error}"))
}

/// Runs a program to its end and gives its output; anything but success is a failure.
pub async fn run(program: &str, arguments: &[&str]) -> Outcome<String> {
    let shown = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(while_doing(shown()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return failure(format!("{} ({}): {}", shown(), output.status, said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program is there to be run.
pub fn exists(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|directory| directory.join(program).is_file())
}
