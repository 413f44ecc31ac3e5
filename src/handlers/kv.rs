//! The name server's key-value table: 100, 101, 102, 219. It is kept by the first group of brokers.

use gantry_protocol::bodies::KvTable;
use gantry_protocol::headers::{KvListRequest, KvRequest, KvResponse, PutKvRequest};
use gantry_protocol::{RemotingCommand, ResponseCode};
use gantry_storage::planted::{Bug, planted};
use gantry_storage::tables::Command;

use super::Handled;
use crate::catalog;
use crate::error::Failure;
use crate::group::{Group, HOLD};
use crate::permissions;
use crate::remoting::Request;

/// 100: stores a value.
pub async fn put(group: &Group, request: &Request) -> Handled {
    let header = PutKvRequest::parse(&request.command.fields)?;
    if header.namespace.is_empty() || header.key.is_empty() {
        let reason = "a value needs a namespace and a key";
        return Err(Failure::code(ResponseCode::INVALID_PARAMETER, reason));
    }
    check_namespace(header.namespace)?;
    let command = Command::PutKv {
        namespace: header.namespace.to_string(),
        key: header.key.to_string(),
        value: header.value.to_string(),
    };
    catalog::change(group, vec![command], request.caller.received + HOLD).await?;
    Ok(RemotingCommand::success_to(&request.command).into())
}

/// What the broker keeps here for itself is not for clients to write.
fn check_namespace(namespace: &str) -> Result<(), Failure> {
    if namespace == permissions::NAMESPACE {
        let reason = "permissions are changed with 25, 205, 327 and 353";
        return Err(Failure::code(ResponseCode::NO_PERMISSION, reason));
    }
    Ok(())
}

/// 101: reads a value.
pub async fn get(group: &Group, request: &Request) -> Handled {
    let header = KvRequest::parse(&request.command.fields)?;
    if !planted(Bug::StaleRegister) {
        group.catch_up(request.caller.received + HOLD).await?;
    }
    let tables = group.store.tables();
    let value = tables.kv(header.namespace, header.key).ok_or_else(|| {
        let reason = format!(
            "there is no {} in namespace {}",
            header.key, header.namespace
        );
        Failure::code(ResponseCode::QUERY_NOT_FOUND, reason)
    })?;
    let mut response = RemotingCommand::success_to(&request.command);
    KvResponse { value: Some(value) }.write(&mut response.fields);
    Ok(response.into())
}

/// 102: forgets a value.
pub async fn delete(group: &Group, request: &Request) -> Handled {
    let header = KvRequest::parse(&request.command.fields)?;
    check_namespace(header.namespace)?;
    let (namespace, key) = (header.namespace.to_string(), header.key.to_string());
    let command = Command::DeleteKv { namespace, key };
    catalog::change(group, vec![command], request.caller.received + HOLD).await?;
    Ok(RemotingCommand::success_to(&request.command).into())
}

/// 219: all values of a namespace.
pub async fn list(group: &Group, request: &Request) -> Handled {
    let header = KvListRequest::parse(&request.command.fields)?;
    group.catch_up(request.caller.received + HOLD).await?;
    let tables = group.store.tables();
    let pairs = tables.kv_namespace(header.namespace);
    let table: std::collections::BTreeMap<String, String> = pairs
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect();
    drop(tables);
    if table.is_empty() {
        let reason = format!("namespace {} is empty", header.namespace);
        return Err(Failure::code(ResponseCode::QUERY_NOT_FOUND, reason));
    }
    let body = KvTable { table }.encode();
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body)
        .into())
}
