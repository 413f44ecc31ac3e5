//! A message into a batch, and a batch into a record.

use bytes::BytesMut;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};

use super::rig;

/// One message into the buffer of a batch: its bytes and the CRC of its body.
#[divan::bench(args = [128, 1024, 16_384], sample_count = 1000, sample_size = 100)]
fn encode_message(bencher: Bencher, body_bytes: usize) {
    let body = vec![b'x'; body_bytes];
    let message = rig::message(3, &body);
    let size = message.encoded_len().expect("a message within all limits");
    let mut out = BytesMut::with_capacity(size);
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        out.clear();
        black_box(&message)
            .encode(&mut out)
            .expect("a message within all limits");
        black_box(out.len())
    });
}

/// Store times, tables and CRC of a batch of messages of 1 KiB.
#[divan::bench(args = [64, 256], sample_count = 1000, sample_size = 1)]
fn seal(bencher: Bencher, messages: usize) {
    bencher
        .counter(BytesCount::new(rig::batch(messages, 4).len_bytes()))
        .with_inputs(|| rig::batch(messages, 4))
        .bench_local_values(|batch| batch.seal(1_700_000_000_000));
}
