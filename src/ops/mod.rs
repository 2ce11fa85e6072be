//! Operations: actor supervision, status, incidents, statistics, alerts and outage drills.
//!
//! This module may use the actors. Only `app` and `web` use this module.

pub mod alerts;
pub mod audit;
pub mod drills;
pub mod early;
pub mod history;
pub mod incidents;
pub mod mode;
pub mod reload;
pub mod report;
pub mod served;
pub mod status;
pub mod supervisor;
pub mod uptime;
