//! Reading queues: pulls, and the offsets they begin at.

use std::time::Duration;

use gantry_protocol::headers::{
    MaxOffsetRequest, MinOffsetRequest, OffsetResponse, PullRequest, PullResponse,
    QueryConsumerOffsetRequest, UpdateConsumerOffsetRequest, pull_flags,
};
use gantry_protocol::message::Message;
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};

use super::name_server::{CALL_TIMEOUT, refused, request, unreadable};
use super::{BrokerGroup, Client, ClientError};

/// Most messages of one pull; brokers give 32 at most.
const BATCH: i32 = 32;
/// How much longer than the long poll the answer may take.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// A queue of a topic in one broker group, read in the name of a consumer group.
#[derive(Clone, Debug)]
pub struct QueueAt {
    /// Where it is.
    pub group: BrokerGroup,
    /// Topic.
    pub topic: String,
    /// Number of the queue.
    pub queue: i32,
    /// Consumer group.
    pub consumer: String,
    /// SQL92 expression over the properties of the messages that are wanted; `None`: all.
    pub sql: Option<String>,
}

/// What a pull brought.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// Messages in order; may be none.
    pub messages: Vec<Message>,
    /// Where to go on.
    pub next: i64,
    /// First offset that the queue holds.
    pub min: i64,
    /// Next offset to be written.
    pub max: i64,
    /// The offset asked for is not within the queue; `next` is the nearest that is.
    pub moved: bool,
}

impl Client {
    /// Reads from `offset` on, and waits up to `suspend` for a message if there is none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn pull(
        &self,
        at: &QueueAt,
        offset: i64,
        suspend: Duration,
    ) -> Result<Pulled, ClientError> {
        let flags = pull_flags::SUBSCRIPTION
            | if suspend.is_zero() {
                0
            } else {
                pull_flags::SUSPEND
            };
        let header = PullRequest {
            consumer_group: &at.consumer,
            topic: &at.topic,
            queue_id: at.queue,
            queue_offset: offset,
            max_msg_nums: BATCH,
            sys_flag: flags,
            suspend_timeout_millis: suspend.as_millis() as i64,
            subscription: Some(at.sql.as_deref().unwrap_or("*")),
            sub_version: Some(0),
            expression_type: Some(if at.sql.is_some() { "SQL92" } else { "TAG" }),
            ..PullRequest::default()
        };
        let code = RequestCode::PULL_MESSAGE;
        let asked = request(code, |fields| header.write(fields));
        let mut failure = ClientError::Unsendable(format!("{} has no address", at.group.name));
        for address in at.group.addresses.values() {
            match self
                .call(address, asked.clone(), suspend + ANSWER_MARGIN)
                .await
            {
                Ok(answer) => return read_pulled(address, answer),
                Err(error) if error.is_unreachable() => failure = error,
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    /// The first offset that a queue holds.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn min_offset(&self, at: &QueueAt) -> Result<i64, ClientError> {
        let header = MinOffsetRequest {
            topic: &at.topic,
            queue_id: at.queue,
        };
        self.offset(
            at,
            request(RequestCode::GET_MIN_OFFSET, |fields| header.write(fields)),
        )
        .await
    }

    /// The next offset to be written.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn max_offset(&self, at: &QueueAt) -> Result<i64, ClientError> {
        let header = MaxOffsetRequest {
            topic: &at.topic,
            queue_id: at.queue,
            committed: Some(true),
        };
        self.offset(
            at,
            request(RequestCode::GET_MAX_OFFSET, |fields| header.write(fields)),
        )
        .await
    }

    /// The consumer group's next offset; `None` if it has never committed one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn committed_offset(&self, at: &QueueAt) -> Result<Option<i64>, ClientError> {
        let header = QueryConsumerOffsetRequest {
            consumer_group: &at.consumer,
            topic: &at.topic,
            queue_id: at.queue,
            set_zero_if_not_found: Some(false),
        };
        let asked = request(RequestCode::QUERY_CONSUMER_OFFSET, |fields| {
            header.write(fields)
        });
        match self.offset(at, asked).await {
            Ok(offset) => Ok(Some(offset)),
            Err(error) if error.code() == Some(ResponseCode::QUERY_NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Commits the consumer group's next offset.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn commit_offset(&self, at: &QueueAt, offset: i64) -> Result<(), ClientError> {
        let header = UpdateConsumerOffsetRequest {
            consumer_group: &at.consumer,
            topic: &at.topic,
            queue_id: at.queue,
            commit_offset: offset,
        };
        let asked = request(RequestCode::UPDATE_CONSUMER_OFFSET, |fields| {
            header.write(fields)
        });
        self.ask_group(&at.group, asked, CALL_TIMEOUT)
            .await
            .map(|_| ())
    }

    async fn offset(&self, at: &QueueAt, asked: RemotingCommand) -> Result<i64, ClientError> {
        let code = asked.request_code();
        let answer = self.ask_group(&at.group, asked, CALL_TIMEOUT).await?;
        match OffsetResponse::parse(&answer.fields) {
            Ok(header) => Ok(header.offset),
            Err(error) => Err(unreadable(&at.group.name, code, error)),
        }
    }
}

fn read_pulled(address: &str, answer: RemotingCommand) -> Result<Pulled, ClientError> {
    let asked = RequestCode::PULL_MESSAGE;
    let code = answer.response_code();
    let has_position = matches!(
        code,
        ResponseCode::SUCCESS
            | ResponseCode::PULL_NOT_FOUND
            | ResponseCode::PULL_RETRY_IMMEDIATELY
            | ResponseCode::PULL_OFFSET_MOVED
    );
    if !has_position {
        return Err(refused(address, asked, &answer));
    }
    let header =
        PullResponse::parse(&answer.fields).map_err(|error| unreadable(address, asked, error))?;
    let messages = if code == ResponseCode::SUCCESS {
        Message::decode_all(answer.body.clone())
            .map_err(|error| unreadable(address, asked, error))?
    } else {
        Vec::new()
    };
    Ok(Pulled {
        messages,
        next: header.next_begin_offset,
        min: header.min_offset,
        max: header.max_offset,
        moved: code == ResponseCode::PULL_OFFSET_MOVED,
    })
}
