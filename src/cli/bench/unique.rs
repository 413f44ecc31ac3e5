//! Unique keys, as stock clients give one to each message.

use std::time::{SystemTime, UNIX_EPOCH};

use super::frames::put_digits;

/// Keys have as many characters as those of stock clients.
pub(super) const KEY_BYTES: usize = 32;

/// A key where one will be.
pub(super) const KEY_PLACEHOLDER: &str = "00000000000000000000000000000000";

/// Keys that no other process makes: its number, the time of its start, a count.
#[derive(Debug)]
pub(super) struct Keys {
    text: [u8; KEY_BYTES],
    count: u64,
}

impl Keys {
    pub(super) fn new() -> Keys {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let start = since.unwrap_or_default().as_millis() % 1_000_000_000;
        let mut text = [b'0'; KEY_BYTES];
        put_digits(&mut text[..7], std::process::id());
        put_digits(&mut text[7..16], start as u32);
        Keys { text, count: 0 }
    }

    /// The next one.
    pub(super) fn next(&mut self) -> &[u8; KEY_BYTES] {
        let (high, low) = (self.count / 1_000_000_000, self.count % 1_000_000_000);
        put_digits(&mut self.text[16..23], high as u32);
        put_digits(&mut self.text[23..], low as u32);
        self.count += 1;
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_are_as_long_as_those_of_stock_clients() {
        let mut keys = Keys::new();
        keys.count = 999_999_999;
        let first = *keys.next();
        let second = *keys.next();
        assert_eq!(&first[16..], b"0000000999999999");
        assert_eq!(&second[16..], b"0000001000000000");
        assert_eq!(first[..16], second[..16]);
        assert_eq!(KEY_PLACEHOLDER.len(), KEY_BYTES);
    }
}
