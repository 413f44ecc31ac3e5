//! The client's view of a cluster: name servers, routes, broker groups.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gantry_protocol::bodies::{BrokerData, ClusterInfo, TopicList, TopicRoute};
use gantry_protocol::headers::RouteRequest;
use gantry_protocol::json::JsonError;
use gantry_protocol::{Fields, RemotingCommand, RequestCode, ResponseCode};
use tokio::sync::mpsc;

use super::ClientError;
use super::connection::{Asked, Connection};

/// How long a request that changes or reads metadata may take; nodes hold requests for 2.2 s while a
/// group has no leader.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A client of one cluster.
pub struct Client {
    servers: Vec<String>,
    /// Position in `servers` of the one that answered last.
    good_server: AtomicUsize,
    connections: Mutex<HashMap<String, Arc<Connection>>>,
    asked: Asked,
}

/// A broker group as clients know it: a name, and an address for each broker id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerGroup {
    /// RocketMQ's brokerName.
    pub name: String,
    /// The cluster it belongs to.
    pub cluster: String,
    /// Address by broker id; id 0 takes the writes.
    pub addresses: BTreeMap<i64, String>,
}

impl From<BrokerData> for BrokerGroup {
    fn from(data: BrokerData) -> BrokerGroup {
        BrokerGroup {
            name: data.broker_name,
            cluster: data.cluster,
            addresses: data.broker_addrs,
        }
    }
}

/// A request with these header fields.
pub(super) fn request(code: RequestCode, write: impl FnOnce(&mut Fields)) -> RemotingCommand {
    // The connection gives the number when it sends.
    let mut request = RemotingCommand::request(code, 0);
    write(&mut request.fields);
    request
}

impl Client {
    /// A client of the cluster behind these name servers, `host:port` separated by `;` or `,`. Connects
    /// when it is first asked for something.
    ///
    /// # Errors
    /// The list names no server, or one of them without a port.
    pub fn new(name_servers: &str) -> Result<Client, ClientError> {
        let servers: Vec<String> = name_servers
            .split([';', ','])
            .map(|server| server.trim().to_string())
            .filter(|server| !server.is_empty())
            .collect();
        let is_address = |server: &&String| {
            server
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if let Some(wrong) = servers.iter().find(|server| !is_address(server)) {
            return Err(ClientError::Unsendable(format!(
                "{wrong:?} is not the address of a name server; write for instance 127.0.0.1:9876"
            )));
        }
        if servers.is_empty() {
            return Err(ClientError::Unsendable(
                "the list of name servers is empty".to_string(),
            ));
        }
        Ok(Client {
            servers,
            good_server: AtomicUsize::new(0),
            connections: Mutex::new(HashMap::new()),
            asked: None,
        })
    }

    /// What brokers ask this client on connections that it opens from here on goes there: what became of a
    /// transaction, for instance. They have reason to once it takes part in a group. What finds no room there
    /// is dropped. Without this all of it is.
    #[must_use]
    pub fn listening(self, asked: mpsc::Sender<RemotingCommand>) -> Client {
        Client {
            asked: Some(asked),
            ..self
        }
    }

    /// Sends a request to one address and awaits its answer, whatever its code.
    ///
    /// # Errors
    /// [`ClientError`], never a refusal.
    pub async fn call(
        &self,
        address: &str,
        request: RemotingCommand,
        timeout: Duration,
    ) -> Result<RemotingCommand, ClientError> {
        let connection = self.connection(address).await?;
        connection.call(request, timeout).await
    }

    /// As [`Client::call`], where any code but success is an error.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ask(
        &self,
        address: &str,
        request: RemotingCommand,
        timeout: Duration,
    ) -> Result<RemotingCommand, ClientError> {
        let asked = request.request_code();
        let answer = self.call(address, request, timeout).await?;
        if answer.response_code() == ResponseCode::SUCCESS {
            return Ok(answer);
        }
        Err(refused(address, asked, &answer))
    }

    /// Asks a group: its id 0, or the next id when that one cannot be reached.
    ///
    /// # Errors
    /// [`ClientError`] of the last node that was tried.
    pub async fn ask_group(
        &self,
        group: &BrokerGroup,
        request: RemotingCommand,
        timeout: Duration,
    ) -> Result<RemotingCommand, ClientError> {
        let mut failure =
            ClientError::Unsendable(format!("the route of {} has no address", group.name));
        for address in group.addresses.values() {
            match self.ask(address, request.clone(), timeout).await {
                Err(error) if error.is_unreachable() => failure = error,
                outcome => return outcome,
            }
        }
        Err(failure)
    }

    /// Asks the name servers, beginning with the one that answered last.
    pub(super) async fn ask_name_server(
        &self,
        request: RemotingCommand,
    ) -> Result<RemotingCommand, ClientError> {
        let first = self.good_server.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for step in 0..self.servers.len() {
            let position = (first + step) % self.servers.len();
            match self
                .ask(&self.servers[position], request.clone(), CALL_TIMEOUT)
                .await
            {
                Err(error @ ClientError::TimedOut { .. }) => failures.push(error),
                Err(error) if error.is_unreachable() => failures.push(error),
                outcome => {
                    self.good_server.store(position, Ordering::Relaxed);
                    return outcome;
                }
            }
        }
        Err(no_name_server(failures))
    }

    /// The route of a topic; `None` if there is no such topic.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn route(&self, topic: &str) -> Result<Option<TopicRoute>, ClientError> {
        let header = RouteRequest {
            topic,
            accept_standard_json_only: Some(true),
        };
        let asked = request(RequestCode::GET_ROUTEINFO_BY_TOPIC, |fields| {
            header.write(fields)
        });
        match self.ask_name_server(asked).await {
            Ok(answer) => self
                .read(
                    RequestCode::GET_ROUTEINFO_BY_TOPIC,
                    TopicRoute::decode(&answer.body),
                )
                .map(Some),
            Err(error) if error.code() == Some(ResponseCode::TOPIC_NOT_EXIST) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every broker group of the cluster, by name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn groups(&self) -> Result<Vec<BrokerGroup>, ClientError> {
        let code = RequestCode::GET_BROKER_CLUSTER_INFO;
        let answer = self.ask_name_server(request(code, |_| {})).await?;
        let info = self.read(code, ClusterInfo::decode(&answer.body))?;
        Ok(info
            .broker_addr_table
            .into_values()
            .map(BrokerGroup::from)
            .collect())
    }

    /// The broker groups that hold a topic; `None` if there is no such topic.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn groups_of(&self, topic: &str) -> Result<Option<Vec<BrokerGroup>>, ClientError> {
        let Some(route) = self.route(topic).await? else {
            return Ok(None);
        };
        Ok(Some(
            route
                .broker_datas
                .into_iter()
                .map(BrokerGroup::from)
                .collect(),
        ))
    }

    /// The names of all topics, the broker's own included, in order.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn topics(&self) -> Result<Vec<String>, ClientError> {
        let code = RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER;
        let answer = self.ask_name_server(request(code, |_| {})).await?;
        let mut topics = self.read(code, TopicList::decode(&answer.body))?.topic_list;
        topics.sort();
        Ok(topics)
    }

    fn read<T>(&self, asked: RequestCode, body: Result<T, JsonError>) -> Result<T, ClientError> {
        let server = self.good_server.load(Ordering::Relaxed);
        body.map_err(|error| unreadable(&self.servers[server], asked, error))
    }

    async fn connection(&self, address: &str) -> Result<Arc<Connection>, ClientError> {
        let known = self.lock_connections().get(address).cloned();
        if let Some(connection) = known.filter(|connection| !connection.is_closed()) {
            return Ok(connection);
        }
        // Two callers may both connect; the later connection stays, the other lives as long as its caller.
        let connection = Arc::new(Connection::open(address, self.asked.clone()).await?);
        self.lock_connections()
            .insert(address.to_string(), Arc::clone(&connection));
        Ok(connection)
    }

    fn lock_connections(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Connection>>> {
        self.connections
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

pub(super) fn refused(
    address: &str,
    request: RequestCode,
    answer: &RemotingCommand,
) -> ClientError {
    let remark = answer
        .remark
        .as_deref()
        .unwrap_or("no reason given")
        .to_string();
    ClientError::Refused {
        address: address.to_string(),
        request,
        code: answer.response_code(),
        remark,
    }
}

pub(super) fn unreadable(
    address: &str,
    request: RequestCode,
    reason: impl ToString,
) -> ClientError {
    ClientError::Unreadable {
        address: address.to_string(),
        request,
        reason: reason.to_string(),
    }
}

/// One error for all servers that were tried in vain.
fn no_name_server(mut failures: Vec<ClientError>) -> ClientError {
    if failures.len() == 1 {
        return failures.remove(0);
    }
    let address = "every name server".to_string();
    let reason = failures
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ");
    ClientError::Unreachable { address, reason }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_name_servers() {
        let client = Client::new(" a:1; b.c:2,d:3;").unwrap();
        assert_eq!(client.servers, ["a:1", "b.c:2", "d:3"]);
        for bad in ["", ";", "a", "a:b", ":9876", "a:1;b"] {
            assert!(Client::new(bad).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn every_server_that_failed_is_named() {
        // Port 1 is privileged and unused on test machines.
        let client = Client::new("127.0.0.1:1;127.0.0.1:1").unwrap();
        let error = client.topics().await.unwrap_err();
        assert!(error.is_unreachable());
        assert_eq!(
            error.to_string().matches("127.0.0.1:1").count(),
            2,
            "{error}"
        );
    }
}
