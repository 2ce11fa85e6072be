//! The commands of a client: one handler for each of its frames.

use super::messages::{self, AcceptedMessage};
use super::outgoing::{Disconnected, SessionError};
use super::protocol::{ClientError, ClientFrame, ErrorCode, ServerFrame, decode};
use super::run::Session;
use super::service::STORE_TIMEOUT;
use crate::domain::{Feedback, TurnId, TurnState, TurnUpdate};
use crate::turn::conversations::NewMessage;
use crate::turn::log::Cancel;
use crate::turn::service::CHAT_ORPHAN_GRACE;

impl Session {
    pub(super) async fn on_text(&mut self, text: &str) -> Result<(), Disconnected> {
        match self.handle(text).await {
            Ok(()) => Ok(()),
            Err(SessionError::Rejected(error)) => self.outgoing.send_error(&error).await,
            Err(SessionError::Disconnected) => Err(Disconnected),
        }
    }

    async fn handle(&mut self, text: &str) -> Result<(), SessionError> {
        match decode(text)? {
            ClientFrame::Hello { .. } => {
                let message = "hello is only allowed as the first frame of a session";
                return Err(ClientError::new(ErrorCode::BadRequest, message).into());
            }
            ClientFrame::Ping => self.outgoing.send(&ServerFrame::Pong).await?,
            ClientFrame::Stop { turn } => self.stop_turn(turn).await?,
            ClientFrame::Feedback { turn, value } => self.save_feedback(turn, value).await?,
            ClientFrame::History { before } => {
                self.check_secondary_rate()?;
                let turns = self.service.history(&self.conversation, Some(before)).await;
                let history = ServerFrame::History { turns: &turns };
                self.outgoing.send(&history).await?;
            }
            ClientFrame::Send {
                client_msg_id,
                text,
                options,
            } => {
                let options = messages::visitor_options(&self.service, options, &client_msg_id)?;
                let message = NewMessage {
                    client_msg_id,
                    text,
                    retry_of: None,
                };
                let accepted = messages::submit_message(
                    &self.service,
                    &self.conversation,
                    &self.sender,
                    message,
                    options,
                )
                .await?;
                self.acknowledge(accepted).await?;
            }
            ClientFrame::Retry {
                turn,
                client_msg_id,
            } => {
                let accepted = messages::retry_turn(
                    &self.service,
                    &self.conversation,
                    &self.sender,
                    turn,
                    client_msg_id,
                    CHAT_ORPHAN_GRACE,
                )
                .await?;
                self.acknowledge(accepted).await?;
            }
        }
        Ok(())
    }

    /// Acknowledges a message as soon as it is known whether it is on disk.
    async fn acknowledge(&mut self, accepted: AcceptedMessage) -> Result<(), Disconnected> {
        let (log, duplicate) = match accepted {
            AcceptedMessage::Started(log) => (log, false),
            AcceptedMessage::Duplicate(log) => (log, true),
            AcceptedMessage::AlreadyStored(record) => {
                let turn = record.turn;
                let frame = ServerFrame::Accepted {
                    client_msg_id: &record.client_msg_id,
                    turn,
                    duplicate: true,
                    durable: self.service.turns.store.is_durable(),
                };
                self.outgoing.send(&frame).await?;
                if !self.delivered.contains(&turn) {
                    self.replay_finished(*record, 0).await?;
                }
                return Ok(());
            }
        };
        let turn = log.turn();
        let frame = ServerFrame::Accepted {
            client_msg_id: log.client_msg_id(),
            turn,
            duplicate,
            durable: log.await_durability().await,
        };
        self.outgoing.send(&frame).await?;
        // A running turn is followed through its `NewTurn` event; a finished one has no such event.
        if duplicate && log.is_finished() && !self.delivers_turn(turn) {
            self.queued.push_back(log.resume(0));
        }
        Ok(())
    }

    async fn stop_turn(&self, turn: TurnId) -> Result<(), ClientError> {
        if self.conversation.log(turn).is_none() {
            let turns = &self.service.turns;
            turns.follow_remote_turn(&self.conversation).await;
        }
        match self.conversation.log(turn) {
            Some(log) => log.cancel(Cancel::Stopped),
            // A turn without a log has ended already. Only report a turn that does not exist.
            None => drop(self.service.find_turn(&self.conversation, turn).await?),
        }
        Ok(())
    }

    /// Checks the rate limit of frames that use the store without starting a turn.
    fn check_secondary_rate(&self) -> Result<(), ClientError> {
        let limiter = &self.service.rate_limiter;
        limiter
            .check_secondary(self.conversation.id())
            .map_err(|wait| {
                let message = "too many frames of this kind; wait a little";
                ClientError::new(ErrorCode::RateLimited, message)
                    .retry_after(messages::ceil_seconds(wait))
            })
    }

    async fn save_feedback(&self, turn: TurnId, value: Feedback) -> Result<(), ClientError> {
        self.check_secondary_rate()?;
        let record = self.service.find_turn(&self.conversation, turn).await?;
        if record.state == TurnState::Running && self.conversation.log(turn).is_some() {
            let message = "the answer is still being written";
            return Err(ClientError::new(ErrorCode::Busy, message).retry_after(1));
        }
        let turns = &self.service.turns;
        let id = self.conversation.id();
        if value == Feedback::Down {
            turns.answer_cache.remove(id, &record).await;
        }
        let update = TurnUpdate::Feedback(value);
        // The live log serves the history for a few more seconds, so it has to change too.
        if let Some(log) = self.conversation.log(turn) {
            log.apply_update(update.clone());
        }
        let write = turns.store.update_turn(id, turn, update);
        match tokio::time::timeout(STORE_TIMEOUT, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                let message = "the feedback was not saved; try again";
                Err(ClientError::new(ErrorCode::Internal, message).retry_after(5))
            }
        }
    }
}
