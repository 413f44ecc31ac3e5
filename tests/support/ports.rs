//! Ports for the nodes of a test, below those that the system gives to outgoing connections.

use std::net::{Ipv4Addr, TcpListener};

const FIRST: u16 = 30_000;
const HUNDREDS: u16 = 27;

/// A hundred ports that nothing listens on, except that the last is held here: whoever looks for a hundred
/// in the same way (tests, `gantry demo`) takes another, also while none of ours is in use.
pub struct Hundred {
    /// The first of them.
    pub first: u16,
    _claim: TcpListener,
}

impl Hundred {
    /// Claims one until it is dropped.
    pub fn claim() -> Hundred {
        // Tests of one machine begin to look at different places.
        let start = (std::process::id() % u32::from(HUNDREDS)) as u16;
        let hundreds = (start..start + HUNDREDS).map(|n| FIRST + n % HUNDREDS * 100);
        let listen = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let claim = |first: u16| {
            let claim = listen(first + 99).ok()?;
            let is_free = (first..first + 99).all(|port| listen(port).is_ok());
            is_free.then_some(Hundred {
                first,
                _claim: claim,
            })
        };
        hundreds.filter_map(claim).next().unwrap()
    }
}
