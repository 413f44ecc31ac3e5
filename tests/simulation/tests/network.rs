//! What the simulated network does to those who use it.

#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use simulation::net::{ClientConnection, Net, Reader, Writer};
use simulation::time::{STEP_NS, Time};
use simulation::trace::Trace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep_until};

const CLIENT: u16 = 100;
const SERVER: u16 = 1;

struct Rig {
    net: Net,
    time: Time,
    runtime: Runtime,
    origin: Instant,
    accepted: UnboundedReceiver<ClientConnection>,
}

impl Rig {
    fn new() -> Self {
        let time = Time::default();
        let net = Net::new(1, time.clone(), Trace::new(time.clone(), None));
        net.switch_on(CLIENT);
        net.switch_on(SERVER);
        let (clients, accepted) = unbounded_channel();
        net.listen(SERVER, None, Some(clients));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let origin = runtime.block_on(async { Instant::now() });
        Rig {
            net,
            time,
            runtime,
            origin,
            accepted,
        }
    }

    fn run(&self, steps: u64) {
        for _ in 0..steps {
            self.time.step();
            self.net.deliver();
            let until = self.origin + Duration::from_nanos(self.time.now_ns());
            self.runtime
                .block_on(async move { sleep_until(until).await });
        }
    }

    /// Does something while time goes on, for so many steps at most.
    fn within<T: Send + 'static>(
        &self,
        steps: u64,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let working = self.runtime.spawn(work);
        for _ in 0..steps {
            if working.is_finished() {
                break;
            }
            self.run(1);
        }
        let done = working.is_finished();
        done.then(|| self.runtime.block_on(working).unwrap())
    }

    fn connect(&mut self) -> ((Reader, Writer), (Reader, Writer)) {
        let (net, address) = (self.net.clone(), SocketAddr::from(([10, 0, 1, 1], 9)));
        let opening = async move { net.connect_client(CLIENT, SERVER, address).await };
        let near = self.within(100, opening).unwrap().unwrap();
        let (reader, writer, _) = self.accepted.try_recv().unwrap();
        (near, (reader, writer))
    }
}

#[test]
fn bytes_arrive_in_order_and_the_end_after_them() {
    let mut rig = Rig::new();
    let ((_reader, mut writer), (mut far, _answers)) = rig.connect();
    let sent: Vec<u8> = (0..200_000u32).map(|number| number as u8).collect();
    let expected = sent.clone();
    rig.runtime.spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let reading = async move {
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        read
    };
    assert_eq!(rig.within(200, reading).unwrap(), expected);
    assert!(rig.time.now_ns() > STEP_NS, "it takes time");
}

#[test]
fn nothing_passes_a_cut_way_and_what_waited_comes_or_the_connection_breaks() {
    let (mut came, mut broke) = (0, 0);
    for _ in 0..20 {
        let mut rig = Rig::new();
        // Different chances for each.
        for _ in 0..came + broke {
            drop(rig.connect());
        }
        let ((_reader, mut writer), (mut far, _answers)) = rig.connect();
        rig.net.cut(CLIENT, SERVER);
        rig.runtime
            .block_on(async { writer.write_all(b"hello").await.unwrap() });
        let reading = rig.runtime.spawn(async move {
            let mut read = [0; 5];
            far.read_exact(&mut read).await.map(|_| read)
        });
        rig.run(3_000);
        assert!(!reading.is_finished(), "a cut way carries nothing");
        rig.net.heal(CLIENT, SERVER);
        match rig.within(10, reading).unwrap().unwrap() {
            Ok(read) => {
                assert_eq!(&read, b"hello");
                came += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                broke += 1;
            }
        }
    }
    assert!(came > 0 && broke > 0, "{came} came, {broke} broke");
}

#[test]
fn the_death_of_a_process_is_seen_and_that_of_a_machine_is_not() {
    let mut rig = Rig::new();
    let ((mut reader, _writer), far) = rig.connect();
    drop(far);
    let read = async move { reader.read(&mut [0; 1]).await.unwrap() };
    assert_eq!(rig.within(20, read), Some(0), "the end of the stream");

    let ((mut reader, mut writer), far) = rig.connect();
    rig.net.switch_off(SERVER);
    drop(far);
    rig.runtime
        .block_on(async { writer.write_all(b"x").await.unwrap() });
    let reading = rig
        .runtime
        .spawn(async move { reader.read(&mut [0; 1]).await });
    rig.run(9_000);
    assert!(!reading.is_finished(), "silence");
    rig.run(2_000);
    let broken = rig.within(1, reading).unwrap().unwrap();
    assert_eq!(broken.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn connecting_is_refused_by_a_machine_and_unanswered_without_one() {
    let rig = Rig::new();
    let address = SocketAddr::from(([10, 0, 1, 1], 9));
    rig.net.listen(SERVER, None, None);
    let net = rig.net.clone();
    let refused = async move { net.connect_client(CLIENT, SERVER, address).await.err() };
    let refused = rig.within(50, refused).unwrap().unwrap();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    rig.net.switch_off(SERVER);
    let net = rig.net.clone();
    let unanswered = async move { net.connect_client(CLIENT, SERVER, address).await.err() };
    let unanswered = rig.within(4_000, unanswered).unwrap().unwrap();
    assert_eq!(unanswered.kind(), ErrorKind::TimedOut);
}
