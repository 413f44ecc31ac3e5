//! Plants bugs and counts the seeds until each is found.

use gantry_storage::planted::Bug;

use crate::sweep::{self, Sweep};

/// Plants a bug in this process.
///
/// # Errors
/// There is none of that name.
pub fn plant(name: &str) -> Result<(), String> {
    let mut all = Bug::ALL.into_iter();
    let bug = all.find(|bug| bug.name() == name);
    let bug = bug.ok_or_else(|| {
        let names = Bug::ALL.map(Bug::name).join(", ");
        format!("there is no bug {name}; there are {names}")
    })?;
    gantry_storage::planted::plant(bug);
    Ok(())
}

/// Searches for each planted bug with at most `limit` seeds, and prints a table. True if all were found.
///
/// # Errors
/// Processes cannot be started.
pub fn search(sweep: &Sweep, limit: u64) -> Result<bool, String> {
    println!("| Bug | What it does | Seeds | Found by |");
    println!("|---|---|---|---|");
    let mut missed = 0;
    for bug in Bug::ALL {
        let sweep = Sweep {
            bug: Some(bug.name().to_string()),
            ..sweep.clone()
        };
        let mut found: Option<(u64, String)> = None;
        sweep::each(&sweep, 0..limit, |ended| {
            sweep::progress(&format!("{}: seed {}", bug.name(), ended.seed));
            if !ended.passed {
                found = Some((ended.seed, first_reason(&ended.text)));
            }
            found.is_none()
        })?;
        sweep::progress("");
        let (name, meaning) = (bug.name(), bug.meaning());
        match found {
            Some((seed, reason)) => println!("| {name} | {meaning} | {} | {reason} |", seed + 1),
            None => {
                missed += 1;
                println!("| {name} | {meaning} | not within {limit} | |");
            }
        }
    }
    let found = Bug::ALL.len() - missed;
    println!("\n{found} of {} planted bugs found", Bug::ALL.len());
    Ok(missed == 0)
}

/// What a failed run complained about first, in short.
fn first_reason(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    let line = line.unwrap_or("no output").replace('|', "/");
    line.chars().take(70).collect()
}
