//! The process stands still (SIGSTOP) while its sockets stay open.

use rustix::process::Signal;

use super::{Effect, Nemesis};
use crate::net::name_of;
use crate::shell::Outcome;

pub fn inject(nemesis: &mut Nemesis, node: usize) -> Outcome<Effect> {
    if !nemesis.cluster.nodes[node].signal(Signal::STOP)? {
        return Ok(Effect::Moot(format!("{} is down", name_of(node))));
    }
    Ok(Effect::Done {
        nodes: vec![node],
        detail: format!("SIGSTOP of {}", name_of(node)),
    })
}

pub fn heal(nemesis: &mut Nemesis, node: usize) -> Outcome {
    // It may have been killed in the meantime.
    nemesis.cluster.nodes[node].signal(Signal::CONT)?;
    Ok(())
}
