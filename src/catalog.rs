//! Topics and consumer groups by name: found in what this node has applied, or, before anyone is
//! told that there is no such thing, in the current state; created in one group of brokers or in all.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use bytes::Bytes;
use gantry_protocol::json::JsonError;
use gantry_protocol::{ResponseCode, topic as names};
use gantry_raft::aside;
use gantry_storage::error::ReadError;
use gantry_storage::message::MessageView;
use gantry_storage::tables::{
    Command, CommandResult, PERM_INHERIT, PERM_READ, PERM_WRITE, SubscriptionGroupConfig, Topic,
    TopicConfig,
};
use gantry_storage::{PhysicalOffset, QueueKey, QueueOffset, ReadRequest, Store};
use tokio::task::JoinError;
use tokio::time::{Instant, timeout_at};

use crate::config::{BrokerConfig, Config};
use crate::error::Failure;
use crate::group::{Group, HOLD};

/// Queues of `TBW102`; what a topic that is created on its own may inherit at most.
const DEFAULT_TOPIC_QUEUES: u16 = 8;

/// A queue whose first message is not further back in the log than this is young.
const YOUNG_BYTES: u64 = 1 << 30;

/// A topic of a group of brokers; code 17 if there is none now.
pub async fn topic(group: &Group, name: &str, deadline: Instant) -> Result<Arc<Topic>, Failure> {
    let found = group.store.tables().topic(name);
    if let Some(found) = found {
        return Ok(found);
    }
    group.catch_up(deadline).await?;
    let found = group.store.tables().topic(name);
    found.ok_or_else(|| no_topic(name))
}

/// The failure that says that there is no such topic.
pub fn no_topic(name: &str) -> Failure {
    Failure::code(
        ResponseCode::TOPIC_NOT_EXIST,
        format!("topic {name} does not exist"),
    )
}

/// Settings of a consumer group; code 26 if there is none now. The groups of the tools exist without
/// being created, and any group does while groups are created on their own.
pub async fn consumer_group(
    group: &Group,
    broker: &BrokerConfig,
    name: &str,
    deadline: Instant,
) -> Result<Arc<SubscriptionGroupConfig>, Failure> {
    let found = group.store.tables().group(name);
    if let Some(found) = found {
        return Ok(found);
    }
    if broker.auto_create_group || names::SYSTEM_GROUPS.contains(&name) {
        return Ok(Arc::new(SubscriptionGroupConfig::new(name)));
    }
    configured_group(group, name, deadline).await
}

/// Settings of a consumer group that somebody created; code 26 if there is none now.
pub async fn configured_group(
    group: &Group,
    name: &str,
    deadline: Instant,
) -> Result<Arc<SubscriptionGroupConfig>, Failure> {
    let found = group.store.tables().group(name);
    if let Some(found) = found {
        return Ok(found);
    }
    group.catch_up(deadline).await?;
    let found = group.store.tables().group(name);
    found.ok_or_else(|| {
        let reason = format!("consumer group {name} does not exist");
        Failure::code(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, reason)
    })
}

/// The number of a queue as the tables have it; code 29 if no queue can have it.
pub fn queue_number(queue_id: i32) -> Result<u16, Failure> {
    u16::try_from(queue_id).map_err(|_| {
        let reason = format!("there is no queue {queue_id}");
        Failure::code(ResponseCode::INVALID_PARAMETER, reason)
    })
}

/// The number of an existing queue of a topic; code 29 if it has no such queue.
pub fn queue_of(topic: &Topic, queue_id: i32) -> Result<u16, Failure> {
    let queues = topic.queues();
    let queue = u16::try_from(queue_id).ok().filter(|queue| *queue < queues);
    queue.ok_or_else(|| {
        let name = &topic.config.name;
        let reason = format!("topic {name} has {queues} queues, there is no queue {queue_id}");
        Failure::code(ResponseCode::INVALID_PARAMETER, reason)
    })
}

/// The failure of a request whose body is not what its code calls for.
pub fn unreadable(error: &JsonError) -> Failure {
    Failure::code(
        ResponseCode::SYSTEM_ERROR,
        format!("the body cannot be read: {error}"),
    )
}

/// Writes commands, fails if one was refused, and returns when this node sees their effect.
pub async fn change(
    group: &Group,
    commands: Vec<Command>,
    deadline: Instant,
) -> Result<(), Failure> {
    for result in group.execute(commands, deadline).await? {
        if let CommandResult::Refused(reason) = result {
            return Err(Failure::code(ResponseCode::SYSTEM_ERROR, reason));
        }
    }
    group.catch_up(deadline).await
}

/// Does the same for every group at the same time; the results are in the order of `groups`. What
/// has begun goes on if the caller stops waiting.
pub async fn on_each<T, Work>(groups: &[Arc<Group>], work: impl Fn(Arc<Group>) -> Work) -> Vec<T>
where
    T: Send + 'static,
    Work: Future<Output = T> + Send + 'static,
{
    let running: Vec<_> = groups
        .iter()
        .map(|group| tokio::spawn(work(group.clone())))
        .collect();
    let mut results = Vec::with_capacity(running.len());
    for running in running {
        results.push(outcome_of(running.await).await);
    }
    results
}

/// Reads what may lie on disk, away from the threads that serve sockets.
pub async fn read_aside<T: Send + 'static>(
    group: &Group,
    read: impl FnOnce(&Store) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, Failure> {
    let store = group.store.clone();
    let reading = aside(move || read(&store));
    outcome_of(reading.await).await.map_err(|error| {
        tracing::error!(group = group.name, %error, "reading failed");
        Failure::code(ResponseCode::SYSTEM_ERROR, error.to_string())
    })
}

/// The message at a place in the log, as a client of the listener with this host would get it; `None` if no
/// queue points there.
pub async fn message_at(
    group: &Group,
    place: PhysicalOffset,
    host: SocketAddrV4,
) -> Result<Option<Bytes>, Failure> {
    read_aside(group, move |store| store.message_at(place, host)).await
}

/// Whether the first message of a queue is still there and not far back in the log. RocketMQ asks
/// whether it is in memory.
pub async fn is_young(group: &Group, (topic_id, queue): (u32, u16)) -> Result<bool, Failure> {
    let key = QueueKey { topic_id, queue };
    let bounds = group.store.queue_bounds(key).unwrap_or_default();
    if bounds.min != QueueOffset::ZERO {
        return Ok(false);
    }
    if bounds.next == QueueOffset::ZERO {
        return Ok(true);
    }
    let first = read_aside(group, move |store| {
        store.read_queue(&ReadRequest {
            key,
            offset: QueueOffset::ZERO,
            max_messages: 1,
            max_bytes: 1,
            filter: &|_| true,
            properties: None,
            store_host: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
            may_wait: true,
            whole: true,
        })
    });
    let first = first.await?;
    let Ok(message) = MessageView::parse(&first.body) else {
        return Ok(false);
    };
    let end = group.log.bounds().end_offset.get();
    Ok(end.saturating_sub(message.physical_offset().get()) <= YOUNG_BYTES)
}

/// What a task gave; its panic is the caller's.
async fn outcome_of<T>(joined: Result<T, JoinError>) -> T {
    match joined.map_err(JoinError::try_into_panic) {
        Ok(outcome) => outcome,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // Cancelled: the runtime is ending, and the caller's task with it.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// Creates a topic that clients use without having created it, as `TBW102` would have it, in all
/// groups of brokers; a retry topic as its consumer group would have it. Returns when it is in
/// `group`; the others get it soon after, those that have no leader when it is used there. Code 17 if
/// topics are not created on their own, which does not concern retry topics.
pub async fn auto_create_topic(
    (group, groups): (&Arc<Group>, &[Arc<Group>]),
    broker: &BrokerConfig,
    (name, default_topic, queues): (&str, &str, i32),
    deadline: Instant,
) -> Result<Arc<Topic>, Failure> {
    match topic(group, name, deadline).await {
        Err(Failure::Code(ResponseCode::TOPIC_NOT_EXIST, _)) => {}
        found_or_failed => return found_or_failed,
    }
    let config = match names::group_of_retry_topic(name) {
        Some(of) => retry_topic_config(name, &*consumer_group(group, broker, of, deadline).await?),
        None if names::group_of_dead_letter_topic(name).is_some() => TopicConfig::new(name, 1),
        None if broker.auto_create_topic => {
            let default = match topic(group, default_topic, deadline).await {
                Ok(default) => default.config.clone(),
                // A group that was just formed does not have its own topics yet.
                Err(Failure::Code(ResponseCode::TOPIC_NOT_EXIST, _))
                    if default_topic == names::DEFAULT_TOPIC =>
                {
                    inheritable(default_topic, DEFAULT_TOPIC_QUEUES)
                }
                Err(failure) => return Err(failure),
            };
            inherited(name, &default, queues, broker).ok_or_else(|| no_topic(name))?
        }
        None => return Err(no_topic(name)),
    };
    for other in groups.iter().filter(|other| other.id != group.id) {
        let (other, config) = (other.clone(), config.clone());
        tokio::spawn(async move {
            let deadline = Instant::now() + HOLD;
            if let Err(error) = create_if_absent(&other, &config, deadline).await {
                let topic = &config.name;
                tracing::warn!(group = other.name, topic, %error, "a topic is not created yet");
            }
        });
    }
    create_if_absent(group, &config, deadline).await?;
    topic(group, name, deadline).await
}

/// The settings of a new topic that takes over those of `default`; none if it may not.
fn inherited(
    name: &str,
    default: &TopicConfig,
    queues: i32,
    broker: &BrokerConfig,
) -> Option<TopicConfig> {
    if default.perm & PERM_INHERIT == 0 {
        return None;
    }
    let wanted = u16::try_from(queues).unwrap_or(0).max(1);
    let queues = wanted
        .min(default.write_queues)
        .min(broker.auto_create_queues);
    let perm = default.perm & !PERM_INHERIT;
    let sys_flag = default.sys_flag;
    Some(TopicConfig {
        perm,
        sys_flag,
        ..TopicConfig::new(name, queues.max(1))
    })
}

/// Creates a topic with these settings in a group of brokers, unless it is there.
pub async fn create_if_absent(
    group: &Group,
    config: &TopicConfig,
    deadline: Instant,
) -> Result<(), Failure> {
    let config = config.clone();
    change(group, vec![Command::CreateTopic { config }], deadline).await
}

/// Creates consumer groups that clients use without having created them, with their retry topics, in
/// all groups of brokers where they are missing. Waits until `deadline` at most; where it could not
/// be done, the next heartbeat tries again.
pub async fn auto_create_groups(groups: &[Arc<Group>], names: &[String], deadline: Instant) {
    let absent = |group: &Arc<Group>| {
        let tables = group.store.tables();
        names
            .iter()
            .any(|name| tables.group(name).is_none() || !has_retry_topic(&tables, name))
    };
    let lacking: Vec<Arc<Group>> = groups
        .iter()
        .filter(|group| absent(group))
        .cloned()
        .collect();
    if lacking.is_empty() {
        return;
    }
    let names = Arc::new(names.to_vec());
    let creating = on_each(&lacking, |group| {
        let names = names.clone();
        async move {
            let created = create_groups(&group, &names).await;
            if let Err(error) = created {
                let group = &group.name;
                tracing::warn!(group, ?names, %error, "consumer groups are not created yet");
            }
        }
    });
    if timeout_at(deadline, creating).await.is_err() {
        tracing::debug!(
            ?names,
            "a heartbeat is answered before its groups are created"
        );
    }
}

async fn create_groups(group: &Group, names: &[String]) -> Result<(), Failure> {
    let deadline = Instant::now() + HOLD;
    group.catch_up(deadline).await?;
    let commands = missing_groups(&group.store.tables(), names);
    if commands.is_empty() {
        Ok(())
    } else {
        change(group, commands, deadline).await
    }
}

/// What creates the consumer groups and retry topics that are not there.
fn missing_groups(tables: &gantry_storage::tables::Tables, names: &[String]) -> Vec<Command> {
    let mut commands = Vec::new();
    for name in names {
        let known = tables.group(name);
        if !has_retry_topic(tables, name) {
            let default = SubscriptionGroupConfig::new(name.as_str());
            let settings = known.as_deref().unwrap_or(&default);
            let config = retry_topic_config(&names::retry_topic(name), settings);
            commands.push(Command::CreateTopic { config });
        }
        if known.is_none() {
            let config = SubscriptionGroupConfig::new(name.as_str());
            commands.push(Command::CreateGroup { config });
        }
    }
    commands
}

fn retry_topic_config(topic: &str, group: &SubscriptionGroupConfig) -> TopicConfig {
    TopicConfig::new(topic, u16::try_from(group.retry_queues).unwrap_or(0).max(1))
}

fn has_retry_topic(tables: &gantry_storage::tables::Tables, group: &str) -> bool {
    tables.topic(&names::retry_topic(group)).is_some()
}

/// A topic whose settings new topics may take over.
fn inheritable(name: &str, queues: u16) -> TopicConfig {
    TopicConfig {
        perm: PERM_READ | PERM_WRITE | PERM_INHERIT,
        ..TopicConfig::new(name, queues)
    }
}

/// The topics that a group of brokers has without anyone creating them: clients and tools ask for
/// them.
pub fn system_topics(config: &Config, group: &str) -> Vec<TopicConfig> {
    let mut topics = vec![
        TopicConfig::new("SELF_TEST_TOPIC", 1),
        TopicConfig::new("BenchmarkTest", 16),
        inheritable(&config.cluster, 16),
        TopicConfig::new("OFFSET_MOVED_EVENT", 1),
        TopicConfig::new(names::SCHEDULE_TOPIC, delay_queues(&config.broker)),
        TopicConfig::new(names::TIMER_TOPIC, 1),
        TopicConfig::new(names::TRACE_TOPIC, 1),
        TopicConfig::new(names::reply_topic(&config.cluster), 1),
        TopicConfig::new(names::HALF_TOPIC, 1),
        TopicConfig::new(names::HALF_DONE_TOPIC, 1),
    ];
    if group != config.cluster {
        topics.push(inheritable(group, 1));
    }
    if config.broker.auto_create_topic {
        topics.push(inheritable(names::DEFAULT_TOPIC, DEFAULT_TOPIC_QUEUES));
    }
    topics
}

/// A queue for each delay level, at least as many as RocketMQ has.
fn delay_queues(broker: &BrokerConfig) -> u16 {
    u16::try_from(broker.delays.levels.len()).map_or(u16::MAX, |levels| levels.max(18))
}

/// Whether a topic is the broker's own: not to be created, changed or deleted by clients.
pub fn is_system_topic(config: &Config, name: &str) -> bool {
    names::is_system(name)
        || name == config.cluster
        || name == names::reply_topic(&config.cluster)
        || config.groups.iter().any(|group| group.name == name)
}

/// Changes named settings by text of the form `+name=value,-name`; says what is wrong with it.
pub fn change_attributes(
    attributes: &mut BTreeMap<String, String>,
    changes: &str,
) -> Result<(), String> {
    for change in changes
        .split(',')
        .map(str::trim)
        .filter(|change| !change.is_empty())
    {
        if let Some(name) = change.strip_prefix('-') {
            attributes.remove(name);
            continue;
        }
        let added = change
            .strip_prefix('+')
            .and_then(|change| change.split_once('='));
        match added {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                attributes.insert(name.to_string(), value.to_string());
            }
            _ => return Err(format!("attribute {change:?} is not +name=value or -name")),
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::delays::Delays;

    fn broker() -> BrokerConfig {
        BrokerConfig {
            auto_create_topic: true,
            auto_create_group: true,
            auto_create_queues: 8,
            send_bytes_max: 1 << 20,
            connections_max: 10,
            drain: std::time::Duration::ZERO,
            delays: Delays::default(),
            checks: crate::transactions::Checks::default(),
        }
    }

    #[test]
    fn a_new_topic_inherits_what_the_default_topic_allows() {
        let mut default = TopicConfig::new(names::DEFAULT_TOPIC, 8);
        assert_eq!(
            inherited("t", &default, 4, &broker()),
            None,
            "not inheritable"
        );
        default.perm |= PERM_INHERIT;
        let created = inherited("t", &default, 4, &broker()).unwrap();
        assert_eq!(
            (created.read_queues, created.write_queues, created.perm),
            (4, 4, 6)
        );
        for (wanted, given) in [(100, 8), (0, 1), (-3, 1)] {
            let created = inherited("t", &default, wanted, &broker()).unwrap();
            assert_eq!(created.write_queues, given, "{wanted} wanted");
        }
        let few = BrokerConfig {
            auto_create_queues: 2,
            ..broker()
        };
        assert_eq!(inherited("t", &default, 4, &few).unwrap().write_queues, 2);
    }

    #[test]
    fn only_what_is_missing_is_created() {
        let names = ["g".to_string()];
        let commands = missing_groups(&gantry_storage::tables::Tables::default(), &names);
        assert!(
            matches!(&commands[0], Command::CreateTopic { config } if config.name == "%RETRY%g")
        );
        assert!(matches!(&commands[1], Command::CreateGroup { config } if config.name == "g"));
        assert_eq!(commands.len(), 2);
    }

    #[test]
    fn attributes_are_added_and_removed() {
        let mut attributes = BTreeMap::from([("old".to_string(), "1".to_string())]);
        change_attributes(&mut attributes, "+message.type=FIFO, -old,").unwrap();
        assert_eq!(
            attributes,
            [("message.type".to_string(), "FIFO".to_string())].into()
        );
        for wrong in ["message.type=FIFO", "+x", "+=1", "+x="] {
            assert!(
                change_attributes(&mut attributes, wrong).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn queue_numbers_are_those_of_the_topic() {
        let topic = Topic {
            id: 1,
            config: TopicConfig::new("t", 4),
        };
        assert_eq!(queue_of(&topic, 3), Ok(3));
        for wrong in [-1, 4, 65536] {
            let failure = queue_of(&topic, wrong).unwrap_err();
            assert!(matches!(
                failure,
                Failure::Code(ResponseCode::INVALID_PARAMETER, _)
            ));
        }
    }
}
