//! The `gantry` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "planted-bugs")]
    plant();
    gantry::cli::main()
}

/// Puts the defect in force that `GANTRY_PLANTED_BUG` names, if it is set: for chaos runs that must fail.
#[cfg(feature = "planted-bugs")]
fn plant() {
    use gantry_storage::planted::{Bug, plant};

    let Ok(name) = std::env::var("GANTRY_PLANTED_BUG") else {
        return;
    };
    let bug = Bug::ALL.into_iter().find(|bug| bug.name() == name);
    plant(bug.unwrap_or_else(|| panic!("there is no defect {name:?}")));
}
