//! What watches over the rest: rebuilding of actors, the service's state and its history. It may see the actors; only the application and the
//! web see it.

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
