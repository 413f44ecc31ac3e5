//! Messages: queryMsgById, queryMsgByKey, queryMsgByUniqueKey, queryMsgByOffset, printMsg, sendMessage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_protocol::bodies::GroupList;
use gantry_protocol::headers::{
    QueryMessageRequest, SendRequest, SendResponse, TopicRequest, UNIQUE_KEY_QUERY,
    ViewMessageRequest,
};
use gantry_protocol::message::Message;
use gantry_protocol::message_id::OffsetMessageId;
use gantry_protocol::properties::{self, Builder, names};
use gantry_protocol::topic::DEFAULT_TOPIC;
use gantry_protocol::{RequestCode, ResponseCode};

use super::call::{Call, body, request};
use super::format;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;
use crate::client::{BrokerGroup, Outgoing, Producer, QueueAt};

/// The group in whose name tools read.
const TOOLS_GROUP: &str = "TOOLS_CONSUMER";

/// Messages that a query by key shows at most, unless told.
const MESSAGES: i32 = 64;

pub(super) async fn by_id(call: Call) -> Outcome {
    let text = call.text('i');
    let Ok(id) = text.parse::<OffsetMessageId>() else {
        return Err(Failure::usage(format!(
            "{text} is not the id of a place in the log; queryMsgByUniqueKey finds a producer's id"
        )));
    };
    let header = ViewMessageRequest {
        topic: call.option('t'),
        offset: id.physical_offset,
    };
    let asked = request(RequestCode::VIEW_MESSAGE_BY_ID, |fields| {
        header.write(fields)
    });
    let answer = call.ask(&id.host.to_string(), asked).await?;
    for message in body(Message::decode_all(answer.body))? {
        show(&call, &message).await?;
    }
    Ok(())
}

/// Messages with a key, of all brokers of a topic.
async fn with_key(call: &Call, key: &str, is_unique: bool) -> Result<Vec<Message>, Failure> {
    let topic = call.text('t');
    let time = |short, default| match call.option(short) {
        Some(text) => format::parse_time(text),
        None => Ok(default),
    };
    let mut found = Vec::new();
    for group in call.groups_of_topic(topic).await? {
        let header = QueryMessageRequest {
            topic,
            key,
            max_num: call.number('m', MESSAGES)?,
            begin_timestamp: time('b', 0)?,
            end_timestamp: time('e', i64::MAX)?,
        };
        let mut asked = request(RequestCode::QUERY_MESSAGE, |fields| header.write(fields));
        asked.fields.set("bname", &group.name);
        if is_unique {
            asked.fields.set(UNIQUE_KEY_QUERY, "true");
        }
        let timeout = super::call::TIMEOUT;
        match call.client.ask_group(&group, asked, timeout).await {
            Ok(answer) => found.extend(body(Message::decode_all(answer.body))?),
            Err(error) if error.code() == Some(ResponseCode::QUERY_NOT_FOUND) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

pub(super) async fn by_key(call: Call) -> Outcome {
    let found = with_key(&call, call.text('k'), false).await?;
    output::line(&format!(
        "{:<50} {:>4} {:>40}",
        "#Message ID", "#QID", "#Offset"
    ))?;
    for message in found {
        let id = message_id(&message);
        output::line(&format!(
            "{id:<50} {:>4} {:>40}",
            message.queue_id, message.queue_offset
        ))?;
    }
    Ok(())
}

pub(super) async fn by_unique_key(call: Call) -> Outcome {
    let key = call.text('i');
    let found = with_key(&call, key, true).await?;
    let is_it = |message: &&Message| message.property(names::UNIQ_KEY) == Some(key);
    let mut found: Vec<&Message> = found.iter().filter(is_it).collect();
    if found.is_empty() {
        return Err(Failure::new(format!(
            "no message of topic {} has id {key}",
            call.text('t')
        )));
    }
    found.sort_by_key(|message| message.store_timestamp);
    if call.has('a') {
        for message in found {
            show(&call, message).await?;
        }
        return Ok(());
    }
    show(&call, found[0]).await
}

/// A queue of a topic, to be read from.
fn queue_of(call: &Call, group: BrokerGroup, queue: i32) -> QueueAt {
    QueueAt {
        group,
        topic: call.text('t').to_string(),
        queue,
        consumer: TOOLS_GROUP.to_string(),
        sql: None,
    }
}

pub(super) async fn by_offset(call: Call) -> Outcome {
    let (topic, broker) = (call.text('t'), call.text('b'));
    let groups = call.groups_of_topic(topic).await?;
    let group = groups.into_iter().find(|group| group.name == broker);
    let group =
        group.ok_or_else(|| Failure::new(format!("topic {topic} has no broker {broker}")))?;
    let offset: i64 = call.number('o', 0)?;
    let at = queue_of(&call, group, call.number('i', 0)?);
    let pulled = call.client.pull(&at, offset, Duration::ZERO).await?;
    let found = pulled
        .messages
        .iter()
        .find(|message| message.queue_offset == offset);
    match found {
        Some(message) => show(&call, message).await,
        None => Err(Failure::new(format!(
            "there is no message at offset {offset}; the queue holds {} to {}",
            pulled.min, pulled.max
        ))),
    }
}

/// The id that producers know, or that of the place.
fn message_id(message: &Message) -> String {
    let unique = message.property(names::UNIQ_KEY).map(String::from);
    unique.unwrap_or_else(|| message.offset_message_id().to_string())
}

/// Everything about a message, and who has consumed it.
async fn show(call: &Call, message: &Message) -> Outcome {
    let row = |name: &str, value: &str| output::line(&format!("{name:<20} {value}"));
    let property = |name| message.property(name).unwrap_or("null");
    row("OffsetID:", &message.offset_message_id().to_string())?;
    row("Topic:", &message.topic)?;
    row("Tags:", &format!("[{}]", property(names::TAGS)))?;
    row("Keys:", &format!("[{}]", property(names::KEYS)))?;
    row("Queue ID:", &message.queue_id.to_string())?;
    row("Queue Offset:", &message.queue_offset.to_string())?;
    row("CommitLog Offset:", &message.physical_offset.to_string())?;
    row("Reconsume Times:", &message.reconsume_times.to_string())?;
    row("Born Timestamp:", &format::millis(message.born_timestamp))?;
    row("Store Timestamp:", &format::millis(message.store_timestamp))?;
    row("Born Host:", &message.born_host.to_string())?;
    row("Store Host:", &message.store_host.to_string())?;
    row("System Flag:", &message.sys_flag.to_string())?;
    row(
        "Properties:",
        &format::map(properties::iter(&message.properties)),
    )?;
    // RocketMQ's tool writes the body to a file; it is shown instead.
    row("Message Body:", &String::from_utf8_lossy(&message.body))?;
    let groups = call
        .client
        .groups_of(&message.topic)
        .await?
        .unwrap_or_default();
    let mut consumers = BTreeMap::new();
    for group in &groups {
        let asked = request(RequestCode::QUERY_TOPIC_CONSUME_BY_WHO, |fields| {
            TopicRequest {
                topic: &message.topic,
            }
            .write(fields)
        });
        let answer = call.ask_group(group, asked).await?;
        for consumer in body(GroupList::decode(&answer.body))?.group_list {
            // Each message is at one broker; ids of places name it by its port.
            let port = message.store_host.port().to_string();
            let has_it = group
                .addresses
                .values()
                .any(|address| address.ends_with(&port));
            if has_it || groups.len() == 1 {
                let at = QueueAt {
                    consumer: consumer.clone(),
                    ..queue_of_message(group, message)
                };
                let committed = call.client.committed_offset(&at).await?;
                let is_consumed = committed.is_some_and(|next| next > message.queue_offset);
                consumers.insert(consumer, is_consumed);
            }
        }
    }
    if consumers.is_empty() {
        return Ok(output::line("\n\nWARN: No Consumer")?);
    }
    output::line("\n")?;
    for (consumer, is_consumed) in consumers {
        let track = if is_consumed {
            "CONSUMED"
        } else {
            "NOT_CONSUME_YET"
        };
        output::line(&format!(
            "MessageTrack [consumerGroup={consumer}, trackType={track}, exceptionDesc=null]"
        ))?;
    }
    Ok(())
}

fn queue_of_message(group: &BrokerGroup, message: &Message) -> QueueAt {
    QueueAt {
        group: group.clone(),
        topic: message.topic.clone(),
        queue: message.queue_id,
        consumer: String::new(),
        sql: None,
    }
}

pub(super) async fn print(call: Call) -> Outcome {
    let topic = call.text('t');
    let prints_body = call.flag('d', true)?;
    let time = |short| call.option(short).map(format::parse_time).transpose();
    let (begin, end) = (time('b')?, time('e')?);
    let tags: Option<Vec<&str>> = call
        .option('s')
        .filter(|expression| *expression != "*")
        .map(|expression| expression.split("||").map(str::trim).collect());
    let wanted = |message: &Message| {
        let tag = message.property(names::TAGS).unwrap_or_default();
        tags.as_ref().is_none_or(|tags| tags.contains(&tag))
            && begin.is_none_or(|begin| message.store_timestamp >= begin)
            && end.is_none_or(|end| message.store_timestamp <= end)
    };
    let route = call.client.route(topic).await?;
    let route = route.ok_or_else(|| Failure::new(format!("topic {topic} does not exist")))?;
    for group in call.groups_of_topic(topic).await? {
        let queues = route
            .queue_datas
            .iter()
            .find(|queues| queues.broker_name == group.name);
        for queue in 0..queues.map_or(0, |queues| queues.read_queue_nums) {
            let at = queue_of(&call, group.clone(), queue);
            print_queue(&call, &at, prints_body, &wanted).await?;
        }
    }
    Ok(())
}

async fn print_queue(
    call: &Call,
    at: &QueueAt,
    prints_body: bool,
    wanted: &impl Fn(&Message) -> bool,
) -> Outcome {
    let name = format!(
        "MessageQueue [topic={}, brokerName={}, queueId={}]",
        at.topic, at.group.name, at.queue
    );
    let (min, max) = (
        call.client.min_offset(at).await?,
        call.client.max_offset(at).await?,
    );
    output::line(&format!("minOffset={min}, maxOffset={max}, {name}"))?;
    let mut offset = min;
    while offset < max {
        let pulled = call.client.pull(at, offset, Duration::ZERO).await?;
        for message in pulled.messages.iter().filter(|message| wanted(message)) {
            let body = if prints_body {
                String::from_utf8_lossy(&message.body).into_owned()
            } else {
                "NOT PRINT BODY".to_string()
            };
            output::line(&format!(
                "MSGID: {} MessageExt [brokerName={}, queueId={}, queueOffset={}, storeTimestamp={}, \
                 commitLogOffset={}, reconsumeTimes={}, topic='{}', properties={}] BODY: {body}",
                message_id(message),
                at.group.name,
                message.queue_id,
                message.queue_offset,
                message.store_timestamp,
                message.physical_offset,
                message.reconsume_times,
                message.topic,
                format::map(properties::iter(&message.properties)),
            ))?;
        }
        if pulled.next <= offset {
            break;
        }
        offset = pulled.next;
    }
    output::line("--------------------------------------------------------")?;
    Ok(())
}

pub(super) async fn send(call: Call) -> Outcome {
    let message = Outgoing {
        body: Bytes::from(call.text('p').to_string()),
        tag: call.option('c').map(String::from),
        keys: call.option('k').map(String::from),
        ..Outgoing::default()
    };
    let topic = call.text('t').to_string();
    let target = match call.option('b') {
        Some(broker) => Some((broker.to_string(), call.number('i', 0)?)),
        None if call.has('i') => {
            return Err(Failure::usage("-i needs -b: a queue of which broker?"));
        }
        None => None,
    };
    let (broker, queue, id) = match target {
        Some((broker, queue)) => {
            let id = send_to(&call, (&broker, queue), &message).await?;
            (broker, queue, id)
        }
        None => {
            let acked = Producer::new(Arc::new(call.client), &topic)
                .send(&message)
                .await?;
            (acked.broker, acked.queue, acked.unique_key)
        }
    };
    output::line(&format!(
        "{:<32}  {:<4}  {:<20}    #MsgId",
        "#Broker Name", "#QID", "#Send Result"
    ))?;
    Ok(output::line(&format!(
        "{broker:<32}  {queue:<4}  {:<20}    {id}",
        "SEND_OK"
    ))?)
}

/// Sends to one queue; the id of the place.
async fn send_to(
    call: &Call,
    (broker, queue_id): (&str, i32),
    message: &Outgoing,
) -> Result<String, Failure> {
    let topic = call.text('t');
    let groups = call.groups_of_topic(topic).await?;
    let group = groups.iter().find(|group| group.name == broker);
    let group =
        group.ok_or_else(|| Failure::new(format!("topic {topic} has no broker {broker}")))?;
    let mut text = Builder::new();
    for (name, value) in [(names::TAGS, &message.tag), (names::KEYS, &message.keys)] {
        if let Some(value) = value {
            text.push(name, value);
        }
    }
    let properties = text.finish();
    let code = RequestCode::SEND_MESSAGE_V2;
    let header = SendRequest {
        producer_group: "TOOLS_PRODUCER",
        topic,
        default_topic: DEFAULT_TOPIC,
        default_topic_queue_nums: 4,
        queue_id,
        born_timestamp: format::parse_time("now")?,
        properties: Some(&properties),
        ..SendRequest::default()
    };
    let asked = request(code, |fields| header.write(code, fields)).with_body(message.body.clone());
    let answer = call.ask_group(group, asked).await?;
    Ok(body(SendResponse::parse(&answer.fields))?
        .msg_id
        .to_string())
}
