//! What was counted (315), and who produces (328).

use gantry_protocol::RemotingCommand;
use gantry_protocol::headers::CounterRequest;

use super::Handled;
use crate::broker::Broker;
use crate::group::Group;
use crate::remoting::Request;
use crate::statistics;

/// 315: one counter over the last minute, hour and day, of all nodes.
pub async fn view(broker: &Broker, group: &Group, request: &Request) -> Handled {
    let header = CounterRequest::parse(&request.command.fields)?;
    let counts = statistics::item(broker, group, (header.stats_name, header.stats_key)).await?;
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(counts.to_body().encode())
        .into())
}

/// 328: all producers, by group.
pub fn producers(broker: &Broker, request: &Request) -> Handled {
    let body = broker.sessions.all_producers(broker.clock.now_ms());
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body.encode())
        .into())
}
