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

use super::events::{SessionEvent, SessionEvents};
use super::handshake::{Handshake, await_handshake};
use super::messages::MessageSender;
use super::outgoing::{Disconnected, FrameSender, Outgoing};
use super::protocol::{
    ClientError, ClientLimits, ErrorCode, HEARTBEAT_S, PROTOCOL_VERSION, ResumePoint, ServerFrame,
    Welcome,
};
use super::service::ChatService;
use crate::domain::{Frame, TurnId, TurnRecord, TurnState};
use crate::turn::conversations::{LiveConversation, TurnEvent};
use crate::turn::log::{Follower, TurnLog, encode_frame};
use crate::turn::poll_on_wake::PollOnWake;

/// The number of finished turns that a session remembers as delivered.
const MAX_DELIVERED_TURNS: usize = 16;

/// Runs one session until its socket is gone or was told to close.
pub async fn run_session(
    service: Arc<ChatService>,
    peer: IpAddr,
    mut client_frames: mpsc::Receiver<ByteString>,
    outgoing: mpsc::Sender<Outgoing>,
) {
    let sender = FrameSender(outgoing);
    // The short-lived futures are boxed. Otherwise the task would reserve space for them during its
    // whole life, which is mostly spent waiting.
    let Ok(handshake) = Box::pin(await_handshake(&service, &mut client_frames, &sender)).await
    else {
        return;
    };
    let opened = Box::pin(Session::open(
        service,
        peer,
        client_frames,
        sender,
        handshake,
    ));
    let Ok(mut session) = opened.await else {
        return;
    };
    // The socket is gone or closing, so there is nobody to report the result to.
    let _ = session.run().await;
}

/// A session after its handshake, with an open conversation.
pub(super) struct Session {
    pub(super) service: Arc<ChatService>,
    pub(super) sender: MessageSender,
    events: SessionEvents,
    pub(super) outgoing: FrameSender,
    pub(super) conversation: Arc<LiveConversation>,
    pub(super) following: Option<Follower>,
    /// The turns to follow after the current one.
    pub(super) queued: VecDeque<Follower>,
    /// The last turns that were delivered to their end, oldest first.
    pub(super) delivered: VecDeque<TurnId>,
}

impl Session {
    async fn open(
        service: Arc<ChatService>,
        peer: IpAddr,
        client_frames: mpsc::Receiver<ByteString>,
        outgoing: FrameSender,
        handshake: Handshake,
    ) -> Result<Self, Disconnected> {
        let Handshake {
            conversation,
            resume,
            subject,
        } = handshake;
        // Subscribe before reading the history, so that no event falls between the two.
        let (new_turns, running) = conversation.subscribe();
        let followups = conversation.subscribe_followups();
        let deletions = conversation.subscribe_deletions();
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
            phase: service.turns.phase.clone(),
            heartbeat,
        };
        let mut session = Self {
            following: None,
            queued: VecDeque::new(),
            delivered: VecDeque::new(),
            service,
            sender: MessageSender {
                address: peer,
                subject,
            },
            events,
            outgoing,
            conversation,
        };
        session.send_welcome(&history).await?;
        session.resume(resume, running).await?;
        Ok(session)
    }

    async fn run(&mut self) -> Result<(), Disconnected> {
        loop {
            if self.following.is_none() {
                self.following = self.queued.pop_front();
            }
            let Some(event) = self.stream_until_event().await? else {
                self.finish_followed();
                continue;
            };
            match event {
                SessionEvent::ClientFrame(text) => Box::pin(self.on_text(&text)).await?,
                SessionEvent::ClientGone => return Err(Disconnected),
                SessionEvent::NewTurn(TurnEvent::Started(log)) => {
                    // A duplicate message may have queued this turn before its event arrived.
                    if !self.delivers_turn(log.turn()) {
                        self.queued.push_back(log.follow());
                    }
                }
                SessionEvent::NewTurn(TurnEvent::Lagged) | SessionEvent::FollowupsLagged => {
                    self.send_history().await?;
                }
                SessionEvent::Followup(turn, followup) => {
                    let followup = &followup;
                    self.outgoing
                        .send(&ServerFrame::Followup { turn, followup })
                        .await?;
                }
                SessionEvent::ConversationDeleted => return self.close_deleted().await,
                SessionEvent::StatusChanged(status) => {
                    self.outgoing.send(&ServerFrame::Status(&status)).await?;
                }
                SessionEvent::ServiceClosing => {
                    self.flush().await?;
                    return Err(self.outgoing.close(1001, "the service restarts").await);
                }
                SessionEvent::HeartbeatDue => self.outgoing.send(&ServerFrame::Heartbeat).await?,
            }
        }
    }

    /// Streams the followed turn until an event arrives. Returns `None` at the end of that turn.
    ///
    /// Turns are delivered one after the other: new turns are reported only while none is followed.
    async fn stream_until_event(&mut self) -> Result<Option<SessionEvent>, Disconnected> {
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
        let mut event = PollOnWake::new(event);
        loop {
            tokio::select! {
                event = &mut event => return Ok(Some(event)),
                frames = next_frames(following) => match frames {
                    Some(frames) => outgoing.send_encoded(frames).await?,
                    None => return Ok(None),
                },
            }
        }
    }

    /// Ends the session because its conversation was deleted, after delivering what is finished.
    async fn close_deleted(&mut self) -> Result<(), Disconnected> {
        self.flush().await?;
        let message = "this conversation was deleted; start a new one";
        let error = ClientError::new(ErrorCode::NotFound, message);
        self.outgoing.send_error(&error).await?;
        let reason = "the conversation was deleted";
        Err(self.outgoing.close(1008, reason).await)
    }

    /// Sends the conversation's current history to a client that missed a part of it.
    async fn send_history(&self) -> Result<(), Disconnected> {
        let turns = self.service.history(&self.conversation, None).await;
        self.outgoing
            .send(&ServerFrame::History { turns: &turns })
            .await
    }

    /// Sends the remaining frames of finished turns.
    async fn flush(&mut self) -> Result<(), Disconnected> {
        while let Some(mut follower) = self.following.take().or_else(|| self.queued.pop_front()) {
            while follower.log().is_finished() {
                let Some(frames) = follower.next().await else {
                    break;
                };
                self.outgoing.send_encoded(frames).await?;
            }
        }
        Ok(())
    }

    /// Stops following a turn whose last frame was delivered.
    fn finish_followed(&mut self) {
        if let Some(follower) = self.following.take() {
            self.delivered.push_back(follower.log().turn());
            if self.delivered.len() > MAX_DELIVERED_TURNS {
                self.delivered.pop_front();
            }
        }
    }

    /// Returns `true` if the turn's frames are, will be or were delivered by this session.
    pub(super) fn delivers_turn(&self, turn: TurnId) -> bool {
        let mut followed = self.following.iter().chain(&self.queued);
        self.delivered.contains(&turn) || followed.any(|follower| follower.log().turn() == turn)
    }

    async fn send_welcome(&mut self, history: &[TurnRecord]) -> Result<(), Disconnected> {
        let status = Arc::clone(&self.events.status.borrow_and_update());
        let settings = self.service.settings();
        let welcome = Welcome {
            protocol: PROTOCOL_VERSION,
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
        self.outgoing
            .send(&ServerFrame::Welcome(Box::new(welcome)))
            .await
    }

    /// Continues the turn that the client was receiving, and joins the turn that runs now.
    ///
    /// A client that joins a running turn gets a snapshot first.
    async fn resume(
        &mut self,
        resume: Option<ResumePoint>,
        running: Option<Arc<TurnLog>>,
    ) -> Result<(), Disconnected> {
        if let Some(ResumePoint { turn, seq }) = resume {
            match self.conversation.log(turn) {
                Some(log) => self.queued.push_back(log.resume(seq)),
                None => match self.service.find_turn(&self.conversation, turn).await {
                    Ok(record) => self.replay_finished(record, seq).await?,
                    Err(error) => self.outgoing.send_error(&error).await?,
                },
            }
        }
        let other = running.filter(|log| resume.is_none_or(|resume| resume.turn != log.turn()));
        self.queued.extend(other.map(|log| log.resume(0)));
        Ok(())
    }

    /// Sends a turn whose log is gone as two frames, a snapshot and its end, numbered after
    /// `after_seq`.
    pub(super) async fn replay_finished(
        &mut self,
        record: TurnRecord,
        after_seq: u64,
    ) -> Result<(), Disconnected> {
        let record = match record.state {
            TurnState::Running => record.into_interrupted(),
            _ => record,
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
        let done = Frame::Done(Box::new(record.done_frame(after_seq.saturating_add(2))));
        self.outgoing
            .send_encoded(vec![encode_frame(&snapshot), encode_frame(&done)])
            .await
    }
}

/// Waits for the next frames of the follower, or forever if there is none.
async fn next_frames(follower: &mut Option<Follower>) -> Option<Vec<ByteString>> {
    match follower {
        Some(follower) => follower.next().await,
        None => std::future::pending().await,
    }
}
