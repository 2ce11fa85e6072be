//! Simulates a thousand instances through an outage and a recovery, in virtual time.
//!
//! The rules are the real ones: breaker, retry budget, retry policy, ordering, events and peer
//! state. Simulated are the visitors, a provider that fails and recovers, a network with a delay of
//! two milliseconds, and the probe lease. The results are in `docs/scale.md`, and a test compares
//! the two.

mod figures;
mod instance;
mod world;

use std::time::Duration;

use crate::domain::FaultKind;

use self::figures::SimulationStats;
use self::world::Simulation;

#[derive(Clone, Copy, Debug)]
struct Scenario {
    instances: usize,
    is_clustered: bool,
    /// How the preferred provider fails during the outage.
    fault: FaultKind,
    failure_delay: Duration,
    /// Start and end of the outage, and end of the simulation.
    outage_start: Duration,
    outage_end: Duration,
    end: Duration,
    /// The mean time between two visitors of one instance.
    visitor_interval: Duration,
}

impl Scenario {
    fn new(together: bool, fault: FaultKind, fails_after: Duration) -> Self {
        let s = Duration::from_secs;
        let down = s(30);
        let well = s(150);
        let end = s(210);
        Self {
            instances: 1_000,
            is_clustered: together,
            fault,
            failure_delay: fails_after,
            outage_start: down,
            outage_end: well,
            end,
            visitor_interval: s(2),
        }
    }

    fn run(self) -> SimulationStats {
        Simulation::new(self).run()
    }
}

/// The rows of the document's table.
fn table() -> Vec<String> {
    let ms = Duration::from_millis;
    let mut rows = Vec::new();
    for (failure, fault, fails_after) in [
        ("answers 500", FaultKind::ServerError, ms(50)),
        ("refuses connections", FaultKind::Unreachable, ms(5)),
        ("is silent (5 s)", FaultKind::Timeout, ms(5_000)),
    ] {
        for (mode, together) in [("alone", false), ("together", true)] {
            rows.push(
                Scenario::new(together, fault, fails_after)
                    .run()
                    .table_row(failure, mode),
            );
        }
    }
    rows
}

#[test]
fn the_document_has_the_simulated_results() {
    let document = include_str!("../../../docs/scale.md");
    let rows = table();
    let missing: Vec<_> = rows
        .iter()
        .filter(|row| !document.contains(row.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/scale.md must have this table:\n{}",
        rows.join("\n")
    );
}

#[test]
fn a_cluster_spares_the_provider_and_answers_every_turn() {
    let ms = Duration::from_millis;
    // A provider that times out is called several times by each instance before any can know.
    for (fault, fails_after, (divisor, factor)) in [
        (FaultKind::ServerError, ms(50), (4, 1)),
        (FaultKind::Unreachable, ms(5), (3, 2)),
        (FaultKind::Timeout, ms(5_000), (4, 3)),
    ] {
        let play = |together| {
            let scene = Scenario {
                instances: 100,
                ..Scenario::new(together, fault, fails_after)
            };
            scene.run()
        };
        let alone = play(false);
        let together = play(true);
        for figures in [&alone, &together] {
            assert_eq!(figures.unanswered, 0, "{fault:?}: every turn is answered");
            assert!(
                figures
                    .closed_last
                    .is_some_and(|last| last <= Duration::from_secs(30)),
                "{fault:?}"
            );
        }
        assert!(
            together.calls * divisor <= alone.calls * factor,
            "{fault:?}: {} of {}",
            together.calls,
            alone.calls
        );
        assert!(
            together.probes * 5 <= alone.probes,
            "{fault:?}: {} of {}",
            together.probes,
            alone.probes
        );
        assert_eq!(together.max_concurrent_probes, 1);
    }
}

#[test]
fn one_disconnected_instance_disturbs_nobody_for_long() {
    let scene = Scenario::new(true, FaultKind::Unreachable, Duration::from_millis(5));
    let mut world = Simulation::new(Scenario {
        instances: 50,
        ..scene
    });
    world.cut_off_only(0);
    let figures = world.run();
    // The peers get its warnings and continue: a warning only matters together with a failure.
    assert_eq!((figures.unanswered, figures.opened), (0, 1));
}
