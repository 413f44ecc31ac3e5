//! Synchronous sends the way stock clients do them.
//!
//! Queues in turn, three attempts of 3 s each, every further attempt on another broker name when there is
//! one, routes asked for again every 30 s and not because a send failed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use gantry_protocol::bodies::{TopicRoute, perm};
use gantry_protocol::headers::{SendRequest, SendResponse};
use gantry_protocol::message_id::UniqueKeys;
use gantry_protocol::properties::{self, names};
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode, topic};

use super::name_server::{refused, request, unreadable};
use super::{Client, ClientError};

const ATTEMPTS: usize = 3;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
const ROUTE_AGE_MAX: Duration = Duration::from_secs(30);
/// Queues that a stock client asks for when its send creates the topic.
const NEW_TOPIC_QUEUES: i32 = 4;
const PRODUCER_GROUP: &str = "gantry-cli";

/// Codes after which stock producers try another broker name.
const RETRIED_CODES: [ResponseCode; 7] = [
    ResponseCode::SYSTEM_ERROR,
    ResponseCode::SYSTEM_BUSY,
    ResponseCode::SERVICE_NOT_AVAILABLE,
    ResponseCode::NO_PERMISSION,
    ResponseCode::TOPIC_NOT_EXIST,
    ResponseCode::NO_BUYER_ID,
    ResponseCode::NOT_IN_CURRENT_UNIT,
];

/// A message to be sent.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// The body; brokers refuse an empty one.
    pub body: Bytes,
    /// Tag that consumers may select by.
    pub tag: Option<String>,
    /// Keys to find the message by, separated by blanks.
    pub keys: Option<String>,
    /// Further properties as a text; may be empty.
    pub properties: String,
    /// How the body is compressed; 0 if it is not.
    pub sys_flag: i32,
}

/// Where an acknowledged message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The offsetMsgId.
    pub message_id: String,
    /// The key that this client gave the message; equal over all attempts.
    pub unique_key: String,
    /// Broker group.
    pub broker: String,
    /// Queue of the topic in that group.
    pub queue: i32,
    /// Offset in the queue.
    pub offset: i64,
    /// Attempts that it took, 1 if the first succeeded.
    pub attempts: usize,
}

/// A send that was given up. The message may nevertheless have been stored.
#[derive(Clone, Debug, thiserror::Error)]
#[error("not sent after {attempts} attempts; the last one: {last}")]
pub struct SendFailure {
    /// Attempts made.
    pub attempts: usize,
    /// What the last one met.
    pub last: ClientError,
}

/// Sends to one topic. Any number of tasks may share it.
pub struct Producer {
    client: Arc<Client>,
    topic: String,
    route: Mutex<Option<(Instant, Arc<Targets>)>>,
    keys: Mutex<UniqueKeys>,
    /// Counts sends; picks the queue.
    next: AtomicUsize,
}

/// The queues that can be written, and the id 0 of each group.
struct Targets {
    queues: Vec<(String, i32)>,
    addresses: BTreeMap<String, String>,
}

impl Producer {
    /// A producer for a topic. Asks nobody yet.
    pub fn new(client: Arc<Client>, topic: &str) -> Producer {
        static SALT: AtomicU32 = AtomicU32::new(0);
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        // Tells apart producers of one process, and processes that share a number on two machines.
        let salt = SALT.fetch_add(1, Ordering::Relaxed) ^ (now_ms() as u32) << 8;
        Producer {
            client,
            topic: topic.to_string(),
            route: Mutex::new(None),
            keys: Mutex::new(UniqueKeys::new(ip, std::process::id(), salt)),
            next: AtomicUsize::new(salt as usize),
        }
    }

    /// Sends a message and awaits the acknowledgement.
    ///
    /// # Errors
    /// [`SendFailure`] after the last attempt, or at the first refusal that no other broker would lift.
    pub async fn send(&self, message: &Outgoing) -> Result<Acked, SendFailure> {
        let unique_key = self
            .keys
            .lock()
            .expect("no code panics while it holds this lock")
            .next(now_ms());
        let mut avoid = None;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let error = match self.attempt(message, &unique_key, &mut avoid).await {
                Ok(acked) => return Ok(Acked { attempts, ..acked }),
                Err(error) => error,
            };
            if attempts == ATTEMPTS || !is_retried(&error) {
                return Err(SendFailure {
                    attempts,
                    last: error,
                });
            }
            tracing::debug!(%error, "trying another broker");
        }
    }

    /// Sends once to a group by the route as it is now, as a producer that has just been started would.
    ///
    /// # Errors
    /// [`ClientError`] of this one attempt.
    pub async fn send_once_to(
        &self,
        group: &str,
        message: &Outgoing,
    ) -> Result<Acked, ClientError> {
        let unique_key = self
            .keys
            .lock()
            .expect("no code panics while it holds this lock")
            .next(now_ms());
        let targets = self.ask_for_targets().await?;
        let queue = targets.queues.iter().find(|(name, _)| name == group);
        let Some((broker, queue)) = queue else {
            return Err(ClientError::Unsendable(format!(
                "the route has no queue in {group}"
            )));
        };
        self.send_to(
            &targets.addresses[broker],
            (broker, *queue),
            message,
            &unique_key,
        )
        .await
    }

    async fn attempt(
        &self,
        message: &Outgoing,
        unique_key: &str,
        avoid: &mut Option<String>,
    ) -> Result<Acked, ClientError> {
        let targets = self.targets().await?;
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = |step: usize| &targets.queues[start.wrapping_add(step) % targets.queues.len()];
        let other = (0..targets.queues.len())
            .map(turn)
            .find(|(broker, _)| Some(broker) != avoid.as_ref());
        let (broker, queue) = other.unwrap_or_else(|| turn(0));
        *avoid = Some(broker.clone());
        self.send_to(
            &targets.addresses[broker],
            (broker, *queue),
            message,
            unique_key,
        )
        .await
    }

    async fn send_to(
        &self,
        address: &str,
        (broker, queue): (&str, i32),
        message: &Outgoing,
        unique_key: &str,
    ) -> Result<Acked, ClientError> {
        let code = RequestCode::SEND_MESSAGE_V2;
        let asked = self.send_request(code, (broker, queue), message, unique_key)?;
        let answer = self.client.call(address, asked, ATTEMPT_TIMEOUT).await?;
        if answer.response_code() != ResponseCode::SUCCESS {
            return Err(refused(address, code, &answer));
        }
        let header = SendResponse::parse(&answer.fields)
            .map_err(|error| unreadable(address, code, error))?;
        Ok(Acked {
            message_id: header.msg_id.to_string(),
            unique_key: unique_key.to_string(),
            broker: broker.to_string(),
            queue: header.queue_id,
            offset: header.queue_offset,
            attempts: 1,
        })
    }

    fn send_request(
        &self,
        code: RequestCode,
        (broker, queue): (&str, i32),
        message: &Outgoing,
        unique_key: &str,
    ) -> Result<RemotingCommand, ClientError> {
        let mut text = properties::Builder::from_text(&message.properties);
        let optional = [(names::TAGS, &message.tag), (names::KEYS, &message.keys)];
        for (name, value) in optional
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?)))
        {
            if value.contains(['\u{1}', '\u{2}']) {
                return Err(ClientError::Unsendable(format!(
                    "{name} contains a control character"
                )));
            }
            text.push(name, value);
        }
        text.push(names::UNIQ_KEY, unique_key)
            .push(names::WAIT_STORE, "true");
        let header = SendRequest {
            producer_group: PRODUCER_GROUP,
            topic: &self.topic,
            default_topic: topic::DEFAULT_TOPIC,
            default_topic_queue_nums: NEW_TOPIC_QUEUES,
            queue_id: queue,
            sys_flag: message.sys_flag,
            born_timestamp: now_ms(),
            properties: Some(text.as_str()),
            reconsume_times: Some(0),
            unit_mode: Some(false),
            batch: Some(false),
            broker_name: Some(broker),
            ..SendRequest::default()
        };
        let asked = request(code, |fields| header.write(code, fields));
        Ok(asked.with_body(message.body.clone()))
    }

    /// The queues by a route that is at most 30 s old, or older when no name server answers.
    async fn targets(&self) -> Result<Arc<Targets>, ClientError> {
        let known = self
            .route
            .lock()
            .expect("no code panics while it holds this lock")
            .clone();
        if let Some((asked, targets)) = &known
            && asked.elapsed() < ROUTE_AGE_MAX
        {
            return Ok(Arc::clone(targets));
        }
        let targets = match (self.ask_for_targets().await, known) {
            (Ok(targets), _) => Arc::new(targets),
            (Err(error), Some((_, old))) => {
                tracing::warn!(%error, "keeping the old route");
                old
            }
            (Err(error), None) => return Err(error),
        };
        let fresh = Some((Instant::now(), Arc::clone(&targets)));
        *self
            .route
            .lock()
            .expect("no code panics while it holds this lock") = fresh;
        Ok(targets)
    }

    async fn ask_for_targets(&self) -> Result<Targets, ClientError> {
        if let Some(route) = self.client.route(&self.topic).await? {
            return Targets::of(&route, i32::MAX, &self.topic);
        }
        // The broker creates the topic at the first send, like its default topic.
        match self.client.route(topic::DEFAULT_TOPIC).await? {
            Some(route) => Targets::of(&route, NEW_TOPIC_QUEUES, &self.topic),
            None => Err(ClientError::Unsendable(format!(
                "topic {:?} does not exist and the cluster creates none by itself; create it with \
                 `gantry topic create {}`",
                self.topic, self.topic
            ))),
        }
    }
}

impl Targets {
    fn of(route: &TopicRoute, queues_max: i32, topic: &str) -> Result<Targets, ClientError> {
        let mut addresses = BTreeMap::new();
        for broker in &route.broker_datas {
            if let Some(address) = broker.broker_addrs.get(&0) {
                addresses.insert(broker.broker_name.clone(), address.clone());
            }
        }
        let writable =
            |broker: &str, bits: i32| bits & perm::WRITE != 0 && addresses.contains_key(broker);
        let mut queues = Vec::new();
        // Queue by queue over all brokers, so that sends in turn visit the groups in turn.
        let most = route
            .queue_datas
            .iter()
            .map(|data| data.write_queue_nums)
            .max()
            .unwrap_or(0);
        for queue in 0..most.min(queues_max) {
            for data in &route.queue_datas {
                if queue < data.write_queue_nums && writable(&data.broker_name, data.perm) {
                    queues.push((data.broker_name.clone(), queue));
                }
            }
        }
        if queues.is_empty() {
            return Err(ClientError::Unsendable(format!(
                "topic {topic:?} has no queue that can be written"
            )));
        }
        Ok(Targets { queues, addresses })
    }
}

fn is_retried(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. }
        | ClientError::Closed { .. }
        | ClientError::TimedOut { .. } => true,
        ClientError::Refused { code, .. } => RETRIED_CODES.contains(code),
        ClientError::Unreadable { .. } | ClientError::Unsendable(_) => false,
    }
}

/// Milliseconds since 1970; this client's clock is only shown and compared by people.
fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_millis() as i64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use gantry_protocol::bodies::{BrokerData, QueueData};

    use super::*;

    fn route(brokers: &[(&str, i32, i64)]) -> TopicRoute {
        let mut route = TopicRoute::default();
        for (name, queues, id) in brokers {
            route.queue_datas.push(QueueData {
                broker_name: name.to_string(),
                perm: perm::READ | perm::WRITE,
                read_queue_nums: *queues,
                write_queue_nums: *queues,
                topic_sys_flag: 0,
            });
            route.broker_datas.push(BrokerData {
                broker_name: name.to_string(),
                broker_addrs: [(*id, format!("{name}:1"))].into(),
                ..BrokerData::default()
            });
        }
        route
    }

    #[test]
    fn queues_alternate_between_groups_and_need_an_id_0() {
        let targets =
            Targets::of(&route(&[("a", 2, 0), ("b", 1, 0), ("c", 9, 1)]), 4, "t").unwrap();
        let queues: Vec<_> = targets
            .queues
            .iter()
            .map(|(name, id)| (name.as_str(), *id))
            .collect();
        assert_eq!(queues, [("a", 0), ("b", 0), ("a", 1)]);
        assert!(Targets::of(&route(&[("c", 9, 1)]), 4, "t").is_err());
    }

    #[test]
    fn refusals_that_another_broker_may_lift_are_retried() {
        let refusal = |code| ClientError::Refused {
            address: "a:1".into(),
            request: RequestCode::SEND_MESSAGE_V2,
            code,
            remark: String::new(),
        };
        assert!(is_retried(&refusal(ResponseCode::SERVICE_NOT_AVAILABLE)));
        assert!(!is_retried(&refusal(ResponseCode::MESSAGE_ILLEGAL)));
        assert!(is_retried(&ClientError::Closed {
            address: "a:1".into()
        }));
    }
}
