//! The `gantry` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    gantry::cli::main()
}
