//! Everything random in the process comes from the seed.
//!
//! The standard library's hash maps, tokio's choice among ready branches and openraft's election timers all
//! draw from `getrandom` of the C library. The program's own definition takes precedence over the library's,
//! so none of them has to know that it is simulated.

use std::ffi::{c_uint, c_void};
use std::sync::Mutex;

use crate::rng::Rng;

static SOURCE: Mutex<Option<Rng>> = Mutex::new(None);

/// Begins the stream of a seed. Before that the stream of seed 0 is drawn from.
pub fn seed(seed: u64) {
    *lock() = Some(Rng::new(seed, "entropy"));
}

/// Whether the definition below is the one that is used.
///
/// # Panics
/// Never while it is.
pub fn is_in_force() -> bool {
    use std::hash::{BuildHasher, RandomState};
    // Keys are drawn once for a thread.
    let fresh = || {
        let hashed = std::thread::spawn(|| RandomState::new().hash_one(1));
        hashed.join().expect("hashing a number does not fail")
    };
    seed(7);
    let first = fresh();
    seed(7);
    first == fresh()
}

fn lock() -> std::sync::MutexGuard<'static, Option<Rng>> {
    SOURCE.lock().expect("drawing a number does not panic")
}

fn fill(bytes: &mut [u8]) {
    let mut source = lock();
    let rng = source.get_or_insert_with(|| Rng::new(0, "entropy"));
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&rng.draw().to_le_bytes()[..chunk.len()]);
    }
}

/// The C library's function of that name: fills all of the buffer.
///
/// # Safety
/// `buffer` must be writable for `length` bytes, as the C library demands, too.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, _flags: c_uint) -> isize {
    if length > 0 {
        // SAFETY: the caller vouches for the buffer, and nothing else refers to it during the call.
        fill(unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) });
    }
    length as isize
}
