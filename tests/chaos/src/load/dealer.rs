//! Dealers: half messages that are committed, rolled back, or left open until somebody asks.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_checker::{Note, Request};
use gantry_protocol::bodies::{Heartbeat, ProducerData};
use gantry_protocol::headers::{CheckTransactionRequest, EndTransactionRequest};
use gantry_protocol::message::{Message, sys_flags};
use gantry_protocol::{RemotingCommand, RequestCode};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};

use super::DRAIN;
use super::client::{Asker, command, id_of};
use super::deeds::Deed;
use super::producer::{Wait, send_waiting};
use crate::net::NODES;
use crate::node::GROUPS;
use crate::shell::{Failure, Outcome, while_doing};

/// Where they are visible in the end.
pub const TOPIC: &str = "dealt";

const HEARTBEAT: Duration = Duration::from_secs(1);

/// Nothing is sent while so many messages are open.
const OPEN_MAX: usize = 500;

/// A half message, and where it waits.
struct Half {
    id: u64,
    offset: i64,
    physical: i64,
    /// Somebody has asked.
    asked: bool,
}

/// Open messages, and how often each was asked about.
type Open = BTreeMap<u64, u32>;

/// How often somebody must ask about an open message before there is an answer.
fn questions(id: u64) -> u32 {
    1 + (id % 3) as u32
}

/// Whether a message that was left open is committed in the end.
fn is_committed(id: u64) -> bool {
    id % 5 < 3
}

/// A member of a producer group of its own in one broker group.
struct Dealer {
    asker: Asker,
    group: usize,
    producers: String,
    topic: String,
    open: Open,
}

/// Sends half messages and ends them, and answers those who ask about them; afterwards until nothing is open,
/// or for so long that what is open is late.
pub async fn run(mut asker: Asker, group: usize) -> Outcome {
    let mut questions = asker.listens();
    let mut dealer = Dealer {
        producers: asker.round.members("dealers", group),
        topic: asker.round.topic(TOPIC),
        group,
        asker,
        open: Open::new(),
    };
    let mut beats = tokio::time::interval(HEARTBEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut deals_at = Instant::now();
    let mut drains_until = None;
    loop {
        let sends = dealer.asker.round.sends();
        if !sends {
            let until = *drains_until.get_or_insert(Instant::now() + DRAIN);
            if dealer.open.is_empty() || Instant::now() > until {
                return Ok(());
            }
        }
        tokio::select! {
            _ = beats.tick() => dealer.beat().await,
            question = questions.recv() => {
                let question = question.ok_or_else(|| Failure("nobody can ask".to_string()))?;
                dealer.answer(&question).await?;
            }
            () = sleep_until(deals_at) => {
                if sends && dealer.open.len() < OPEN_MAX {
                    dealer.deal().await?;
                }
                let pause = dealer.asker.random.between(100, 500);
                deals_at = Instant::now() + Duration::from_millis(pause);
            }
        }
    }
}

impl Dealer {
    /// Tells all nodes that it is there. One that cannot be reached hears the next one.
    async fn beat(&self) {
        let producer = ProducerData {
            group_name: self.producers.clone(),
        };
        let beat = Heartbeat {
            client_id: format!("{}-{}", GROUPS[self.group], self.producers),
            producer_data_set: vec![producer],
            ..Heartbeat::default()
        };
        let body = serde_json::to_vec(&beat).expect("a heartbeat is plain data");
        let told = (0..NODES).map(|node| {
            let request = RemotingCommand::request(RequestCode::HEART_BEAT, 0);
            self.asker
                .ask(node, self.group, request.with_body(body.clone()))
        });
        let [a, b, c] = <[_; NODES]>::try_from(told.collect::<Vec<_>>())
            .unwrap_or_else(|_| unreachable!("there is one for each node"));
        tokio::join!(a, b, c);
    }

    /// One transaction.
    async fn deal(&mut self) -> Outcome {
        let queue = self.asker.random.below(2) as u16;
        let wait = Wait::Half(self.producers.clone());
        let place = (self.group, queue);
        let Some(sent) = send_waiting(&mut self.asker, &self.topic, place, &wait).await? else {
            return Ok(());
        };
        self.asker.did(Deed::Half);
        let half = Half {
            id: sent.id,
            offset: sent.offset,
            physical: sent.physical,
            asked: false,
        };
        let commit = match self.asker.random.below(10) {
            0..4 => true,
            4..6 => false,
            _ => {
                self.open.insert(half.id, 0);
                return Ok(());
            }
        };
        self.asker.pause(0, 300).await;
        // If nothing comes of it, somebody will ask.
        self.end(&half, commit).await
    }

    async fn end(&mut self, half: &Half, commit: bool) -> Outcome {
        let header = EndTransactionRequest {
            producer_group: &self.producers,
            tran_state_table_offset: half.offset,
            commit_log_offset: half.physical,
            commit_or_rollback: match commit {
                true => sys_flags::TRANSACTION_COMMIT,
                false => sys_flags::TRANSACTION_ROLLBACK,
            },
            from_transaction_check: Some(half.asked),
            ..EndTransactionRequest::default()
        };
        let request = command(RequestCode::END_TRANSACTION, |fields| header.write(fields));
        let what = Request::EndTransaction {
            id: half.id,
            commit,
        };
        if self
            .asker
            .do_at(self.group, (what, request))
            .await?
            .is_some()
        {
            self.asker.did(match (half.asked, commit) {
                (true, _) => Deed::Question,
                (false, true) => Deed::Commit,
                (false, false) => Deed::RollBack,
            });
        }
        Ok(())
    }

    /// Somebody asks what became of a message.
    async fn answer(&mut self, question: &RemotingCommand) -> Outcome {
        if question.request_code() != RequestCode::CHECK_TRANSACTION_STATE {
            return Ok(());
        }
        let reading = "reading a question";
        let header = CheckTransactionRequest::parse(&question.fields);
        let header = header.map_err(while_doing(reading))?;
        let messages = Message::decode_all(question.body.clone());
        let messages = messages.map_err(while_doing(reading))?;
        let message = messages.first();
        let message = message.ok_or_else(|| Failure("a question about nothing".to_string()))?;
        let id = id_of(&message.body)?;
        self.asker.note(Note::Checked { id })?;
        // Of one whose send nobody has acked this hears for the first time.
        let times = self.open.entry(id).or_default();
        *times += 1;
        if *times < questions(id) {
            return Ok(());
        }
        self.open.remove(&id);
        let half = Half {
            id,
            offset: header.tran_state_table_offset,
            physical: header.commit_log_offset,
            asked: true,
        };
        self.end(&half, is_committed(id)).await
    }
}
