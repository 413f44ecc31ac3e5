//! A broker that keeps all promises, and clients that use all of it at the same time. Each operation begins,
//! has its effect and ends at moments of their own; the seed decides which client moves next.

use std::collections::{BTreeMap, HashMap};

use gantry_checker::event::{Cursor, FaultClass, Locks, Message, Popped, Send};
use gantry_checker::{Answer, Bounds, Event, Note, Queue, Request};

use crate::script::{MS, Script, crc, cursor, message, message_to_send, popped, queue, sent_by};

const QUEUES: u16 = 3;
const NODES: [&str; 3] = ["n1", "n2", "n3"];
const LEASE_NS: u64 = 400 * MS;
const INVISIBLE_MS: u64 = 300;
const DELAY_MS: u64 = 250;
/// Longer than any history.
const ONCE_MS: u64 = 24 * 3_600_000;
/// Events between two changes of the weather.
const FAULT_EVERY: usize = 600;

/// Bounds that fit the simulated clock, which takes a millisecond for each event.
pub fn bounds() -> Bounds {
    Bounds {
        lease_ns: LEASE_NS,
        skew_ns: MS,
        resume_ns: 500 * MS,
        catch_up_ns: 500 * MS,
        drain_ns: 500 * MS,
        late_ns: 500 * MS,
        ..Bounds::default()
    }
}

/// Every fourth message has a key.
fn once_ms(id: u64) -> Option<u64> {
    id.is_multiple_of(4).then_some(ONCE_MS)
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.draw() % limit as u64) as usize
    }

    fn one_in(&mut self, limit: usize) -> bool {
        self.below(limit) == 0
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Producer,
    Consumer,
    Popper,
    Locker,
    Admin,
    Observer,
}

enum Ending {
    Ok(Answer),
    Fail,
    Info,
}

struct Client {
    name: String,
    role: Role,
    request: Option<(u64, Request)>,
    ending: Option<Ending>,
    /// Half messages to be ended.
    halves: Vec<u64>,
    /// Popped messages to be acked or renewed.
    popped: Vec<(Queue, u64)>,
    /// The next offset to pull, and whether it is committed.
    position: (u64, bool),
    number: u16,
}

/// What the group to which messages are popped knows of one.
#[derive(Clone, Copy, Default)]
struct PopState {
    hidden_until: u64,
    attempt: u32,
    acked: bool,
}

#[derive(Default)]
struct Broker {
    queues: HashMap<Queue, Vec<u64>>,
    halves: HashMap<u64, Queue>,
    timers: BTreeMap<(u64, u64), Queue>,
    cursors: HashMap<Cursor, u64>,
    locks: HashMap<Queue, (String, u64)>,
    pops: HashMap<u64, PopState>,
    /// All messages before this one are acked by those who pop.
    pop_floor: u64,
    registers: HashMap<String, String>,
    /// What a send under a key was answered.
    keys: HashMap<u64, u64>,
}

impl Broker {
    fn append(&mut self, queue: &Queue, id: u64) -> u64 {
        let messages = self.queues.entry(queue.clone()).or_default();
        messages.push(id);
        messages.len() as u64 - 1
    }

    fn len(&self, queue: &Queue) -> u64 {
        self.queues.get(queue).map_or(0, Vec::len) as u64
    }

    fn read(&self, queue: &Queue, from: u64, count: usize) -> Vec<Message> {
        let messages = self.queues.get(queue).map_or(&[][..], Vec::as_slice);
        let rows = (from..)
            .zip(messages.iter().skip(from as usize))
            .take(count);
        rows.map(|(offset, id)| message(queue, offset, *id))
            .collect()
    }

    fn tick(&mut self, now: u64) {
        while let Some(entry) = self
            .timers
            .first_entry()
            .filter(|entry| entry.key().0 <= now)
        {
            let ((_, id), queue) = entry.remove_entry();
            self.append(&queue, id);
        }
    }

    fn send(&mut self, send: &Send, node: &str, now: u64) -> Answer {
        let queue = queue((send.id % u64::from(QUEUES)) as u16);
        if send.half {
            self.halves.insert(send.id, queue.clone());
            return sent_by(node, &queue, 1_000_000);
        }
        if let Some(delay_ms) = send.delay_ms {
            self.timers
                .insert((now + delay_ms * MS, send.id), queue.clone());
            return sent_by(node, &queue, 1_000_000);
        }
        let offset = match self.keys.get(&send.id) {
            Some(offset) if send.once_ms.is_some() => *offset,
            _ => self.append(&queue, send.id),
        };
        self.keys.insert(send.id, offset);
        sent_by(node, &queue, offset)
    }

    fn pop(&mut self, now: u64) -> Vec<Popped> {
        let queue = queue(0);
        while self
            .pops
            .get(&self.pop_floor)
            .is_some_and(|state| state.acked)
        {
            self.pop_floor += 1;
        }
        let messages = self.queues.get(&queue).map_or(&[][..], Vec::as_slice);
        let fresh = messages.iter().skip(self.pop_floor as usize);
        for (offset, id) in (self.pop_floor..).zip(fresh) {
            let state = self.pops.entry(offset).or_default();
            if !state.acked && state.hidden_until <= now {
                state.attempt += 1;
                state.hidden_until = now + INVISIBLE_MS * MS;
                return vec![popped(&queue, offset, *id, state.attempt)];
            }
        }
        Vec::new()
    }

    fn lock(&mut self, locks: &Locks, now: u64) -> Answer {
        let mut granted = Vec::new();
        for queue in &locks.queues {
            let fresh = (locks.owner.clone(), now + LEASE_NS);
            let lock = self
                .locks
                .entry(queue.clone())
                .or_insert_with(|| fresh.clone());
            if lock.0 == locks.owner || lock.1 <= now {
                *lock = fresh;
                granted.push(queue.clone());
            }
        }
        Answer::Locked(granted)
    }

    fn apply(&mut self, request: &Request, node: &str, now: u64) -> Answer {
        match request {
            Request::Send(send) => return self.send(send, node, now),
            Request::Pull { queue, from, .. } => {
                let messages = self.read(queue, *from, 8);
                let next = from + messages.len() as u64;
                let node = Some(node.to_string());
                return Answer::Pulled {
                    node,
                    min: 0,
                    max: self.len(queue),
                    next,
                    messages,
                };
            }
            Request::MaxOffset { queue } => {
                let (node, offset) = (Some(node.to_string()), self.len(queue));
                return Answer::End {
                    node,
                    offset,
                    current: true,
                };
            }
            Request::Commit { cursor, offset } | Request::Reset { cursor, offset } => {
                self.cursors.insert(cursor.clone(), *offset);
            }
            Request::Query { cursor } => {
                return Answer::Offset(self.cursors.get(cursor).copied());
            }
            Request::Lock(locks) => return self.lock(locks, now),
            Request::Unlock(locks) => {
                self.locks.retain(|_, (owner, _)| *owner != locks.owner);
            }
            Request::EndTransaction { id, commit } => {
                if let Some(queue) = self.halves.remove(id)
                    && *commit
                {
                    self.append(&queue, *id);
                }
            }
            Request::Pop { .. } => return Answer::Popped(self.pop(now)),
            Request::Ack { offset, .. } => {
                self.pops.entry(*offset).or_default().acked = true;
            }
            Request::Renew {
                offset,
                invisible_ms,
                ..
            } => {
                self.pops.entry(*offset).or_default().hidden_until = now + invisible_ms * MS;
            }
            Request::Put { register, value } => {
                self.registers.insert(register.clone(), value.clone());
            }
            Request::Get { register } => {
                return Answer::Value(self.registers.get(register).cloned());
            }
            Request::Lookup { .. } | Request::Recall { .. } | Request::SendBack { .. } => {
                unreachable!("none of these clients asks for this")
            }
            Request::Dump { queue, .. } => {
                let messages = self.read(queue, 0, usize::MAX);
                return Answer::Dumped {
                    min: 0,
                    next: self.len(queue),
                    messages,
                };
            }
        }
        Answer::Done
    }
}

struct World {
    script: Script,
    random: Random,
    broker: Broker,
    clients: Vec<Client>,
    messages: u64,
    values: u64,
    /// The node that answers.
    leader: usize,
    /// The fault in effect, by number.
    fault: Option<usize>,
    faults: usize,
}

/// A history without a fault of at least so many events.
pub fn good(seed: u64, events: usize) -> Vec<Event> {
    let roles = [
        (Role::Producer, 5),
        (Role::Consumer, QUEUES),
        (Role::Popper, 2),
        (Role::Locker, 2),
        (Role::Admin, 2),
        (Role::Observer, 2),
    ];
    let mut clients = Vec::new();
    for (role, count) in roles {
        for number in 0..count {
            clients.push(Client {
                name: format!("client-{}", clients.len()),
                role,
                request: None,
                ending: None,
                halves: Vec::new(),
                popped: Vec::new(),
                position: (0, true),
                number,
            });
        }
    }
    let mut world = World {
        script: Script::default(),
        random: Random(seed),
        broker: Broker::default(),
        clients,
        messages: 0,
        values: 0,
        leader: 0,
        fault: None,
        faults: 0,
    };
    world.run(events);
    world.script.events
}

impl World {
    fn run(&mut self, events: usize) {
        let nodes = NODES.map(str::to_string).to_vec();
        self.script.note(Note::Cluster {
            broker: "a".to_string(),
            nodes,
        });
        self.progress();
        let mut weather = FAULT_EVERY;
        while self.script.events.len() < events {
            let client = self.random.below(self.clients.len());
            self.step(client, true);
            if self.script.events.len() >= weather {
                self.change_the_weather();
                weather += FAULT_EVERY;
            }
        }
        if self.fault.is_some() {
            self.change_the_weather();
        }
        self.wind_up();
    }

    /// Moves a client on by one event, or by the effect of its request.
    fn step(&mut self, client: usize, may_begin: bool) {
        self.broker.tick(self.script.at);
        if let Some(ending) = self.clients[client].ending.take() {
            self.end(client, ending);
        } else if let Some((_, request)) = &self.clients[client].request {
            let request = request.clone();
            let ending = self.effect(&request);
            self.clients[client].ending = Some(ending);
        } else if may_begin {
            let request = self.request(client);
            let call = self
                .script
                .invoke(&self.clients[client].name, request.clone());
            self.clients[client].request = Some((call, request));
        }
    }

    fn effect(&mut self, request: &Request) -> Ending {
        if self.random.one_in(40) {
            return Ending::Fail;
        }
        let is_lost = self.random.one_in(40);
        if is_lost && self.random.one_in(2) {
            return Ending::Info;
        }
        let answer = self
            .broker
            .apply(request, NODES[self.leader], self.script.at);
        if is_lost {
            Ending::Info
        } else {
            Ending::Ok(answer)
        }
    }

    fn end(&mut self, client: usize, ending: Ending) {
        let client = &mut self.clients[client];
        let (call, request) = client.request.take().expect("what ends has begun");
        match ending {
            Ending::Fail => self.script.fail(&client.name, call),
            Ending::Info => self.script.info(&client.name, call),
            Ending::Ok(answer) => {
                client.learn(&request, &answer);
                self.script.ok(&client.name, call, answer);
            }
        }
    }

    fn request(&mut self, client: usize) -> Request {
        let random = &mut self.random;
        let client = &mut self.clients[client];
        match client.role {
            Role::Producer => {
                if let Some(id) = client.halves.pop() {
                    return Request::EndTransaction {
                        id,
                        commit: !random.one_in(3),
                    };
                }
                if random.one_in(30) && self.messages > 0 {
                    // A message under a key is sent again.
                    let id = 4 * random.below(self.messages.div_ceil(4) as usize) as u64;
                    return Request::Send(Send {
                        once_ms: Some(ONCE_MS),
                        ..message_to_send(id)
                    });
                }
                let mut send = message_to_send(self.messages);
                send.once_ms = once_ms(self.messages);
                let is_plain = send.once_ms.is_some() || !random.one_in(8);
                if !is_plain && random.one_in(2) {
                    send.half = true;
                } else if !is_plain {
                    send.delay_ms = Some(DELAY_MS);
                }
                self.messages += 1;
                Request::Send(send)
            }
            Role::Consumer => {
                let (offset, is_committed) = client.position;
                let cursor = cursor("g", client.number);
                if random.one_in(100) {
                    client.position = (offset / 2, true);
                    return Request::Reset {
                        cursor,
                        offset: offset / 2,
                    };
                }
                if is_committed {
                    let queue = queue(client.number);
                    return Request::Pull {
                        queue,
                        from: offset,
                        filtered: false,
                    };
                }
                client.position.1 = true;
                Request::Commit { cursor, offset }
            }
            Role::Popper => match client.popped.pop() {
                Some((queue, offset)) => {
                    let cursor = Cursor {
                        group: "pop".to_string(),
                        queue,
                    };
                    if random.one_in(4) {
                        return Request::Renew {
                            cursor,
                            offset,
                            invisible_ms: INVISIBLE_MS,
                        };
                    }
                    Request::Ack { cursor, offset }
                }
                None => {
                    let group = "pop".to_string();
                    Request::Pop {
                        group,
                        invisible_ms: INVISIBLE_MS,
                        order: false,
                    }
                }
            },
            Role::Locker => {
                let owner = client.name.clone();
                let locks = Locks {
                    group: "g".to_string(),
                    owner,
                    queues: vec![queue(0)],
                };
                if random.one_in(8) {
                    Request::Unlock(locks)
                } else {
                    Request::Lock(locks)
                }
            }
            Role::Admin => {
                let register = "topic/t".to_string();
                if random.one_in(3) {
                    self.values += 1;
                    return Request::Put {
                        register,
                        value: format!("value-{}", self.values),
                    };
                }
                Request::Get { register }
            }
            Role::Observer => {
                let number = random.below(usize::from(QUEUES)) as u16;
                if random.one_in(2) {
                    return Request::Query {
                        cursor: cursor("g", number),
                    };
                }
                Request::MaxOffset {
                    queue: queue(number),
                }
            }
        }
    }

    /// A fault begins, or ends.
    fn change_the_weather(&mut self) {
        let classes = [
            FaultClass::Isolate,
            FaultClass::DiskFailure,
            FaultClass::Kill,
        ];
        if let Some(number) = self.fault.take() {
            // The node that was hit is the one that does not lead.
            let node = NODES[number % NODES.len()].to_string();
            self.script.note(Note::Started { node });
            self.script.note(Note::Heal {
                name: format!("fault-{number}"),
            });
            self.progress();
            return;
        }
        let number = self.faults;
        self.faults += 1;
        self.fault = Some(number);
        self.leader = (number + 1) % NODES.len();
        // What the former leader has not answered yet is answered before it is hit.
        for client in 0..self.clients.len() {
            self.settle(client);
        }
        self.script.note(Note::Fault {
            name: format!("fault-{number}"),
            class: classes[number % classes.len()],
            nodes: vec![NODES[number % NODES.len()].to_string()],
        });
    }

    fn settle(&mut self, client: usize) {
        while self.clients[client].request.is_some() {
            self.step(client, false);
        }
    }

    fn progress(&mut self) {
        let log = self
            .broker
            .queues
            .values()
            .map(|queue| queue.len() as u64)
            .sum();
        for node in NODES {
            let (broker, node) = ("a".to_string(), node.to_string());
            self.script.note(Note::Progress {
                broker,
                node,
                committed: log,
                applied: log,
            });
        }
    }

    fn wind_up(&mut self) {
        for client in 0..self.clients.len() {
            self.settle(client);
        }
        // Each queue gets one message that nobody has consumed.
        for _ in 0..QUEUES {
            let mut send = message_to_send(self.messages);
            send.once_ms = once_ms(self.messages);
            self.messages += 1;
            let answer = self.broker.send(&send, NODES[self.leader], self.script.at);
            self.script.call("producer", Request::Send(send), answer);
        }
        self.script.note(Note::LoadEnds);
        for number in 0..QUEUES {
            let offset = self.broker.len(&queue(number));
            let commit = Request::Commit {
                cursor: cursor("g", number),
                offset,
            };
            self.script.call("consumer", commit, Answer::Done);
        }
        self.script.wait(2 * DELAY_MS + 2_000);
        self.broker.tick(self.script.at);
        for node in NODES {
            for number in 0..QUEUES {
                let request = Request::Dump {
                    node: node.to_string(),
                    queue: queue(number),
                };
                let answer = self.broker.apply(&request, node, self.script.at);
                self.script.call("harness", request, answer);
            }
            let (broker, node) = ("a".to_string(), node.to_string());
            self.script.note(Note::Digest {
                broker,
                node,
                index: self.messages,
                crc: crc(1),
            });
        }
    }
}

impl Client {
    fn learn(&mut self, request: &Request, answer: &Answer) {
        match (request, answer) {
            (Request::Send(send), Answer::Sent(_)) if send.half => self.halves.push(send.id),
            (Request::Pull { .. }, Answer::Pulled { next, .. }) => {
                let moved = *next != self.position.0;
                self.position = (*next, !moved);
            }
            (Request::Pop { .. }, Answer::Popped(popped)) => {
                let places = popped
                    .iter()
                    .map(|one| (one.queue.clone(), one.message.offset));
                self.popped.extend(places);
            }
            _ => {}
        }
    }
}
