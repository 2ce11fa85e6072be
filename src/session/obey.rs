//! The commands of a client: one handler for each of its frames.

use super::ask::{self, Accepted};
use super::drive::{Gone, Visit};
use super::frames::{ClientFrame, ErrorCode, Refusal, ServerFrame, decode};
use super::lobby::STORE_LIMIT;
use crate::chat::{Amendment, Feedback, TurnId, TurnState};
use crate::turn::desk::CHAT_PATIENCE;
use crate::turn::log::Cancel;
use crate::turn::rooms::Question;

impl Visit {
    pub(super) async fn hear(&mut self, text: &str) -> Result<(), Gone> {
        let result = match decode(text) {
            Ok(frame) => self.obey(frame).await?,
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => Ok(()),
            Err(error) => self.refuse(&error).await,
        }
    }

    /// Handles one client frame. The inner error is sent to the client; the outer one ends the
    /// session.
    async fn obey(&mut self, frame: ClientFrame) -> Result<Result<(), Refusal>, Gone> {
        match frame {
            ClientFrame::Hello { .. } => Ok(Err(Refusal::new(
                ErrorCode::BadRequest,
                "hello is only allowed as the first frame of a session",
            ))),
            ClientFrame::Ping => self.say(&ServerFrame::Pong).await.map(Ok),
            ClientFrame::Stop { turn } => Ok(self.stop(turn).await),
            ClientFrame::Feedback { turn, value } => Ok(self.feedback(turn, value).await),
            ClientFrame::History { before } => {
                if let Err(error) = self.spare() {
                    return Ok(Err(error));
                }
                let turns = self.service.history(&self.conversation, Some(before)).await;
                self.say(&ServerFrame::History { turns: &turns })
                    .await
                    .map(Ok)
            }
            ClientFrame::Send {
                client_msg_id,
                text,
                options,
            } => {
                let options = match ask::wishes(&self.service, options, &client_msg_id) {
                    Ok(options) => options,
                    Err(error) => return Ok(Err(error)),
                };
                let message = Question {
                    client_msg_id,
                    text,
                    retry_of: None,
                };
                let accepted = ask::send(
                    &self.service,
                    &self.conversation,
                    &self.sender,
                    message,
                    options,
                )
                .await;
                self.accept(accepted).await
            }
            ClientFrame::Retry {
                turn,
                client_msg_id,
            } => {
                let accepted = ask::retry(
                    &self.service,
                    &self.conversation,
                    &self.sender,
                    turn,
                    client_msg_id,
                    CHAT_PATIENCE,
                )
                .await;
                self.accept(accepted).await
            }
        }
    }

    /// Acknowledges a message as soon as it is known whether it is on disk.
    async fn accept(
        &mut self,
        accepted: Result<Accepted, Refusal>,
    ) -> Result<Result<(), Refusal>, Gone> {
        let (log, duplicate) = match accepted {
            Ok(Accepted::Opened(log)) => (log, false),
            Ok(Accepted::Known(log)) => (log, true),
            Ok(Accepted::Stored(record)) => {
                let turn = record.turn;
                self.say(&ServerFrame::Accepted {
                    client_msg_id: &record.client_msg_id,
                    turn,
                    duplicate: true,
                    durable: self.service.desk.store.lasting(),
                })
                .await?;
                if !self.delivered.contains(&turn) {
                    self.replay(*record, 0).await?;
                }
                return Ok(Ok(()));
            }
            Err(error) => return Ok(Err(error)),
        };
        let turn = log.turn();
        let durable = log.durable().await;
        self.say(&ServerFrame::Accepted {
            client_msg_id: log.client_msg_id(),
            turn,
            duplicate,
            durable,
        })
        .await?;
        // A running turn is followed through its `NewTurn` event; a finished one has no such event.
        if duplicate && log.ended() && !self.knows(turn) {
            self.queued.push_back(log.resume(0));
        }
        Ok(Ok(()))
    }

    async fn stop(&self, turn: TurnId) -> Result<(), Refusal> {
        if self.conversation.log(turn).is_none() {
            self.service.desk.look(&self.conversation).await;
        }
        match self.conversation.log(turn) {
            Some(log) => log.cancel(Cancel::Stopped),
            // A turn without a log has ended already. Only report a turn that does not exist.
            None => drop(self.service.turn(&self.conversation, turn).await?),
        }
        Ok(())
    }

    /// Checks the rate limit of frames that use the store without starting a turn.
    fn spare(&self) -> Result<(), Refusal> {
        let id = self.conversation.id();
        self.service.rates.spare(id).map_err(|wait| {
            let message = "too many frames of this kind; wait a little";
            Refusal::new(ErrorCode::RateLimited, message).retry_after(ask::seconds(wait))
        })
    }

    async fn feedback(&self, turn: TurnId, value: Feedback) -> Result<(), Refusal> {
        self.spare()?;
        let record = self.service.turn(&self.conversation, turn).await?;
        if record.state == TurnState::Running && self.conversation.log(turn).is_some() {
            let message = "the answer is still being written";
            return Err(Refusal::new(ErrorCode::Busy, message).retry_after(1));
        }
        let turns = &self.service.desk;
        let id = self.conversation.id();
        if value == Feedback::Down {
            turns.shelf.evict(id, &record).await;
        }
        let update = Amendment::Feedback(value);
        // The live log serves the history for a few more seconds, so it has to change too.
        if let Some(log) = self.conversation.log(turn) {
            log.amend(update.clone());
        }
        let write = turns.store.amend(id, turn, update);
        match tokio::time::timeout(STORE_LIMIT, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                let message = "the feedback was not saved; try again";
                Err(Refusal::new(ErrorCode::Internal, message).retry_after(5))
            }
        }
    }
}
