//! Operations: actor supervision, status, incidents, statistics, alerts and outage drills.
//!
//! This module may use the actors. Only `app` and `web` use this module.

pub mod alerts;
pub mod anomaly;
pub mod answer_stats;
pub mod audit;
pub mod drills;
pub mod hourly_history;
pub mod incidents;
pub mod mode;
pub mod reload;
pub mod status;
pub mod supervisor;
pub mod uptime;
