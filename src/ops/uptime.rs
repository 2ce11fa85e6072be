//! Timelines for the status page: one bar per period, built from the incidents in it. Pure.

use std::time::Duration;

use crate::domain::{Incident, ServiceLifetime, ServiceMode, Timestamp};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UptimeBar {
    pub from: Timestamp,
    pub to: Timestamp,
    /// The worst mode in the period. `None` if it lies before the first start.
    pub mode: Option<ServiceMode>,
    pub outage: Duration,
    pub degraded: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// Oldest first; the last one contains the current moment.
    pub bars: Vec<UptimeBar>,
    /// The ratio of the known time without an outage, 0 to 1. `None` if no time is known.
    pub uptime: Option<f64>,
}

/// Builds the last `count` bars of length `each`, aligned to whole multiples of it since 1970.
///
/// Nothing is known before `life.first`. An incident counts with its worst mode for all of its
/// duration.
pub fn timeline<'a>(
    incidents: impl Iterator<Item = &'a Incident> + Clone,
    life: ServiceLifetime,
    now: Timestamp,
    each: Duration,
    count: u64,
) -> Timeline {
    let each = u64::try_from(each.as_millis()).unwrap_or(u64::MAX).max(1);
    let last = now.0 / each;
    let bars: Vec<UptimeBar> = (last.saturating_sub(count.saturating_sub(1))..=last)
        .map(|index| {
            build_bar(
                incidents.clone(),
                life,
                now,
                Timestamp(index * each),
                Timestamp(index.saturating_add(1).saturating_mul(each)),
            )
        })
        .collect();
    let known: Duration = bars
        .iter()
        .map(|bar| bar.to.min(now).since(bar.from.max(life.first_start)))
        .sum();
    let outage: Duration = bars.iter().map(|bar| bar.outage).sum();
    let uptime = ratio_without(outage, known);
    Timeline { bars, uptime }
}

/// The ratio of the last `hours` hours without an outage, 0 to 1, as far as they are known. `None`
/// if none of that time is known.
pub fn uptime_ratio<'a>(
    incidents: impl Iterator<Item = &'a Incident> + Clone,
    life: ServiceLifetime,
    now: Timestamp,
    hours: u64,
) -> Option<f64> {
    let from = Timestamp(now.0.saturating_sub(hours.saturating_mul(60 * 60 * 1_000)));
    let period = build_bar(incidents, life, now, from, now);
    let known = now.since(from.max(life.first_start));
    ratio_without(period.outage, known)
}

fn ratio_without(outage: Duration, known: Duration) -> Option<f64> {
    (!known.is_zero()).then(|| 1.0 - (outage.as_secs_f64() / known.as_secs_f64()).min(1.0))
}

fn build_bar<'a>(
    incidents: impl Iterator<Item = &'a Incident>,
    life: ServiceLifetime,
    now: Timestamp,
    from: Timestamp,
    to: Timestamp,
) -> UptimeBar {
    let known = life.first_start < to;
    let mut bar = UptimeBar {
        from,
        to,
        mode: known.then_some(ServiceMode::Normal),
        outage: Duration::ZERO,
        degraded: Duration::ZERO,
    };
    for incident in incidents {
        let ended = incident.ended.unwrap_or(now).min(to).min(now);
        let overlap = ended.since(incident.started.max(from));
        if overlap.is_zero() {
            continue;
        }
        bar.mode = bar.mode.max(Some(incident.mode));
        match incident.mode {
            ServiceMode::Outage => bar.outage += overlap,
            ServiceMode::Degraded => bar.degraded += overlap,
            ServiceMode::Normal => {}
        }
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn incident(mode: ServiceMode, started: u64, ended: Option<u64>) -> Incident {
        let ended = ended.map(Timestamp);
        Incident {
            id: "inc".into(),
            mode,
            started: Timestamp(started),
            ended,
            cause: String::new(),
        }
    }

    fn hourly(incidents: &[Incident], first: u64, now: u64, count: u64) -> Timeline {
        let life = ServiceLifetime {
            first_start: Timestamp(first),
            last_seen: Timestamp(now),
        };
        timeline(
            incidents.iter(),
            life,
            Timestamp(now),
            Duration::from_secs(3_600),
            count,
        )
    }

    #[test]
    fn bars_are_aligned_and_the_last_contains_the_present() {
        let line = hourly(&[], 0, 10 * HOUR + 5, 3);
        let ends: Vec<_> = line
            .bars
            .iter()
            .map(|bar| (bar.from.0 / HOUR, bar.to.0 / HOUR))
            .collect();
        assert_eq!(ends, [(8, 9), (9, 10), (10, 11)]);
        assert_eq!(line.uptime, Some(1.0));
    }

    #[test]
    fn incidents_count_in_every_bar_they_overlap() {
        let half = HOUR / 2;
        let bad = [
            incident(
                ServiceMode::Degraded,
                7 * HOUR + half,
                Some(8 * HOUR + half),
            ),
            incident(
                ServiceMode::Outage,
                8 * HOUR + half,
                Some(8 * HOUR + half + HOUR / 4),
            ),
            incident(ServiceMode::Outage, 10 * HOUR + half, None),
        ];
        let line = hourly(&bad, 0, 11 * HOUR - HOUR / 4, 4);
        let modes: Vec<_> = line.bars.iter().map(|bar| bar.mode.unwrap()).collect();
        assert_eq!(
            modes,
            [
                ServiceMode::Degraded,
                ServiceMode::Outage,
                ServiceMode::Normal,
                ServiceMode::Outage
            ]
        );
        let quarter = Duration::from_millis(HOUR / 4);
        assert_eq!(
            (line.bars[1].outage, line.bars[1].degraded),
            (quarter, quarter * 2)
        );
        assert_eq!(line.bars[3].outage, quarter, "up to the present");
        // Half an hour of three and three quarters.
        assert!(
            (line.uptime.unwrap() - (1.0 - 0.5 / 3.75)).abs() < 1e-9,
            "{:?}",
            line.uptime
        );
    }

    #[test]
    fn the_uptime_ratio_covers_the_known_time_only() {
        let life = ServiceLifetime {
            first_start: Timestamp(0),
            last_seen: Timestamp(0),
        };
        let bad = [
            incident(ServiceMode::Outage, 47 * HOUR, Some(48 * HOUR)),
            incident(ServiceMode::Outage, 0, Some(HOUR)),
        ];
        let ratio = |first, hours| {
            uptime_ratio(
                bad.iter(),
                ServiceLifetime {
                    first_start: Timestamp(first),
                    ..life
                },
                Timestamp(49 * HOUR),
                hours,
            )
        };
        assert!((ratio(0, 24).unwrap() - 23.0 / 24.0).abs() < 1e-9);
        assert!((ratio(0, 720).unwrap() - 47.0 / 49.0).abs() < 1e-9);
        assert!((ratio(47 * HOUR, 24).unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(ratio(49 * HOUR, 24), None);
    }

    #[test]
    fn time_before_the_first_start_is_unknown() {
        let line = hourly(&[], 9 * HOUR + 1, 10 * HOUR, 3);
        assert_eq!(
            line.bars.iter().map(|bar| bar.mode).collect::<Vec<_>>(),
            [None, Some(ServiceMode::Normal), Some(ServiceMode::Normal)]
        );
        assert_eq!(hourly(&[], 10 * HOUR, 10 * HOUR, 3).uptime, None);
    }

    #[test]
    fn implausible_times_do_not_panic() {
        let odd = [
            incident(ServiceMode::Outage, 20 * HOUR, Some(HOUR)),
            incident(ServiceMode::Outage, 20 * HOUR, None),
        ];
        assert_eq!(hourly(&odd, 0, 10 * HOUR, 2).uptime, Some(1.0));
        let line = timeline(
            odd.iter(),
            ServiceLifetime {
                first_start: Timestamp(0),
                last_seen: Timestamp(0),
            },
            Timestamp(u64::MAX),
            Duration::ZERO,
            2,
        );
        assert_eq!(line.bars.len(), 2);
    }
}
