//! The string hash that tags and keys are filtered and indexed by.

/// Java's string hash: over UTF-16 units, wrapping at 32 bits.
///
/// A message's tag code is this value, sign-extended; 0 without a tag.
pub fn java_hash(text: &str) -> i32 {
    let mut hash: i32 = 0;
    for unit in text.encode_utf16() {
        hash = hash.wrapping_mul(31).wrapping_add(i32::from(unit));
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(java_hash(""), 0);
        assert_eq!(java_hash("a"), 97);
        assert_eq!(java_hash("TagA"), 84 * 29791 + 97 * 961 + 103 * 31 + 65);
        // "Aa" and "BB" are the classic collision.
        assert_eq!(java_hash("Aa"), java_hash("BB"));
        // A supplementary character is two units: D83D DE00.
        assert_eq!(java_hash("\u{1F600}"), 0xD83D * 31 + 0xDE00);
        // 2^31 is reached: the sum wraps.
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
    }
}
