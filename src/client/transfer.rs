//! Asks a node to have leadership moved.

use std::time::Duration;

use super::{ClientError, http};

/// Longer than a node tries.
const TIMEOUT: Duration = Duration::from_secs(12);

/// Asks any node (`host:port` of its HTTP) that node `to` leads `group` from now on; the text says why that
/// was not done.
///
/// # Errors
/// [`ClientError`] if it cannot be asked.
pub async fn transfer(
    address: &str,
    group: &str,
    to: u16,
) -> Result<Result<(), String>, ClientError> {
    let path = format!("/api/v1/groups/{group}/leader/{to}");
    let answer = http::post(address, &path, TIMEOUT).await?;
    if answer.status == 200 {
        return Ok(Ok(()));
    }
    Ok(Err(answer.body.trim().to_string()))
}
