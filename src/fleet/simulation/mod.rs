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

use crate::chat::Fault;

use self::figures::Figures;
use self::world::World;

#[derive(Clone, Copy, Debug)]
struct Scene {
    instances: usize,
    together: bool,
    /// How the preferred provider fails during the outage.
    fault: Fault,
    fails_after: Duration,
    /// Start and end of the outage, and end of the simulation.
    down: Duration,
    well: Duration,
    end: Duration,
    /// The mean time between two visitors of one instance.
    between: Duration,
}

impl Scene {
    fn new(together: bool, fault: Fault, fails_after: Duration) -> Self {
        let s = Duration::from_secs;
        let down = s(30);
        let well = s(150);
        let end = s(210);
        Self {
            instances: 1_000,
            together,
            fault,
            fails_after,
            down,
            well,
            end,
            between: s(2),
        }
    }

    fn play(self) -> Figures {
        World::new(self).play()
    }
}

/// The rows of the document's table.
fn table() -> Vec<String> {
    let ms = Duration::from_millis;
    let mut rows = Vec::new();
    for (failure, fault, fails_after) in [
        ("answers 500", Fault::ServerError, ms(50)),
        ("refuses connections", Fault::Unreachable, ms(5)),
        ("is silent (5 s)", Fault::Timeout, ms(5_000)),
    ] {
        for (mode, together) in [("alone", false), ("together", true)] {
            rows.push(
                Scene::new(together, fault, fails_after)
                    .play()
                    .row(failure, mode),
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
        (Fault::ServerError, ms(50), (4, 1)),
        (Fault::Unreachable, ms(5), (3, 2)),
        (Fault::Timeout, ms(5_000), (4, 3)),
    ] {
        let play = |together| {
            let scene = Scene {
                instances: 100,
                ..Scene::new(together, fault, fails_after)
            };
            scene.play()
        };
        let alone = play(false);
        let together = play(true);
        for figures in [&alone, &together] {
            assert_eq!(figures.lost, 0, "{fault:?}: every turn is answered");
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
        assert_eq!(together.most_probes_at_once, 1);
    }
}

#[test]
fn one_disconnected_instance_disturbs_nobody_for_long() {
    let scene = Scene::new(true, Fault::Unreachable, Duration::from_millis(5));
    let mut world = World::new(Scene {
        instances: 50,
        ..scene
    });
    world.cut_off_only(0);
    let figures = world.play();
    // The peers get its warnings and continue: a warning only matters together with a failure.
    assert_eq!((figures.lost, figures.opened), (0, 1));
}
