//! Runs seeds of the simulation.

use std::process::ExitCode;

fn main() -> ExitCode {
    let seed = std::env::args()
        .nth(1)
        .and_then(|a| a.parse().ok())
        .unwrap_or(1);
    let out = std::env::args()
        .nth(2)
        .map(|p| std::fs::File::create(p).expect("file"));
    let started = std::time::Instant::now();
    let outcome = simulation::run::run(seed, out);
    println!("{outcome:#?} {:?}", started.elapsed());
    ExitCode::SUCCESS
}
