//! Starts the parts that observe the service: answer statistics, alerts and drills.

use std::sync::Arc;

use tokio::sync::watch;

use super::random;
use crate::cluster::Cluster;
use crate::ops::alerts::claims::AlertClaims;
use crate::ops::alerts::watcher::{AlertDeps, Alerts};
use crate::ops::answer_stats::AnswerStats;
use crate::ops::drills::{self, DrillService};
use crate::ops::status::StatusHistory;
use crate::session::service::ChatService;

pub struct Observers {
    pub stats_collector: AnswerStats,
    pub alerts: Alerts,
    pub drills: Arc<DrillService>,
}

impl Observers {
    /// Starts the observers on the current thread. `opened_with` are the problems found when the
    /// store was opened.
    pub fn start(
        lobby: &ChatService,
        reports: watch::Receiver<Arc<StatusHistory>>,
        opened_with: Vec<String>,
        fleet: Option<&Cluster>,
    ) -> Self {
        let desk = &lobby.turns;
        let clock = desk.clock;
        let answered = AnswerStats::start(Arc::clone(desk));
        let alerts = Alerts::start(AlertDeps {
            config: desk.config_watch.clone(),
            status: lobby.status.clone(),
            history: reports,
            warnings: answered.warnings.clone(),
            store: Arc::clone(&desk.store),
            startup_problems: opened_with,
            claims: fleet
                .map(|fleet| AlertClaims::new(fleet.redis.clone(), Arc::clone(&fleet.instance_id))),
            clock,
            random_u64: random::random_u64,
            random_unit: random::random_unit,
        });
        let drills = DrillService::new(drills::DrillDeps {
            service: Arc::clone(desk),
            status: lobby.status.clone(),
            runtime: tokio::runtime::Handle::current(),
        });
        let scheduled_drills = Arc::clone(&drills);
        actix::spawn(async move {
            scheduled_drills.load().await;
            drills::run_schedule(scheduled_drills, move || clock.wall()).await;
        });
        Self {
            stats_collector: answered,
            alerts,
            drills,
        }
    }
}
