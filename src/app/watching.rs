//! Starts the parts that observe the service: answer statistics, alerts and drills.

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

pub struct Watching {
    pub answered: Answered,
    pub alerts: Alerts,
    pub drills: Arc<Drills>,
}

impl Watching {
    /// Starts the observers on the current thread. `opened_with` are the problems found when the
    /// store was opened.
    pub fn begin(
        lobby: &Lobby,
        reports: watch::Receiver<Arc<Report>>,
        opened_with: Vec<String>,
        fleet: Option<&Fleet>,
    ) -> Self {
        let desk = &lobby.desk;
        let clock = desk.clock;
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
        let scheduled_drills = Arc::clone(&drills);
        actix::spawn(async move {
            scheduled_drills.recall().await;
            drills::keep_schedule(scheduled_drills, move || clock.wall()).await;
        });
        Self {
            answered,
            alerts,
            drills,
        }
    }
}
