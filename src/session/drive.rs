//! The main loop of a session, from its handshake to its end. It knows frames and turns, but no
//! sockets.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::ask::Caller;
use super::ears::{SessionEvent, SessionEvents};
use super::frames::{
    ClientLimits, ErrorCode, HEARTBEAT_S, PROTOCOL, Refusal, Resume, ServerFrame, Welcome,
};
use super::hello::{Hello, hello};
use super::lobby::Lobby;
use crate::chat::{Frame, TurnId, TurnRecord, TurnState};
use crate::turn::doze::Dozing;
use crate::turn::log::{Follower, TurnLog, encode};
use crate::turn::rooms::{NewTurn, Room};

/// A message of the session task to its socket.
#[derive(Debug)]
pub enum Out {
    Frames(Vec<ByteString>),
    /// Closes the socket with a close code of RFC 6455 and a reason.
    Close(u16, &'static str),
}

/// The socket is gone or cannot be served, so the session ends.
pub struct Gone;

/// The number of finished turns that a session remembers as delivered.
const DELIVERED: usize = 16;

/// Runs one session until its socket is gone or was told to close.
pub async fn drive(
    service: Arc<Lobby>,
    peer: IpAddr,
    mut client_frames: mpsc::Receiver<ByteString>,
    outgoing: mpsc::Sender<Out>,
) {
    // The short-lived futures are boxed. Otherwise the task would reserve space for them during its
    // whole life, which is mostly spent waiting.
    match Box::pin(hello(&service, &mut client_frames, &outgoing)).await {
        Ok(Ok(handshake)) => {
            let opened = Box::pin(Visit::open(
                service,
                peer,
                client_frames,
                outgoing,
                handshake,
            ));
            let Ok(mut session) = opened.await else {
                return;
            };
            // The socket is gone or closing, so there is nobody to report the result to.
            let _ = session.serve().await;
        }
        Ok(Err(reason)) => {
            let _ = outgoing.send(Out::Close(1008, reason)).await;
        }
        Err(Gone) => {}
    }
}

/// A session after its handshake, with an open conversation.
pub(super) struct Visit {
    pub(super) service: Arc<Lobby>,
    pub(super) sender: Caller,
    events: SessionEvents,
    pub(super) outgoing: mpsc::Sender<Out>,
    pub(super) conversation: Arc<Room>,
    pub(super) following: Option<Follower>,
    /// The turns to follow after the current one.
    pub(super) queued: VecDeque<Follower>,
    /// The last turns that were delivered to their end, oldest first.
    pub(super) delivered: VecDeque<TurnId>,
}

impl Visit {
    async fn open(
        service: Arc<Lobby>,
        peer: IpAddr,
        client_frames: mpsc::Receiver<ByteString>,
        outgoing: mpsc::Sender<Out>,
        handshake: Hello,
    ) -> Result<Self, Gone> {
        let Hello {
            room: conversation,
            resume,
            subject,
        } = handshake;
        // Subscribe before reading the history, so that no event falls between the two.
        let (new_turns, running) = conversation.watch();
        let followups = conversation.late();
        let deletions = conversation.forgotten();
        let history = service.history(&conversation, None).await;
        let period = Duration::from_secs(HEARTBEAT_S);
        let mut heartbeat = tokio::time::interval_at(Instant::now() + period, period);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let events = SessionEvents {
            client_frames,
            new_turns,
            followups,
            deletions,
            status: service.status.clone(),
            phase: service.desk.phase.clone(),
            heartbeat,
        };
        let mut session = Self {
            following: None,
            queued: VecDeque::new(),
            delivered: VecDeque::new(),
            service,
            sender: Caller {
                address: peer,
                subject,
            },
            events,
            outgoing,
            conversation,
        };
        session.welcome(&history).await?;
        session.resume(resume, running).await?;
        Ok(session)
    }

    async fn serve(&mut self) -> Result<(), Gone> {
        loop {
            if self.following.is_none() {
                self.following = self.queued.pop_front();
            }
            let Some(event) = self.tell().await? else {
                self.over();
                continue;
            };
            match event {
                SessionEvent::ClientFrame(text) => Box::pin(self.hear(&text)).await?,
                SessionEvent::ClientGone => return Err(Gone),
                SessionEvent::NewTurn(NewTurn::Log(log)) => {
                    // A duplicate message may have queued this turn before its event arrived.
                    if !self.knows(log.turn()) {
                        self.queued.push_back(log.follow());
                    }
                }
                SessionEvent::NewTurn(NewTurn::Missed) | SessionEvent::FollowupsLagged => {
                    self.tell_history().await?;
                }
                SessionEvent::Followup(turn, followup) => {
                    let followup = &followup;
                    self.say(&ServerFrame::Followup { turn, followup }).await?;
                }
                SessionEvent::ConversationDeleted => return self.leave().await,
                SessionEvent::StatusChanged(status) => {
                    self.say(&ServerFrame::Status(&status)).await?;
                }
                SessionEvent::ServiceClosing => {
                    self.flush().await?;
                    let close = Out::Close(1001, "the service restarts");
                    return self.outgoing.send(close).await.map_err(|_| Gone);
                }
                SessionEvent::HeartbeatDue => self.say(&ServerFrame::Heartbeat).await?,
            }
        }
    }

    /// Streams the followed turn until an event arrives. Returns `None` at the end of that turn.
    ///
    /// Turns are delivered one after the other: new turns are reported only while none is followed.
    async fn tell(&mut self) -> Result<Option<SessionEvent>, Gone> {
        let Self {
            events,
            conversation,
            following,
            outgoing,
            ..
        } = self;
        // One future serves the whole loop and is polled only when it was woken, so that a token
        // does not cost a poll of every event source.
        let event = pin!(events.next(conversation, following.is_none()));
        let mut event = Dozing::new(event);
        loop {
            tokio::select! {
                event = &mut event => return Ok(Some(event)),
                frames = next(following) => match frames {
                    Some(frames) => outgoing.send(Out::Frames(frames)).await.map_err(|_| Gone)?,
                    None => return Ok(None),
                },
            }
        }
    }

    /// Ends the session because its conversation was deleted, after delivering what is finished.
    async fn leave(&mut self) -> Result<(), Gone> {
        self.flush().await?;
        let error = Refusal::new(
            ErrorCode::NotFound,
            "this conversation was deleted; start a new one",
        );
        self.refuse(&error).await?;
        self.outgoing
            .send(Out::Close(1008, "the conversation was deleted"))
            .await
            .map_err(|_| Gone)
    }

    /// Sends the conversation's current history to a client that missed a part of it.
    async fn tell_history(&self) -> Result<(), Gone> {
        let turns = self.service.history(&self.conversation, None).await;
        self.say(&ServerFrame::History { turns: &turns }).await
    }

    /// Sends the remaining frames of finished turns.
    async fn flush(&mut self) -> Result<(), Gone> {
        while let Some(mut follower) = self.following.take().or_else(|| self.queued.pop_front()) {
            while follower.log().ended() {
                let Some(frames) = follower.next().await else {
                    break;
                };
                self.send_frames(frames).await?;
            }
        }
        Ok(())
    }

    /// Stops following a turn whose last frame was delivered.
    fn over(&mut self) {
        if let Some(follower) = self.following.take() {
            self.delivered.push_back(follower.log().turn());
            if self.delivered.len() > DELIVERED {
                self.delivered.pop_front();
            }
        }
    }

    /// Returns `true` if the turn's frames are, will be or were delivered by this session.
    pub(super) fn knows(&self, turn: TurnId) -> bool {
        let mut followed = self.following.iter().chain(&self.queued);
        self.delivered.contains(&turn) || followed.any(|follower| follower.log().turn() == turn)
    }

    async fn send_frames(&self, frames: Vec<ByteString>) -> Result<(), Gone> {
        let frames = Out::Frames(frames);
        self.outgoing.send(frames).await.map_err(|_| Gone)
    }

    pub(super) async fn say(&self, frame: &ServerFrame<'_>) -> Result<(), Gone> {
        self.send_frames(vec![frame.encode()]).await
    }

    pub(super) async fn refuse(&self, error: &Refusal) -> Result<(), Gone> {
        self.send_frames(vec![error.into()]).await
    }

    async fn welcome(&mut self, history: &[TurnRecord]) -> Result<(), Gone> {
        let status = Arc::clone(&self.events.status.borrow_and_update());
        let settings = self.service.settings();
        let welcome = Welcome {
            protocol: PROTOCOL,
            conversation: self.conversation.id(),
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

    /// Continues the turn that the client was receiving, and joins the turn that runs now.
    ///
    /// A client that joins a running turn gets a snapshot first.
    async fn resume(
        &mut self,
        resume: Option<Resume>,
        running: Option<Arc<TurnLog>>,
    ) -> Result<(), Gone> {
        if let Some(Resume { turn, seq }) = resume {
            match self.conversation.log(turn) {
                Some(log) => self.queued.push_back(log.resume(seq)),
                None => match self.service.turn(&self.conversation, turn).await {
                    Ok(record) => self.replay(record, seq).await?,
                    Err(error) => self.refuse(&error).await?,
                },
            }
        }
        let other = running.filter(|log| resume.is_none_or(|resume| resume.turn != log.turn()));
        self.queued.extend(other.map(|log| log.resume(0)));
        Ok(())
    }

    /// Sends a turn whose log is gone as two frames, a snapshot and its end, numbered after
    /// `after_seq`.
    pub(super) async fn replay(&mut self, record: TurnRecord, after_seq: u64) -> Result<(), Gone> {
        let record = if record.state == TurnState::Running {
            record.interrupted()
        } else {
            record
        };
        let snapshot = Frame::Snapshot {
            turn: record.turn,
            seq: after_seq.saturating_add(1),
            attempt: record.provider.as_ref().map_or(0, |_| record.attempts),
            provider: record.provider.clone(),
            model: record.model.clone(),
            text: record.text.clone(),
            drafts: record.drafts.clone(),
            question: record.question.clone(),
        };
        let done = Frame::Done(Box::new(record.done(after_seq.saturating_add(2))));
        self.send_frames(vec![encode(&snapshot), encode(&done)])
            .await
    }
}

/// Waits for the next frames of the follower, or forever if there is none.
async fn next(follower: &mut Option<Follower>) -> Option<Vec<ByteString>> {
    match follower {
        Some(follower) => follower.next().await,
        None => std::future::pending().await,
    }
}
