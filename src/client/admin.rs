//! What an administrator asks: topics, consumer groups, and how they stand. Every question goes to every
//! broker group, and the answers are put together here.

use std::collections::BTreeSet;

use gantry_protocol::bodies::{
    AllGroupConfig, ConsumeStats, ConsumerConnection, GroupConfig, KvTable, QueueBounds, QueueMap,
    QueueProgress, SetRequestMode, TopicStats,
};
use gantry_protocol::headers::{
    ConsumeStatsRequest, ConsumerConnectionRequest, CreateTopicRequest,
    DeleteTopicFromNameServerRequest, TopicRequest,
};
use gantry_protocol::{RequestCode, ResponseCode};

use super::name_server::{CALL_TIMEOUT, request, unreadable};
use super::{BrokerGroup, Client, ClientError};

/// How a consumer group stands, over all broker groups.
#[derive(Clone, Debug, Default)]
pub struct GroupProgress {
    /// Who is connected; `None` if nobody is.
    pub members: Option<ConsumerConnection>,
    /// Progress by queue.
    pub queues: QueueMap<QueueProgress>,
}

impl Client {
    /// Creates or changes a topic in a group.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_topic(
        &self,
        group: &BrokerGroup,
        header: &CreateTopicRequest<'_>,
    ) -> Result<(), ClientError> {
        let asked = request(RequestCode::UPDATE_AND_CREATE_TOPIC, |fields| {
            header.write(fields)
        });
        self.ask_group(group, asked, CALL_TIMEOUT).await.map(|_| ())
    }

    /// Decides how a consumer group asks for the messages of a topic, in every group of brokers.
    ///
    /// # Errors
    /// [`ClientError`]; some groups of brokers may know it then.
    pub async fn set_request_mode(&self, mode: &SetRequestMode) -> Result<(), ClientError> {
        for group in self.groups().await? {
            let asked = request(RequestCode::SET_MESSAGE_REQUEST_MODE, |_| {});
            let asked = asked.with_body(mode.encode());
            self.ask_group(&group, asked, CALL_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Deletes a topic everywhere: from each group, then from the name servers.
    ///
    /// # Errors
    /// [`ClientError`]; some groups may have deleted it then.
    pub async fn delete_topic(&self, topic: &str) -> Result<(), ClientError> {
        let header = TopicRequest { topic };
        for group in self.groups().await? {
            let asked = request(RequestCode::DELETE_TOPIC_IN_BROKER, |fields| {
                header.write(fields)
            });
            self.ask_group(&group, asked, CALL_TIMEOUT).await?;
        }
        let header = DeleteTopicFromNameServerRequest {
            topic,
            cluster_name: None,
        };
        let asked = request(RequestCode::DELETE_TOPIC_IN_NAMESRV, |fields| {
            header.write(fields)
        });
        self.ask_name_server(asked).await.map(|_| ())
    }

    /// What the queues of a topic hold in these groups.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn topic_bounds(
        &self,
        topic: &str,
        groups: &[BrokerGroup],
    ) -> Result<QueueMap<QueueBounds>, ClientError> {
        let code = RequestCode::GET_TOPIC_STATS_INFO;
        let header = TopicRequest { topic };
        let mut bounds = QueueMap::new();
        for group in groups {
            let asked = request(code, |fields| header.write(fields));
            let answer = self.ask_group(group, asked, CALL_TIMEOUT).await?;
            let stats = TopicStats::decode(&answer.body);
            bounds.extend(
                stats
                    .map_err(|error| unreadable(&group.name, code, error))?
                    .offset_table,
            );
        }
        Ok(bounds)
    }

    /// The names of all consumer groups, those of tools included.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn consumer_groups(&self) -> Result<BTreeSet<String>, ClientError> {
        let mut names = BTreeSet::new();
        for group in self.groups().await? {
            names.extend(self.consumer_groups_of(&group).await?);
        }
        Ok(names)
    }

    async fn consumer_groups_of(
        &self,
        group: &BrokerGroup,
    ) -> Result<BTreeSet<String>, ClientError> {
        let code = RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG;
        let answer = self
            .ask_group(group, request(code, |_| {}), CALL_TIMEOUT)
            .await?;
        let table = AllGroupConfig::decode(&answer.body);
        let table = table.map_err(|error| unreadable(&group.name, code, error))?;
        Ok(table.subscription_group_table.into_keys().collect())
    }

    /// Creates a consumer group in each broker group that does not have it yet.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ensure_consumer_group(
        &self,
        consumer: &str,
        groups: &[BrokerGroup],
    ) -> Result<(), ClientError> {
        for group in groups {
            if self.consumer_groups_of(group).await?.contains(consumer) {
                continue;
            }
            let config = GroupConfig {
                group_name: consumer.to_string(),
                ..GroupConfig::default()
            };
            let asked = request(RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, |_| {});
            self.ask_group(group, asked.with_body(config.encode()), CALL_TIMEOUT)
                .await?;
        }
        Ok(())
    }

    /// The members of a consumer group and its offsets.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn group_progress(&self, consumer: &str) -> Result<GroupProgress, ClientError> {
        let mut progress = GroupProgress::default();
        for group in self.groups().await? {
            if let Some(members) = self.members(&group, consumer).await? {
                merge_members(&mut progress.members, members);
            }
            let code = RequestCode::GET_CONSUME_STATS;
            let header = ConsumeStatsRequest {
                consumer_group: consumer,
                ..Default::default()
            };
            let asked = request(code, |fields| header.write(fields));
            let answer = self.ask_group(&group, asked, CALL_TIMEOUT).await?;
            let stats = ConsumeStats::decode(&answer.body);
            let stats = stats.map_err(|error| unreadable(&group.name, code, error))?;
            progress.queues.extend(stats.offset_table);
        }
        Ok(progress)
    }

    async fn members(
        &self,
        group: &BrokerGroup,
        consumer: &str,
    ) -> Result<Option<ConsumerConnection>, ClientError> {
        let code = RequestCode::GET_CONSUMER_CONNECTION_LIST;
        let header = ConsumerConnectionRequest {
            consumer_group: consumer,
        };
        let asked = request(code, |fields| header.write(fields));
        match self.ask_group(group, asked, CALL_TIMEOUT).await {
            Ok(answer) => {
                let members = ConsumerConnection::decode(&answer.body);
                members
                    .map(Some)
                    .map_err(|error| unreadable(&group.name, code, error))
            }
            Err(error) if error.code() == Some(ResponseCode::CONSUMER_NOT_ONLINE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What one node says about itself (request 28): texts by name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn runtime_info(&self, address: &str) -> Result<KvTable, ClientError> {
        let code = RequestCode::GET_BROKER_RUNTIME_INFO;
        let answer = self
            .ask(address, request(code, |_| {}), CALL_TIMEOUT)
            .await?;
        KvTable::decode(&answer.body).map_err(|error| unreadable(address, code, error))
    }
}

/// A member holds a connection to each broker group; it is listed once.
fn merge_members(known: &mut Option<ConsumerConnection>, more: ConsumerConnection) {
    let Some(known) = known else {
        *known = Some(more);
        return;
    };
    for connection in more.connection_set {
        if !known
            .connection_set
            .iter()
            .any(|other| other.client_id == connection.client_id)
        {
            known.connection_set.push(connection);
        }
    }
    known.subscription_table.extend(more.subscription_table);
}
