//! Settings of messages that wait.

use std::time::Duration;

use super::{BrokerFile, ConfigError, wrong};
use crate::delays::Delays;
use crate::transactions::Checks;
use crate::units::parse_duration;

/// Most levels: queues of the topic that they wait in.
const LEVELS_MAX: usize = 1024;
const CHECK_INTERVAL_MIN: Duration = Duration::from_millis(100);

impl BrokerFile {
    pub(super) fn resolve_delays(&self) -> Result<Delays, ConfigError> {
        let mut delays = Delays::default();
        if let Some(text) = &self.message_delay_levels {
            let levels = text.split_whitespace().map(parse_duration);
            delays.levels = levels
                .collect::<Result<Vec<Duration>, String>>()
                .map_err(|error| ConfigError(format!("`broker.message_delay_levels`: {error}")))?;
        }
        if !(1..=LEVELS_MAX).contains(&delays.levels.len()) {
            return wrong(format!(
                "`broker.message_delay_levels` has 1 to {LEVELS_MAX} levels, for instance \"1s 5s 1m\""
            ));
        }
        if let Some(text) = &self.timer_max_delay {
            delays.longest = parse_duration(text)
                .map_err(|error| ConfigError(format!("`broker.timer_max_delay`: {error}")))?;
        }
        Ok(delays)
    }

    pub(super) fn resolve_checks(&self) -> Result<Checks, ConfigError> {
        let default = Checks::default();
        let duration = |key: &str, text: &Option<String>, default| match text {
            Some(text) => parse_duration(text)
                .map_err(|error| ConfigError(format!("`broker.{key}`: {error}"))),
            None => Ok(default),
        };
        let timeout = &self.transaction_timeout;
        let interval = &self.transaction_check_interval;
        let interval = duration("transaction_check_interval", interval, default.interval)?;
        Ok(Checks {
            timeout: duration("transaction_timeout", timeout, default.timeout)?,
            interval: interval.max(CHECK_INTERVAL_MIN),
            most: self.transaction_check_max.unwrap_or(default.most),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rocketmqs_levels_unless_told_otherwise() {
        let delays = BrokerFile::default().resolve_delays().unwrap();
        assert_eq!(delays.levels.len(), 18);
        assert_eq!(delays.levels[17], Duration::from_secs(7200));
        assert_eq!(delays, Delays::default());
        assert_eq!(delays.levels[4], Duration::from_secs(60));
        let own = BrokerFile {
            message_delay_levels: Some("100ms 2s".into()),
            timer_max_delay: Some("1h".into()),
            ..BrokerFile::default()
        };
        let delays = own.resolve_delays().unwrap();
        assert_eq!(delays.levels, [100, 2000].map(Duration::from_millis));
        assert_eq!(delays.longest, Duration::from_secs(3600));
        for levels in ["", "1s soon"] {
            let wrong = BrokerFile {
                message_delay_levels: Some(levels.into()),
                ..BrokerFile::default()
            };
            assert!(wrong.resolve_delays().is_err(), "{levels:?}");
        }
    }
}
