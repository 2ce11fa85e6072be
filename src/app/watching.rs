//! What looks at the running service from outside of its turns: what was answered, who is told of changes, drills.

use std::sync::Arc;

use tokio::sync::watch;

use super::chance;
use crate::fleet::Fleet;
use crate::ops::alerts::claims::Claims;
use crate::ops::alerts::watch::{Alerts, Means};
use crate::ops::drills::{self, Drills};
use crate::ops::report::Report;
use crate::ops::served::Answered;
use crate::session::lobby::Lobby;

/// All of it, under way.
pub struct Watching {
    /// What was answered lately.
    pub answered: Answered,
    /// Who is told of changes.
    pub alerts: Alerts,
    /// The outage drills.
    pub drills: Arc<Drills>,
}

impl Watching {
    /// Begins to look, on tasks of the calling thread. `opened_with`: what was wrong with the store when it was opened.
    pub fn begin(
        lobby: &Lobby,
        reports: watch::Receiver<Arc<Report>>,
        opened_with: Vec<String>,
        fleet: Option<&Fleet>,
    ) -> Self {
        let (desk, clock) = (&lobby.desk, lobby.desk.clock);
        let answered = Answered::start(Arc::clone(desk));
        let alerts = Alerts::start(Means {
            published: desk.published.clone(),
            status: lobby.status.clone(),
            reports,
            warnings: answered.warnings.clone(),
            store: Arc::clone(&desk.store),
            opened_with,
            claims: fleet.map(|fleet| Claims::new(fleet.link.clone(), Arc::clone(&fleet.instance))),
            clock,
            random: chance::random,
            chance: chance::fraction,
        });
        let drills = Drills::new(drills::Means {
            desk: Arc::clone(desk),
            status: lobby.status.clone(),
            runtime: tokio::runtime::Handle::current(),
        });
        let planned = Arc::clone(&drills);
        actix::spawn(async move {
            planned.recall().await;
            drills::keep_schedule(planned, move || clock.wall()).await;
        });
        Self {
            answered,
            alerts,
            drills,
        }
    }
}
