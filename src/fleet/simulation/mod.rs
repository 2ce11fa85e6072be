//! A thousand instances go through an outage and a recovery, in virtual time.
//!
//! The rules are the real ones: breaker, retry budget, plan, order, news and what is known of them. What is made up is the world: visitors
//! who come by chance, a provider that breaks and mends, a network that carries news in two milliseconds, a lease. Its figures stand in
//! `docs/scale.md`, and a test holds the two together.

mod figures;
mod instance;
mod world;

use std::time::Duration;

use crate::chat::Fault;

use self::figures::Figures;
use self::world::World;

/// What is played.
#[derive(Clone, Copy, Debug)]
struct Scene {
    /// How many instances.
    instances: usize,
    /// Whether they speak with each other.
    together: bool,
    /// How the preferred provider fails while it is down.
    fault: Fault,
    /// How long that takes.
    fails_after: Duration,
    /// When it goes down, when it is well again, when the curtain falls.
    down: Duration,
    well: Duration,
    end: Duration,
    /// The mean time between two visitors of one instance.
    between: Duration,
}

impl Scene {
    fn new(together: bool, fault: Fault, fails_after: Duration) -> Self {
        let s = Duration::from_secs;
        let (down, well, end) = (s(30), s(150), s(210));
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

/// The scenes of the document, as its table shows them.
fn table() -> Vec<String> {
    let ms = Duration::from_millis;
    let mut rows = Vec::new();
    for (what, fault, fails_after) in [
        ("answers 500", Fault::ServerError, ms(50)),
        ("refuses connections", Fault::Unreachable, ms(5)),
        ("is silent (5 s)", Fault::Timeout, ms(5_000)),
    ] {
        for (how, together) in [("alone", false), ("together", true)] {
            rows.push(
                Scene::new(together, fault, fails_after)
                    .play()
                    .row(what, how),
            );
        }
    }
    rows
}

#[test]
fn the_document_holds_what_a_thousand_instances_do() {
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
fn a_fleet_that_speaks_spares_the_provider_and_loses_no_answer() {
    let ms = Duration::from_millis;
    // One that is silent has been asked several times by each before anyone can know.
    for (fault, fails_after, (of, together_at_most)) in [
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
        let (alone, together) = (play(false), play(true));
        for figures in [&alone, &together] {
            assert_eq!(figures.lost, 0, "{fault:?}: every turn gets its answer");
            assert!(
                figures
                    .closed_last
                    .is_some_and(|last| last <= Duration::from_secs(30)),
                "{fault:?}"
            );
        }
        assert!(
            together.calls * of <= alone.calls * together_at_most,
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
fn one_instance_among_others_that_is_cut_off_disturbs_nobody_for_long() {
    let scene = Scene::new(true, Fault::Unreachable, Duration::from_millis(5));
    let mut world = World::new(Scene {
        instances: 50,
        ..scene
    });
    world.cut_off_only(0);
    let figures = world.play();
    // The others hear its warnings, and go on: only who fails after one minds it.
    assert_eq!((figures.lost, figures.opened), (0, 1));
}
