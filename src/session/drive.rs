//! What one session does, from its hello to its end. Knows frames and turns, not sockets.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::ask::Caller;
use super::ears::{Ears, Heard};
use super::frames::{
    ClientLimits, ErrorCode, HEARTBEAT_S, PROTOCOL, Refusal, Resume, ServerFrame, Welcome,
};
use super::hello::{Hello, hello};
use super::lobby::Lobby;
use crate::chat::{Frame, TurnId, TurnRecord, TurnState};
use crate::turn::doze::Dozing;
use crate::turn::log::{Follower, TurnLog, encode};
use crate::turn::rooms::{NewTurn, Room};

/// What goes to the socket.
#[derive(Debug)]
pub enum Out {
    /// Frames, in order.
    Frames(Vec<ByteString>),
    /// The end, with a close code of RFC 6455.
    Close(u16, &'static str),
}

/// The socket is gone, or cannot be served.
pub struct Gone;

/// How many ended turns a session remembers to have delivered.
const DELIVERED: usize = 16;

/// Serves one session until its socket is gone or told to close. `from` has the client's text frames.
pub async fn drive(
    lobby: Arc<Lobby>,
    peer: IpAddr,
    mut from: mpsc::Receiver<ByteString>,
    to: mpsc::Sender<Out>,
) {
    // What is over soon is boxed: a session waits nearly all its life, and is to be small for that long.
    match Box::pin(hello(&lobby, &mut from, &to)).await {
        Ok(Ok(hello)) => {
            let Ok(mut visit) = Box::pin(Visit::open(lobby, peer, from, to, hello)).await else {
                return;
            };
            // The socket is gone, or told to close: either way there is nobody left to tell.
            let _ = visit.serve().await;
        }
        Ok(Err(shut)) => {
            let _ = to.send(Out::Close(1008, shut)).await;
        }
        Err(Gone) => {}
    }
}

/// A session that has opened its conversation.
pub(super) struct Visit {
    pub(super) lobby: Arc<Lobby>,
    pub(super) caller: Caller,
    ears: Ears,
    pub(super) to: mpsc::Sender<Out>,
    pub(super) room: Arc<Room>,
    pub(super) following: Option<Follower>,
    /// Followed after the present one.
    pub(super) queue: VecDeque<Follower>,
    pub(super) delivered: VecDeque<TurnId>,
}

impl Visit {
    async fn open(
        lobby: Arc<Lobby>,
        peer: IpAddr,
        from: mpsc::Receiver<ByteString>,
        to: mpsc::Sender<Out>,
        hello: Hello,
    ) -> Result<Self, Gone> {
        let Hello {
            room,
            resume,
            subject,
        } = hello;
        let (turns, running) = room.watch();
        // Before the history is read, so that none falls between the two.
        let (late, forgotten) = (room.late(), room.forgotten());
        let history = lobby.history(&room, None).await;
        let every = Duration::from_secs(HEARTBEAT_S);
        let mut heartbeat = tokio::time::interval_at(Instant::now() + every, every);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (status, phase) = (lobby.status.clone(), lobby.desk.phase.clone());
        let mut visit = Self {
            following: None,
            queue: VecDeque::new(),
            delivered: VecDeque::new(),
            lobby,
            caller: Caller {
                address: peer,
                subject,
            },
            ears: Ears {
                from,
                turns,
                late,
                forgotten,
                status,
                phase,
                heartbeat,
            },
            to,
            room,
        };
        visit.welcome(&history).await?;
        visit.resume(resume, running).await?;
        Ok(visit)
    }

    async fn serve(&mut self) -> Result<(), Gone> {
        loop {
            if self.following.is_none() {
                self.following = self.queue.pop_front();
            }
            match self.tell().await? {
                None => self.over(),
                Some(Heard::Client(text)) => {
                    let text = text.ok_or(Gone)?;
                    Box::pin(self.hear(&text)).await?;
                }
                // The same message again may have led here first.
                Some(Heard::Turn(NewTurn::Log(log))) if self.knows(log.turn()) => {}
                Some(Heard::Turn(NewTurn::Log(log))) => self.queue.push_back(log.follow()),
                Some(Heard::Turn(NewTurn::Missed) | Heard::Late(None)) => {
                    self.tell_history().await?
                }
                Some(Heard::Late(Some((turn, late)))) => {
                    self.say(&ServerFrame::Followup { turn, late: &late })
                        .await?;
                }
                Some(Heard::Forgotten) => return self.leave().await,
                Some(Heard::Status(status)) => self.say(&ServerFrame::Status(&status)).await?,
                Some(Heard::Closing) => {
                    self.flush().await?;
                    return self
                        .to
                        .send(Out::Close(1001, "the service restarts"))
                        .await
                        .map_err(|_| Gone);
                }
                Some(Heard::Heartbeat) => self.say(&ServerFrame::Heartbeat).await?,
            }
        }
    }

    /// Tells what the followed turn says, until something else is heard; none at that turn's end.
    ///
    /// Turns are told in their order: the next one is listened for when all of the one before was told.
    async fn tell(&mut self) -> Result<Option<Heard>, Gone> {
        let Self {
            ears,
            room,
            following,
            to,
            ..
        } = self;
        let heard = pin!(ears.hear(room, following.is_none()));
        let mut heard = Dozing::new(heard);
        loop {
            tokio::select! {
                heard = &mut heard => return Ok(Some(heard)),
                frames = next(following) => match frames {
                    Some(frames) => to.send(Out::Frames(frames)).await.map_err(|_| Gone)?,
                    None => return Ok(None),
                },
            }
        }
    }

    /// The conversation was deleted under it: what ended there is told, and that nothing of it is left.
    async fn leave(&mut self) -> Result<(), Gone> {
        self.flush().await?;
        let refusal = Refusal::new(
            ErrorCode::NotFound,
            "this conversation was deleted; begin a new one",
        );
        self.to
            .send(Out::Frames(vec![(&refusal).into()]))
            .await
            .map_err(|_| Gone)?;
        self.to
            .send(Out::Close(1008, "the conversation was deleted"))
            .await
            .map_err(|_| Gone)
    }

    /// The conversation as it is now, for who missed something of it.
    async fn tell_history(&self) -> Result<(), Gone> {
        let turns = self.lobby.history(&self.room, None).await;
        self.say(&ServerFrame::History { turns: &turns }).await
    }

    /// What ended turns still have to say.
    async fn flush(&mut self) -> Result<(), Gone> {
        while let Some(mut follower) = self.following.take().or_else(|| self.queue.pop_front()) {
            while follower.log().ended() {
                let Some(frames) = follower.next().await else {
                    break;
                };
                self.to.send(Out::Frames(frames)).await.map_err(|_| Gone)?;
            }
        }
        Ok(())
    }

    /// The followed turn's end was delivered.
    fn over(&mut self) {
        if let Some(follower) = self.following.take() {
            self.delivered.push_back(follower.log().turn());
            if self.delivered.len() > DELIVERED {
                self.delivered.pop_front();
            }
        }
    }

    /// Whether this turn's frames are, or were, delivered here.
    pub(super) fn knows(&self, turn: TurnId) -> bool {
        let mut followed = self.following.iter().chain(&self.queue);
        self.delivered.contains(&turn) || followed.any(|follower| follower.log().turn() == turn)
    }

    pub(super) async fn say(&self, frame: &ServerFrame<'_>) -> Result<(), Gone> {
        self.to
            .send(Out::Frames(vec![frame.encode()]))
            .await
            .map_err(|_| Gone)
    }

    async fn welcome(&mut self, history: &[TurnRecord]) -> Result<(), Gone> {
        let status = Arc::clone(&self.ears.status.borrow_and_update());
        let settings = self.lobby.settings();
        let welcome = Welcome {
            protocol: PROTOCOL,
            conversation: self.room.id(),
            history,
            status: &status,
            limits: ClientLimits {
                max_message_chars: settings.chat.max_message_chars,
            },
            heartbeat_s: HEARTBEAT_S,
            title: &settings.chat.title,
            greeting: &settings.chat.greeting,
            demo: settings.demo,
        };
        self.say(&ServerFrame::Welcome(Box::new(welcome))).await
    }

    /// Takes a turn up where the client stands; who joins in mid-turn gets a snapshot.
    async fn resume(
        &mut self,
        resume: Option<Resume>,
        running: Option<Arc<TurnLog>>,
    ) -> Result<(), Gone> {
        if let Some(Resume { turn, seq }) = resume {
            match self.room.log(turn) {
                Some(log) => self.queue.push_back(log.resume(seq)),
                None => match self.lobby.turn(&self.room, turn).await {
                    Ok(record) => self.replay(record, seq).await?,
                    Err(refusal) => self.refuse(&refusal).await?,
                },
            }
        }
        let other = running.filter(|log| resume.is_none_or(|resume| resume.turn != log.turn()));
        self.queue.extend(other.map(|log| log.resume(0)));
        Ok(())
    }

    /// An ended turn whose log is dropped, as frames: its text and its end.
    pub(super) async fn replay(&mut self, record: TurnRecord, after: u64) -> Result<(), Gone> {
        let record = if record.state == TurnState::Running {
            record.interrupted()
        } else {
            record
        };
        let snapshot = Frame::Snapshot {
            turn: record.turn,
            seq: after.saturating_add(1),
            attempt: record.provider.as_ref().map_or(0, |_| record.attempts),
            provider: record.provider.clone(),
            model: record.model.clone(),
            text: record.text.clone(),
            drafts: record.drafts.clone(),
            question: record.question.clone(),
        };
        let done = Frame::Done(Box::new(record.done(after.saturating_add(2))));
        self.to
            .send(Out::Frames(vec![encode(&snapshot), encode(&done)]))
            .await
            .map_err(|_| Gone)
    }
}

/// The next frames of a follower, where there is one.
async fn next(follower: &mut Option<Follower>) -> Option<Vec<ByteString>> {
    match follower {
        Some(follower) => follower.next().await,
        None => std::future::pending().await,
    }
}
