//! Panics of the supervised actors on command, for tests.

#![allow(clippy::panic, reason = "the purpose of the message")]

use actix::Handler;

use crate::actor_exit::CrashForTest;
use crate::degradation::DegradationActor;
use crate::provider::actor::ProviderActor;
use crate::router::actor::RouterActor;

impl Handler<CrashForTest> for ProviderActor {
    type Result = ();

    fn handle(&mut self, _: CrashForTest, _: &mut Self::Context) {
        panic!("crashed on command");
    }
}

impl Handler<CrashForTest> for RouterActor {
    type Result = ();

    fn handle(&mut self, _: CrashForTest, _: &mut Self::Context) {
        panic!("crashed on command");
    }
}

impl Handler<CrashForTest> for DegradationActor {
    type Result = ();

    fn handle(&mut self, _: CrashForTest, _: &mut Self::Context) {
        panic!("crashed on command");
    }
}
