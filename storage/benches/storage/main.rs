//! What storage costs: bytes of messages and batches, the log on a real disk, the store on top of it.

mod batch;
mod commitlog;
mod parked;
mod rig;
mod store;

fn main() {
    divan::main();
}
