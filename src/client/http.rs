//! One HTTP request: enough for a node's own status pages, which are small and come in one piece.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::ClientError;

const TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Status and body of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 and so on.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

/// Gets `path` from `address` (`host:port`); takes 3 s at most.
///
/// # Errors
/// [`ClientError`] if there is no answer or not one of HTTP. Any status is a success.
pub async fn get(address: &str, path: &str) -> Result<Answer, ClientError> {
    ask(address, ("GET", path), TIMEOUT).await
}

/// Posts nothing to `path` at `address` (`host:port`); takes as long as `limit`.
///
/// # Errors
/// [`ClientError`] if there is no answer or not one of HTTP. Any status is a success.
pub async fn post(address: &str, path: &str, limit: Duration) -> Result<Answer, ClientError> {
    ask(address, ("POST", path), limit).await
}

async fn ask(address: &str, what: (&str, &str), limit: Duration) -> Result<Answer, ClientError> {
    match tokio::time::timeout(limit, exchange(address, what)).await {
        Ok(Ok(text)) => parse(&text).ok_or_else(|| ClientError::Unreachable {
            address: address.to_string(),
            reason: "it does not speak HTTP; is this the port of a node's `http`?".to_string(),
        }),
        Ok(Err(error)) => Err(ClientError::Unreachable {
            address: address.to_string(),
            reason: error.to_string(),
        }),
        Err(_) => Err(ClientError::TimedOut {
            address: address.to_string(),
            timeout_ms: limit.as_millis(),
        }),
    }
}

async fn exchange(address: &str, (method, path): (&str, &str)) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    let request = match method {
        "GET" => format!("{head}\r\n"),
        _ => format!("{head}Content-Length: 0\r\n\r\n"),
    };
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// `None` if this is not HTTP, or the body is shorter than announced or in chunks.
fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let mut status_line = lines.next()?.split(' ');
    if !status_line.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let status = status_line.next()?.parse().ok()?;
    for line in lines {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return None;
        }
        if name.eq_ignore_ascii_case("content-length") && value.trim().parse() != Ok(body.len()) {
            return None;
        }
    }
    Some(Answer {
        status,
        body: body.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_half_ones_are_not() {
        let whole = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 5\r\nx: y\r\n\r\nno\r\n!";
        assert_eq!(
            parse(whole),
            Some(Answer {
                status: 503,
                body: "no\r\n!".to_string()
            })
        );
        let bad = [
            "",
            "HTTP/1.1 200 OK\r\n",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nshort",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ];
        for text in bad {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
