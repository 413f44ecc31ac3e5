//! One call of a command: its options as given, and the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_protocol::bodies::GroupList;
use gantry_protocol::headers::TopicRequest;
use gantry_protocol::{RemotingCommand, RequestCode};

use crate::cli::failure::Failure;
use crate::client::{BrokerGroup, Client};

/// How long an answer is waited for; one that a member of a group gives may take ten seconds.
pub(super) const TIMEOUT: Duration = Duration::from_secs(12);

/// An option of a command.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) short: char,
    long: &'static str,
    takes_value: bool,
    is_required: bool,
}

/// An option that must be given.
pub(super) const fn required(short: char, long: &'static str) -> Flag {
    let (takes_value, is_required) = (true, true);
    Flag {
        short,
        long,
        takes_value,
        is_required,
    }
}

/// An option that may be given.
pub(super) const fn optional(short: char, long: &'static str) -> Flag {
    let (takes_value, is_required) = (true, false);
    Flag {
        short,
        long,
        takes_value,
        is_required,
    }
}

/// An option without a value.
pub(super) const fn switch(short: char, long: &'static str) -> Flag {
    let (takes_value, is_required) = (false, false);
    Flag {
        short,
        long,
        takes_value,
        is_required,
    }
}

/// Options of every command.
pub(super) const EVERYWHERE: [Flag; 2] = [optional('n', "namesrvAddr"), switch('h', "help")];

impl Flag {
    pub(super) fn help(&self) -> String {
        let value = if self.takes_value { " <arg>" } else { "" };
        let must = if self.is_required { "   required" } else { "" };
        format!(" -{},--{}{value}{must}", self.short, self.long)
    }

    /// The value that a word gives with the option: `-tX`, `--topic=X`.
    fn joined<'w>(&self, word: &'w str) -> Option<&'w str> {
        let long = word
            .strip_prefix("--")
            .and_then(|rest| rest.strip_prefix(self.long))
            .and_then(|rest| rest.strip_prefix('='));
        let short = || {
            let rest = word.strip_prefix('-')?.strip_prefix(self.short)?;
            (!rest.is_empty() && !word.starts_with("--")).then_some(rest)
        };
        long.or_else(short).filter(|_| self.takes_value)
    }

    fn is_named(&self, word: &str) -> bool {
        let long = word.strip_prefix("--").or(word.strip_prefix('-'));
        long == Some(self.long)
            || word.strip_prefix('-').is_some_and(|rest| {
                rest.len() == self.short.len_utf8() && rest.starts_with(self.short)
            })
    }
}

/// The options that were given, and the cluster that they are for.
pub(super) struct Call {
    given: BTreeMap<char, String>,
    pub(super) client: Client,
    pub(super) servers: String,
}

impl Call {
    /// Reads the words behind the command.
    pub(super) fn parse(flags: &'static [Flag], words: Vec<String>) -> Result<Call, String> {
        let given = read(flags, words)?;
        let servers = given.get(&'n').cloned();
        let servers = servers
            .or_else(|| std::env::var("NAMESRV_ADDR").ok())
            .unwrap_or_else(|| "127.0.0.1:9876".to_string());
        let client = Client::new(&servers).map_err(|error| error.to_string())?;
        Ok(Call {
            given,
            client,
            servers,
        })
    }

    /// The value of a required option.
    pub(super) fn text(&self, short: char) -> &str {
        self.given
            .get(&short)
            .expect("required options were checked")
    }

    pub(super) fn option(&self, short: char) -> Option<&str> {
        self.given.get(&short).map(String::as_str)
    }

    pub(super) fn has(&self, short: char) -> bool {
        self.given.contains_key(&short)
    }

    /// A number; `default` if the option is not given.
    pub(super) fn number<T: std::str::FromStr>(
        &self,
        short: char,
        default: T,
    ) -> Result<T, Failure> {
        let Some(text) = self.option(short) else {
            return Ok(default);
        };
        text.parse()
            .map_err(|_| Failure::usage(format!("-{short} {text}: a number is needed")))
    }

    /// `true` or `false`; `default` if the option is not given.
    pub(super) fn flag(&self, short: char, default: bool) -> Result<bool, Failure> {
        match self.option(short) {
            None => Ok(default),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(text) => Err(Failure::usage(format!(
                "-{short} {text}: true or false is needed"
            ))),
        }
    }

    /// The brokers that `-b` or `-c` name: the one at an address, or those of a cluster that take writes.
    pub(super) async fn targets(&self) -> Result<Vec<String>, Failure> {
        if let Some(address) = self.option('b') {
            return Ok(vec![address.to_string()]);
        }
        let Some(cluster) = self.option('c') else {
            return Err(Failure::usage("-b or -c is needed"));
        };
        let groups = self.groups_of_cluster(cluster).await?;
        Ok(groups.iter().filter_map(master).collect())
    }

    /// The broker groups of a cluster.
    pub(super) async fn groups_of_cluster(
        &self,
        cluster: &str,
    ) -> Result<Vec<BrokerGroup>, Failure> {
        let groups = self.client.groups().await?;
        let groups: Vec<BrokerGroup> = groups
            .into_iter()
            .filter(|group| group.cluster == cluster)
            .collect();
        if groups.is_empty() {
            return Err(Failure::new(format!("there is no cluster {cluster}")));
        }
        Ok(groups)
    }

    /// The broker groups of a topic; fails if there is no such topic.
    pub(super) async fn groups_of_topic(&self, topic: &str) -> Result<Vec<BrokerGroup>, Failure> {
        let groups = self.client.groups_of(topic).await?;
        groups.ok_or_else(|| Failure::new(format!("topic {topic} does not exist")))
    }

    /// Asks one address; any code but success is a failure.
    pub(super) async fn ask(
        &self,
        address: &str,
        request: RemotingCommand,
    ) -> Result<RemotingCommand, Failure> {
        Ok(self.client.ask(address, request, TIMEOUT).await?)
    }

    /// Asks a broker group, the next node if one cannot be reached.
    pub(super) async fn ask_group(
        &self,
        group: &BrokerGroup,
        mut request: RemotingCommand,
    ) -> Result<RemotingCommand, Failure> {
        request.fields.set("bname", &group.name);
        Ok(self.client.ask_group(group, request, TIMEOUT).await?)
    }

    /// The consumer groups that read a topic in any of the broker groups.
    pub(super) async fn consumers_of(
        &self,
        topic: &str,
        groups: &[BrokerGroup],
    ) -> Result<BTreeSet<String>, Failure> {
        let mut consumers = BTreeSet::new();
        for group in groups {
            let asked = request(RequestCode::QUERY_TOPIC_CONSUME_BY_WHO, |fields| {
                TopicRequest { topic }.write(fields)
            });
            let answer = self.ask_group(group, asked).await?;
            consumers.extend(body(GroupList::decode(&answer.body))?.group_list);
        }
        Ok(consumers)
    }
}

/// The address that takes a group's writes.
pub(super) fn master(group: &BrokerGroup) -> Option<String> {
    group.addresses.get(&0).cloned()
}

/// A request with these header fields.
pub(super) fn request(
    code: RequestCode,
    write: impl FnOnce(&mut gantry_protocol::Fields),
) -> RemotingCommand {
    let mut request = RemotingCommand::request(code, 0);
    write(&mut request.fields);
    request
}

/// What an answer's body says.
pub(super) fn body<T, E: std::fmt::Display>(read: Result<T, E>) -> Result<T, Failure> {
    read.map_err(|error| Failure::new(format!("the answer cannot be read: {error}")))
}

fn read(flags: &[Flag], words: Vec<String>) -> Result<BTreeMap<char, String>, String> {
    let mut given = BTreeMap::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let mut known = flags.iter().chain(&EVERYWHERE);
        if let Some(flag) = known.clone().find(|flag| flag.is_named(&word)) {
            let value = if flag.takes_value {
                words.next().ok_or(format!("{word} needs a value"))?
            } else {
                String::new()
            };
            given.insert(flag.short, value.trim().to_string());
            continue;
        }
        let joined = known.find_map(|flag| Some((flag.short, flag.joined(&word)?)));
        let (short, value) = joined.ok_or(format!("there is no option {word}"))?;
        given.insert(short, value.trim().to_string());
    }
    let missing = flags
        .iter()
        .find(|flag| flag.is_required && !given.contains_key(&flag.short));
    match missing {
        Some(flag) => Err(format!("-{} (--{}) is required", flag.short, flag.long)),
        None => Ok(given),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        required('t', "topic"),
        switch('l', "list"),
        optional('s', "time"),
    ];

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(String::from).collect()
    }

    #[test]
    fn options_are_read_in_every_form() {
        for form in [
            "-t T -l",
            "--topic T --list",
            "-tT -l",
            "--topic=T -l",
            "-l -topic T",
        ] {
            let given = read(FLAGS, words(form)).unwrap();
            assert_eq!(given[&'t'], "T", "{form}");
            assert!(given.contains_key(&'l'), "{form}");
        }
        assert_eq!(read(FLAGS, words("-t T -s -1")).unwrap()[&'s'], "-1");
    }

    #[test]
    fn wrong_options_are_refused_with_the_reason() {
        for (form, reason) in [
            ("-l", "-t (--topic) is required"),
            ("-t", "-t needs a value"),
            ("-t T -x", "there is no option -x"),
            ("-t T word", "there is no option word"),
        ] {
            assert_eq!(read(FLAGS, words(form)).unwrap_err(), reason);
        }
    }
}
