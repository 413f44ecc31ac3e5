//! What a benchmark drives: topics, and their queues in each broker group.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_protocol::bodies::{TopicRoute, perm};
use gantry_protocol::headers::CreateTopicRequest;
use gantry_protocol::topic::{self, DEFAULT_TOPIC};
use tokio::task::JoinSet;

use super::GroundArgs;
use super::frames::{PULL_GROUP, Queue};
use super::reconnects::Places;
use crate::cli::failure::Failure;
use crate::client::{BrokerGroup, Client, QueueAt};

const NEW_TOPIC_QUEUES: i32 = 4;
/// Name servers learn of a new topic from the brokers.
const ROUTE_DEADLINE: Duration = Duration::from_secs(15);
const ROUTE_POLL: Duration = Duration::from_millis(20);
/// Topics that are looked up or created at the same time.
const TOPICS_AT_ONCE: usize = 32;

/// Topics that exist, with the groups that are driven.
pub(super) struct Ground {
    pub(super) client: Arc<Client>,
    pub(super) topics: Vec<String>,
    pub(super) groups: Vec<GroupGround>,
    namesrv: String,
}

/// The queues of all topics in one group.
pub(super) struct GroupGround {
    pub(super) group: BrokerGroup,
    pub(super) queues: Vec<Queue>,
}

/// Bounds of a queue, by group and position in the group's list.
pub(super) type Offsets = Vec<Vec<i64>>;

impl Ground {
    /// Finds the topics, and creates those that are missing.
    pub(super) async fn prepare(args: &GroundArgs) -> Result<Ground, Failure> {
        let topics = args.topic_names();
        for name in &topics {
            topic::check_topic(name).map_err(|error| Failure::usage(error.to_string()))?;
        }
        let client = Arc::new(Client::new(&args.address)?);
        let wanted = Arc::new(Wanted {
            groups: args.group.iter().cloned().collect(),
            queues: args.queues,
        });
        let mut routes = vec![TopicRoute::default(); topics.len()];
        let mut asked = JoinSet::new();
        let mut next = topics.iter().cloned().enumerate();
        loop {
            while asked.len() < TOPICS_AT_ONCE
                && let Some((position, name)) = next.next()
            {
                let (client, wanted) = (Arc::clone(&client), Arc::clone(&wanted));
                asked.spawn(async move { (position, wanted.ensure(&client, &name).await) });
            }
            let Some(found) = asked.join_next().await else {
                break;
            };
            let (position, route) = found.expect("looking up a route does not panic");
            routes[position] = route?;
        }
        let groups = wanted.groups_of(&topics, &routes)?;
        Ok(Ground {
            client,
            topics,
            groups,
            namesrv: args.address.clone(),
        })
    }

    /// How connections find their groups. Brokers are asked for routes too when no name server is left:
    /// every Gantry node is one.
    pub(super) fn places(&self) -> Result<Places, Failure> {
        let addresses = self
            .groups
            .iter()
            .flat_map(|group| group.group.addresses.values());
        let all: BTreeSet<&str> = addresses.map(String::as_str).collect();
        let all: Vec<&str> = all.into_iter().collect();
        let client = Client::new(&format!("{};{}", self.namesrv, all.join(";")))?;
        Ok(Places {
            client: Arc::new(client),
            topic: self.topics[0].clone(),
            groups: self
                .groups
                .iter()
                .map(|ground| ground.group.name.clone())
                .collect(),
        })
    }

    /// Number of queues in all groups.
    pub(super) fn queue_count(&self) -> usize {
        self.groups.iter().map(|ground| ground.queues.len()).sum()
    }

    /// Lets a consumer group begin at these offsets; it is created if it is missing.
    pub(super) async fn put_group(&self, consumer: &str, offsets: &Offsets) -> Result<(), Failure> {
        let groups: Vec<BrokerGroup> = self.groups.iter().map(|one| one.group.clone()).collect();
        self.client.ensure_consumer_group(consumer, &groups).await?;
        for (ground, of_group) in self.groups.iter().zip(offsets) {
            for (queue, offset) in ground.queues.iter().zip(of_group) {
                let at = ground.at(queue, consumer);
                self.client.commit_offset(&at, *offset).await?;
            }
        }
        Ok(())
    }

    /// Asks a broker for messages that match an expression, to learn whether it understands it.
    pub(super) async fn try_filter(&self, sql: &str) -> Result<(), Failure> {
        let ground = &self.groups[0];
        let at = QueueAt {
            sql: Some(sql.to_string()),
            ..ground.at(&ground.queues[0], PULL_GROUP)
        };
        self.client.pull(&at, 0, Duration::ZERO).await?;
        Ok(())
    }

    /// The first offset of each queue, or the one after the last.
    pub(super) async fn offsets(&self, last: bool) -> Result<Offsets, Failure> {
        let mut offsets = Vec::new();
        for ground in &self.groups {
            let mut of_group = Vec::with_capacity(ground.queues.len());
            for queue in &ground.queues {
                let at = ground.at(queue, "");
                of_group.push(match last {
                    true => self.client.max_offset(&at).await?,
                    false => self.client.min_offset(&at).await?,
                });
            }
            offsets.push(of_group);
        }
        Ok(offsets)
    }
}

impl GroupGround {
    /// A queue as a consumer group asks for it.
    fn at(&self, queue: &Queue, consumer: &str) -> QueueAt {
        QueueAt {
            group: self.group.clone(),
            topic: queue.topic.clone(),
            queue: queue.id,
            consumer: consumer.to_string(),
            sql: None,
        }
    }
}

/// What the arguments ask of each topic.
struct Wanted {
    /// Empty for all.
    groups: BTreeSet<String>,
    queues: Option<i32>,
}

impl Wanted {
    /// The route of a topic that is in every wanted group; creates it if there is no such topic.
    async fn ensure(&self, client: &Client, name: &str) -> Result<TopicRoute, Failure> {
        if let Some(route) = client.route(name).await? {
            return self.check(name, route);
        }
        let queues = self.queues.unwrap_or(NEW_TOPIC_QUEUES);
        let header = CreateTopicRequest {
            topic: name,
            default_topic: DEFAULT_TOPIC,
            read_queue_nums: queues,
            write_queue_nums: queues,
            perm: perm::READ | perm::WRITE,
            topic_filter_type: "SINGLE_TAG",
            topic_sys_flag: Some(0),
            order: Some(false),
            ..CreateTopicRequest::default()
        };
        let mut created = BTreeSet::new();
        let groups = client.groups().await?;
        for group in &groups {
            if self.groups.is_empty() || self.groups.contains(&group.name) {
                client.create_topic(group, &header).await?;
                created.insert(group.name.as_str());
            }
        }
        let known: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
        if let Some(unknown) = self
            .groups
            .iter()
            .find(|name| !known.contains(&name.as_str()))
        {
            return Err(Failure::usage(format!(
                "there is no group {unknown:?}; there are {}",
                known.join(", ")
            )));
        }
        let started = Instant::now();
        loop {
            let route = client.route(name).await?.unwrap_or_default();
            if created.iter().all(|group| has_queues(&route, group)) {
                return Ok(route);
            }
            if started.elapsed() > ROUTE_DEADLINE {
                return Err(Failure::new(format!(
                    "topic {name} was created, and after {} s its route does not show it",
                    ROUTE_DEADLINE.as_secs()
                )));
            }
            tokio::time::sleep(ROUTE_POLL).await;
        }
    }

    /// A topic that was there before is driven as it is.
    fn check(&self, name: &str, route: TopicRoute) -> Result<TopicRoute, Failure> {
        for data in &route.queue_datas {
            let is_driven = self.groups.is_empty() || self.groups.contains(&data.broker_name);
            if let Some(queues) = self
                .queues
                .filter(|queues| *queues != data.write_queue_nums)
                && is_driven
            {
                return Err(Failure::usage(format!(
                    "topic {name} has {} queues in {}, not {queues}; choose another --topic, or leave \
                     --queues out",
                    data.write_queue_nums, data.broker_name
                )));
            }
        }
        Ok(route)
    }

    /// The groups that every topic can be written in, and the queues there.
    fn groups_of(
        &self,
        topics: &[String],
        routes: &[TopicRoute],
    ) -> Result<Vec<GroupGround>, Failure> {
        let brokers = routes.first().map(|route| route.broker_datas.clone());
        let all = brokers.unwrap_or_default().into_iter();
        // One topic alone is driven where it can be: an idempotent one is written in one group.
        let is_wanted = |name: &str| match (self.groups.is_empty(), routes) {
            (true, [only]) => has_queues(only, name),
            (true, _) => true,
            (false, _) => self.groups.contains(name),
        };
        let mut groups: Vec<GroupGround> = all
            .map(BrokerGroup::from)
            .filter(|group| is_wanted(&group.name))
            .map(|group| GroupGround {
                group,
                queues: Vec::new(),
            })
            .collect();
        groups.sort_by(|one, other| one.group.name.cmp(&other.group.name));
        let found: Vec<&str> = groups.iter().map(|g| g.group.name.as_str()).collect();
        if let Some(missing) = self
            .groups
            .iter()
            .find(|name| !found.contains(&name.as_str()))
        {
            return Err(Failure::usage(format!(
                "topic {} is not in group {missing:?}; choose another --topic",
                topics[0]
            )));
        }
        for ground in &mut groups {
            for (topic, route) in topics.iter().zip(routes) {
                if !has_queues(route, &ground.group.name) {
                    return Err(Failure::usage(format!(
                        "topic {topic} cannot be written in group {}; choose another --topic, or other \
                         groups with --group",
                        ground.group.name
                    )));
                }
                let data = route
                    .queue_datas
                    .iter()
                    .find(|data| data.broker_name == ground.group.name);
                let queues = data.map_or(0, |data| data.write_queue_nums);
                ground.queues.extend((0..queues).map(|id| Queue {
                    topic: topic.clone(),
                    id,
                }));
            }
        }
        if groups.is_empty() {
            return Err(Failure::new(format!("topic {} is in no group", topics[0])));
        }
        Ok(groups)
    }
}

/// Whether a group has queues of the topic that can be written, and a node to write them.
fn has_queues(route: &TopicRoute, group: &str) -> bool {
    let has_queues = route.queue_datas.iter().any(|data| {
        data.broker_name == group && data.perm & perm::WRITE != 0 && data.write_queue_nums > 0
    });
    let has_node = route
        .broker_datas
        .iter()
        .any(|broker| broker.broker_name == group && broker.broker_addrs.contains_key(&0));
    has_queues && has_node
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use gantry_protocol::bodies::{BrokerData, QueueData};

    use super::*;

    fn route(groups: &[(&str, i32)]) -> TopicRoute {
        let mut route = TopicRoute::default();
        for (name, queues) in groups {
            route.queue_datas.push(QueueData {
                broker_name: name.to_string(),
                perm: perm::READ | perm::WRITE,
                read_queue_nums: *queues,
                write_queue_nums: *queues,
                topic_sys_flag: 0,
            });
            route.broker_datas.push(BrokerData {
                broker_name: name.to_string(),
                broker_addrs: [(0, "127.0.0.1:1".to_string())].into(),
                ..BrokerData::default()
            });
        }
        route
    }

    fn wanted(groups: &[&str], queues: Option<i32>) -> Wanted {
        Wanted {
            groups: groups.iter().map(|name| name.to_string()).collect(),
            queues,
        }
    }

    #[test]
    fn each_group_has_the_queues_of_all_topics() {
        let topics = ["t-0".to_string(), "t-1".to_string()];
        let routes = [route(&[("b", 2), ("a", 2)]), route(&[("a", 1), ("b", 2)])];
        let groups = wanted(&[], None).groups_of(&topics, &routes).unwrap();
        let shape: Vec<_> = groups
            .iter()
            .map(|ground| (ground.group.name.as_str(), ground.queues.len()))
            .collect();
        assert_eq!(shape, [("a", 3), ("b", 4)]);
        let mut home = routes[..1].to_vec();
        home[0].queue_datas[0].perm = perm::READ;
        let alone = wanted(&[], None).groups_of(&topics[..1], &home).unwrap();
        assert_eq!((alone.len(), alone[0].group.name.as_str()), (1, "a"));
        let only = wanted(&["b"], None).groups_of(&topics, &routes).unwrap();
        assert_eq!((only.len(), only[0].group.name.as_str()), (1, "b"));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let topics = ["t-0".to_string(), "t-1".to_string()];
        let routes = [route(&[("a", 2), ("b", 2)]), route(&[("a", 2)])];
        let failure = |wanted: Wanted| wanted.groups_of(&topics, &routes).err().unwrap().message;
        assert!(failure(wanted(&["c"], None)).contains("\"c\""));
        let message = failure(wanted(&[], None));
        assert!(
            message.contains("t-1") && message.contains("group b"),
            "{message}"
        );
        let other_count = wanted(&["b"], Some(8)).check("t-0", routes[0].clone());
        assert!(other_count.unwrap_err().message.contains("not 8"));
        assert!(
            wanted(&["b"], Some(2))
                .check("t-0", routes[0].clone())
                .is_ok()
        );
    }
}
