//! What a session does with each of its client's frames.

use super::ask::{self, Accepted};
use super::drive::{Gone, Out, Visit};
use super::frames::{ClientFrame, ErrorCode, Refusal, ServerFrame, decode};
use super::lobby::STORE_LIMIT;
use crate::chat::{Amendment, Feedback, TurnId, TurnState};
use crate::turn::desk::CHAT_PATIENCE;
use crate::turn::log::Cancel;
use crate::turn::rooms::Question;

impl Visit {
    pub(super) async fn refuse(&self, refusal: &Refusal) -> Result<(), Gone> {
        self.to
            .send(Out::Frames(vec![refusal.into()]))
            .await
            .map_err(|_| Gone)
    }

    pub(super) async fn hear(&mut self, text: &str) -> Result<(), Gone> {
        let heard = match decode(text) {
            Ok(frame) => self.obey(frame).await?,
            Err(refusal) => Err(refusal),
        };
        match heard {
            Ok(()) => Ok(()),
            Err(refusal) => self.refuse(&refusal).await,
        }
    }

    async fn obey(&mut self, frame: ClientFrame) -> Result<Result<(), Refusal>, Gone> {
        match frame {
            ClientFrame::Hello { .. } => Ok(Err(Refusal::new(
                ErrorCode::BadRequest,
                "a session says hello once, at its beginning",
            ))),
            ClientFrame::Ping => self.say(&ServerFrame::Pong).await.map(Ok),
            ClientFrame::Stop { turn } => Ok(self.stop(turn).await),
            ClientFrame::Feedback { turn, value } => Ok(self.feedback(turn, value).await),
            ClientFrame::History { before } => {
                if let Err(refusal) = self.spare() {
                    return Ok(Err(refusal));
                }
                let turns = self.lobby.history(&self.room, Some(before)).await;
                self.say(&ServerFrame::History { turns: &turns })
                    .await
                    .map(Ok)
            }
            ClientFrame::Send {
                client_msg_id,
                text,
                options,
            } => {
                let wishes = match ask::wishes(&self.lobby, options, &client_msg_id) {
                    Ok(wishes) => wishes,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                let question = Question {
                    client_msg_id,
                    text,
                    retry_of: None,
                };
                let accepted =
                    ask::send(&self.lobby, &self.room, &self.caller, question, wishes).await;
                self.accept(accepted).await
            }
            ClientFrame::Retry {
                turn,
                client_msg_id,
            } => {
                let accepted = ask::retry(
                    &self.lobby,
                    &self.room,
                    &self.caller,
                    turn,
                    client_msg_id,
                    CHAT_PATIENCE,
                )
                .await;
                self.accept(accepted).await
            }
        }
    }

    /// Tells of an accepted message, once it is known whether it is on disk.
    async fn accept(
        &mut self,
        accepted: Result<Accepted, Refusal>,
    ) -> Result<Result<(), Refusal>, Gone> {
        let (log, duplicate) = match accepted {
            Ok(Accepted::Opened(log)) => (log, false),
            Ok(Accepted::Known(log)) => (log, true),
            Ok(Accepted::Stored(record)) => {
                let (client_msg_id, turn) = (&record.client_msg_id, record.turn);
                let durable = self.lobby.desk.store.lasting();
                self.say(&ServerFrame::Accepted {
                    client_msg_id,
                    turn,
                    duplicate: true,
                    durable,
                })
                .await?;
                if !self.delivered.contains(&turn) {
                    self.replay(*record, 0).await?;
                }
                return Ok(Ok(()));
            }
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (client_msg_id, turn, durable) = (log.client_msg_id(), log.turn(), log.durable().await);
        self.say(&ServerFrame::Accepted {
            client_msg_id,
            turn,
            duplicate,
            durable,
        })
        .await?;
        if duplicate && log.ended() && !self.knows(turn) {
            self.queue.push_back(log.resume(0));
        }
        Ok(Ok(()))
    }

    async fn stop(&self, turn: TurnId) -> Result<(), Refusal> {
        if self.room.log(turn).is_none() {
            self.lobby.desk.look(&self.room).await;
        }
        match self.room.log(turn) {
            Some(log) => log.cancel(Cancel::Stopped),
            // One that ended is stopped already.
            None => drop(self.lobby.turn(&self.room, turn).await?),
        }
        Ok(())
    }

    /// What costs the store something has a rate of its own.
    fn spare(&self) -> Result<(), Refusal> {
        self.lobby.rates.spare(self.room.id()).map_err(|wait| {
            let message = "too many frames of this kind; wait a little";
            Refusal::new(ErrorCode::RateLimited, message).retry_after(ask::seconds(wait))
        })
    }

    async fn feedback(&self, turn: TurnId, value: Feedback) -> Result<(), Refusal> {
        self.spare()?;
        let record = self.lobby.turn(&self.room, turn).await?;
        if record.state == TurnState::Running && self.room.log(turn).is_some() {
            return Err(
                Refusal::new(ErrorCode::Busy, "the answer is still under way").retry_after(1),
            );
        }
        if value == Feedback::Down {
            self.lobby.desk.shelf.evict(self.room.id(), &record).await;
        }
        let change = Amendment::Feedback(value);
        if let Some(log) = self.room.log(turn) {
            log.amend(change.clone());
        }
        let write = self.lobby.desk.store.amend(self.room.id(), turn, change);
        match tokio::time::timeout(STORE_LIMIT, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Refusal::new(
                ErrorCode::Internal,
                "the feedback was not saved; try again",
            )
            .retry_after(5)),
        }
    }
}
