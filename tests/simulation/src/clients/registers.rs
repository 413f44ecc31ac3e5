//! Clients of the key-value table: registers that are written and read.

use std::time::Duration;

use gantry_checker::{Answer, Request};
use gantry_protocol::headers::{KvRequest, KvResponse, PutKvRequest};
use gantry_protocol::{RequestCode, ResponseCode};

use super::{Client, Stage, request};

const NAMESPACE: &str = "registers";
const KEYS: [&str; 2] = ["one", "two"];
const LIMIT: Duration = Duration::from_secs(3);

/// Writes and reads until the load is over.
pub(super) async fn run(mut client: Client) {
    let mut written = 0u32;
    while client.stage() == Stage::Load {
        let key = *client.rng.pick(&KEYS);
        if client.rng.per_mille(400) {
            written += 1;
            let value = format!("{}-{written}", client.name);
            put(&mut client, key, &value).await;
        } else {
            get(&mut client, key).await;
        }
        client.think().await;
        client.think().await;
    }
}

async fn put(client: &mut Client, key: &str, value: &str) {
    let node = client.node();
    let header = PutKvRequest {
        namespace: NAMESPACE,
        key,
        value,
    };
    let asked = request(RequestCode::PUT_KV_CONFIG, |fields| header.write(fields));
    let what = Request::Put {
        register: key.to_string(),
        value: value.to_string(),
    };
    let call = client.invoke(what);
    if client.ask(call, node, asked, LIMIT).await.is_some() {
        client.done(call, Answer::Done);
    }
}

async fn get(client: &mut Client, key: &str) {
    let node = client.node();
    let header = KvRequest {
        namespace: NAMESPACE,
        key,
    };
    let asked = request(RequestCode::GET_KV_CONFIG, |fields| header.write(fields));
    let what = Request::Get {
        register: key.to_string(),
    };
    let call = client.invoke(what);
    let value = match client.call(node, asked, LIMIT).await {
        Ok(answer) if answer.response_code() == ResponseCode::SUCCESS => {
            let header = KvResponse::parse(&answer.fields);
            header
                .ok()
                .and_then(|header| header.value.map(str::to_string))
        }
        Ok(answer) if answer.response_code() == ResponseCode::QUERY_NOT_FOUND => None,
        Ok(answer) => {
            let code = answer.response_code().0;
            client.around.history.info(&client.name, call, Some(code));
            return;
        }
        Err(lost) => return client.lost(call, lost).await,
    };
    let answer = Answer::Value(value);
    client.done(call, answer);
}
