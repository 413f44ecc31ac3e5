//! Texts as RocketMQ's tools print and read them: times, versions, maps.

use crate::cli::failure::Failure;

const DAY_MS: i64 = 24 * 3600 * 1000;

/// Ordinal of V4_1_0; from there on every release has a snapshot before it, and ten make a minor version.
const V4_1_0: i32 = 233;
/// Releases from V4_1_0 to V5_0_0.
const RELEASES_OF_4: i32 = 90;

/// Year, month and day (Gregorian) of a day since 1970.
fn date(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that a leap day ends one.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// The day since 1970 of a date.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// `2024-02-29 12:00:01`, UTC.
pub(super) fn seconds(ms: i64) -> String {
    let (year, month, day) = date(ms.div_euclid(DAY_MS));
    let rest = ms.rem_euclid(DAY_MS) / 1000;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// `2024-02-29 12:00:01,250`, UTC.
pub(super) fn millis(ms: i64) -> String {
    format!("{},{:03}", seconds(ms), ms.rem_euclid(1000))
}

/// A time as tools take it: `now`, milliseconds, or `2024-02-29#12:00:01:250` in UTC.
pub(super) fn parse_time(text: &str) -> Result<i64, Failure> {
    if text == "now" {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        return Ok(since.as_millis() as i64);
    }
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    parse_date(text).ok_or_else(|| {
        Failure::usage(format!(
            "{text}: a time is now, milliseconds since 1970, or yyyy-MM-dd#HH:mm:ss:SSS in UTC"
        ))
    })
}

fn parse_date(text: &str) -> Option<i64> {
    let parts: Option<Vec<i64>> = text
        .split(['-', '#', ':'])
        .map(|part| part.parse().ok())
        .collect();
    let [year, month, day, hour, minute, second, ms] = parts?.try_into().ok()?;
    let in_day = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..60).contains(&second);
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day) && (0..1000).contains(&ms);
    if !in_day || !is_date {
        return None;
    }
    let seconds = (hour * 60 + minute) * 60 + second;
    Some(days(year, month, day) * DAY_MS + seconds * 1000 + ms)
}

/// The name of a client's version, as RocketMQ writes it.
pub(super) fn version(ordinal: i32) -> String {
    if ordinal < V4_1_0 - 1 {
        return format!("V{ordinal}");
    }
    let release = (ordinal - V4_1_0 + 1) / 2;
    let (major, first, release) = if release < RELEASES_OF_4 {
        (4, 1, release)
    } else {
        (5, 0, release - RELEASES_OF_4)
    };
    let snapshot = if (ordinal - V4_1_0) % 2 == 0 {
        ""
    } else {
        "_SNAPSHOT"
    };
    let (minor, patch) = (first + release / 10, release % 10);
    format!("V{major}_{minor}_{patch}{snapshot}")
}

/// A map as Java prints one.
pub(super) fn map<K: std::fmt::Display, V: std::fmt::Display>(
    pairs: impl IntoIterator<Item = (K, V)>,
) -> String {
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    format!("{{{}}}", pairs.join(", "))
}

/// The front of a text, where a column must not grow.
pub(super) fn front(text: &str, columns: usize) -> String {
    text.chars().take(columns).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00,000"),
            (951_782_400_123, "2000-02-29 00:00:00,123"),
            (1_709_208_001_250, "2024-02-29 12:00:01,250"),
            (4_107_542_400_000, "2100-03-01 00:00:00,000"),
        ] {
            assert_eq!(millis(ms), text);
            let form = text.replace(' ', "#").replace(',', ":");
            assert_eq!(parse_time(&form).unwrap(), ms);
        }
        assert_eq!(parse_time("12").unwrap(), 12);
        assert!(parse_time("now").unwrap() > 1_700_000_000_000);
        for wrong in [
            "",
            "soon",
            "2024-13-01#00:00:00:000",
            "2024-01-01#24:00:00:000",
        ] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn versions_have_names() {
        for (ordinal, name) in [
            (232, "V4_1_0_SNAPSHOT"),
            (233, "V4_1_0"),
            (333, "V4_6_0"),
            (409, "V4_9_8"),
            (413, "V5_0_0"),
            (479, "V5_3_3"),
        ] {
            assert_eq!(version(ordinal), name);
        }
    }
}
