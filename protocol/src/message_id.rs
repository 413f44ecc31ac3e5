//! The two kinds of message ids.
//!
//! The *offset message id* names a place: hex of the store host (4 or 16 bytes), its port (4) and
//! the physical offset (8). The *unique key* names the message itself and is made by the sender.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

/// Bytes that either id stands for, at most: those with an IPv6 address.
const ID_BYTES_MAX: usize = 28;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Where a message is stored. Its text has 32 (IPv4) or 56 (IPv6) uppercase hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OffsetMessageId {
    /// Address of the broker that answers for it.
    pub host: SocketAddr,
    /// Position in the log, in bytes.
    pub physical_offset: i64,
}

/// A text that is not an offset message id; it may still be a unique key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not an offset message id: 32 or 56 hex digits are needed")]
pub struct BadMessageId;

impl OffsetMessageId {
    /// Appends the text, without a detour over formatting: there is one in each answer to a send.
    pub fn append_to(&self, text: &mut String) {
        push_ip(self.host.ip(), text);
        push_hex(&u32::from(self.host.port()).to_be_bytes(), text);
        push_hex(&self.physical_offset.to_be_bytes(), text);
    }
}

impl fmt::Display for OffsetMessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(2 * ID_BYTES_MAX);
        self.append_to(&mut text);
        f.write_str(&text)
    }
}

impl FromStr for OffsetMessageId {
    type Err = BadMessageId;

    fn from_str(text: &str) -> Result<Self, BadMessageId> {
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(BadMessageId);
        }
        let (ip, rest) = match text.len() {
            32 => (
                IpAddr::V4(Ipv4Addr::from(hex(&text[..8])? as u32)),
                &text[8..],
            ),
            56 => (IpAddr::V6(Ipv6Addr::from(hex(&text[..32])?)), &text[32..]),
            _ => return Err(BadMessageId),
        };
        let port = u16::try_from(hex(&rest[..8])?).map_err(|_| BadMessageId)?;
        let physical_offset = hex(&rest[8..])? as u64 as i64;
        Ok(OffsetMessageId {
            host: SocketAddr::new(ip, port),
            physical_offset,
        })
    }
}

/// Makes the unique keys of one sender.
///
/// A key is hex of the sender's address, 2 bytes of its process id, 4 bytes that tell two senders
/// of one process apart, milliseconds since the month began (4) and a counter (2).
#[derive(Clone, Debug)]
pub struct UniqueKeys {
    prefix: String,
    counter: u16,
}

impl UniqueKeys {
    /// Keys for a sender at `ip` in process `pid`; `salt` differs between senders of a process.
    pub fn new(ip: IpAddr, pid: u32, salt: u32) -> Self {
        let mut prefix = String::with_capacity(44);
        push_ip(ip, &mut prefix);
        push_hex(&(pid as u16).to_be_bytes(), &mut prefix);
        push_hex(&salt.to_be_bytes(), &mut prefix);
        UniqueKeys { prefix, counter: 0 }
    }

    /// The next key. `now_ms` is the time in milliseconds since 1970.
    ///
    /// Keys are unique as long as fewer than 65536 are made per millisecond.
    pub fn next(&mut self, now_ms: i64) -> String {
        let since_month = since_month_began_ms(now_ms);
        let mut key = String::with_capacity(2 * ID_BYTES_MAX);
        key.push_str(&self.prefix);
        push_hex(&(since_month as u32).to_be_bytes(), &mut key);
        push_hex(&self.counter.to_be_bytes(), &mut key);
        self.counter = self.counter.wrapping_add(1);
        key
    }
}

fn push_ip(ip: IpAddr, text: &mut String) {
    match ip {
        IpAddr::V4(ip) => push_hex(&ip.octets(), text),
        IpAddr::V6(ip) => push_hex(&ip.octets(), text),
    }
}

/// Appends two uppercase digits per byte, of which there are at most 16.
fn push_hex(bytes: &[u8], text: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    let digits = std::str::from_utf8(&digits[..2 * bytes.len()]);
    text.push_str(digits.expect("hex digits are ASCII"));
}

fn hex(digits: &str) -> Result<u128, BadMessageId> {
    u128::from_str_radix(digits, 16).map_err(|_| BadMessageId)
}

/// Milliseconds since the first of the month, UTC.
fn since_month_began_ms(now_ms: i64) -> i64 {
    let days = now_ms.div_euclid(DAY_MS);
    (day_of_month(days) - 1) * DAY_MS + now_ms.rem_euclid(DAY_MS)
}

/// Day of the month, from 1, of a day counted from 1970-01-01.
///
/// Counts in years that begin on the first of March, so that the leap day is a year's last, and in
/// eras of 400 years, after which the calendar repeats.
fn day_of_month(days_since_1970: i64) -> i64 {
    const DAYS_TO_1970: i64 = 719_468;
    const ERA_DAYS: i64 = 146_097;
    let day_of_era = (days_since_1970 + DAYS_TO_1970).rem_euclid(ERA_DAYS);
    let leap_correction = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_correction) / 365;
    let year_start = 365 * year_of_era + year_of_era / 4 - year_of_era / 100;
    let day_of_year = day_of_era - year_start;
    let month = (5 * day_of_year + 2) / 153;
    day_of_year - (153 * month + 2) / 5 + 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn golden_ids_and_back() {
        let cases = [
            ("127.0.0.1:10911", 256, "7F00000100002A9F0000000000000100"),
            (
                "[::1]:80",
                i64::MAX,
                "00000000000000000000000000000001000000507FFFFFFFFFFFFFFF",
            ),
        ];
        for (host, physical_offset, text) in cases {
            let id = OffsetMessageId {
                host: host.parse().unwrap(),
                physical_offset,
            };
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse(), Ok(id));
            assert_eq!(text.to_lowercase().parse(), Ok(id));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let good = "7F00000100002A9F0000000000000100";
        for cut in 0..good.len() {
            assert_eq!(good[..cut].parse::<OffsetMessageId>(), Err(BadMessageId));
        }
        let bad = [
            "+F00000100002A9F0000000000000100",
            "7F00000100012A9F0000000000000100",
        ];
        for text in bad {
            assert_eq!(text.parse::<OffsetMessageId>(), Err(BadMessageId));
        }
    }

    #[test]
    fn unique_keys_count_up() {
        let mut keys = UniqueKeys::new("10.1.2.3".parse().unwrap(), 0x1_2345, 0xABCD);
        // 1970-01-02 00:00:00.001
        let first = keys.next(DAY_MS + 1);
        assert_eq!(first, "0A01020323450000ABCD05265C010000");
        assert_eq!(keys.next(DAY_MS + 1), "0A01020323450000ABCD05265C010001");
        let mut v6 = UniqueKeys::new("::1".parse().unwrap(), 1, 1);
        assert_eq!(v6.next(0).len(), 56);
    }

    #[test]
    fn days_of_the_month() {
        // Day numbers from 1970-01-01: 1970-02-28, 03-01; 2000-02-29, 03-01; 2024-02-29; 1969-12-31.
        let cases = [
            (0, 1),
            (58, 28),
            (59, 1),
            (11_016, 29),
            (11_017, 1),
            (19_782, 29),
            (-1, 31),
        ];
        for (days, day) in cases {
            assert_eq!(day_of_month(days), day, "day number {days}");
        }
    }
}
