//! What this instance has claimed of the alerts, and what it leaves to others for as long as they live and it is so.
//!
//! Of a matter of its own (its store), and where it is the only instance, it tells all.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cause::{Cause, Finding, Level};
use super::claims::{Claims, Matter, Verdict};
use super::rules::{News, Told};

/// How often what is claimed is renewed, and what was left to others looked at again.
const AGAIN: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5000 });

/// So many times in a row Redis may not say who tells what was left to another; then it is told here too.
const UNHEARD: u32 = 3;

/// The most that is left to others at once: a look more for each. What is beyond that is told.
const MOST: usize = 64;

/// Claims of this instance, and `H`, what it held to be told when it left that to another.
pub struct Together<H> {
    claims: Option<Claims>,
    /// Each with whether a sink has it.
    mine: BTreeMap<Matter, bool>,
    left: Vec<Left<H>>,
    looked: Duration,
}

/// Something that another tells.
struct Left<H> {
    matter: Matter,
    held: H,
    /// How many times in a row Redis did not say whether that one lives.
    unheard: u32,
}

impl<H> Together<H> {
    /// Among those that make these claims; none: alone.
    pub fn new(claims: Option<Claims>) -> Self {
        Self {
            claims,
            mine: BTreeMap::new(),
            left: Vec::new(),
            looked: Duration::ZERO,
        }
    }

    /// Who tells this to the sinks of this name. `interval`: a sum is told once within it.
    pub async fn verdict(&mut self, sinks: &str, told: &Told, interval: Duration) -> Verdict {
        let of = |level| matter(told, level);
        let Some(claims) = self
            .claims
            .as_ref()
            .filter(|_| told.found.cause != Cause::Store)
        else {
            return Verdict::Tell;
        };
        match told.news() {
            News::Worse => {
                let verdict = claims
                    .alert(sinks, &of(told.found.level))
                    .await
                    .unwrap_or(Verdict::Tell);
                self.holds(of(told.found.level), verdict);
                verdict
            }
            News::Flapped => claims.sum(sinks, &of(told.found.level), interval).await,
            News::Better => {
                let (worst, now) = (told.before, told.found.level);
                let milder: Vec<_> = (now + 1..worst).map(of).collect();
                let over = |matter: &Matter| matter.cause == told.found.cause && matter.level > now;
                self.mine.retain(|matter, _| !over(matter));
                self.left.retain(|left| !over(&left.matter));
                claims.end(sinks, &of(worst), &milder).await
            }
        }
    }

    /// An earlier process of this instance told this, and it was not over.
    pub fn recall(&mut self, cause: Cause, level: Level, staged: bool) {
        self.mine.insert(
            Matter {
                cause,
                level,
                staged,
            },
            true,
        );
    }

    /// Notes what came of asking for this.
    fn holds(&mut self, matter: Matter, verdict: Verdict) {
        match verdict {
            Verdict::Leave => drop(self.mine.remove(&matter)),
            Verdict::Tell => drop(self.mine.insert(matter, false)),
            Verdict::TakeOver => drop(self.mine.insert(matter, true)),
        }
    }

    /// Keeps what is left to another, to be looked at again. Gives it back where too much is left.
    pub fn leave(&mut self, told: &Told, held: H) -> Option<H> {
        let matter = matter(told, told.found.level);
        self.left.retain(|left| left.matter != matter);
        if self.left.len() >= MOST {
            return Some(held);
        }
        self.left.push(Left {
            matter,
            held,
            unheard: 0,
        });
        None
    }

    /// Renews what is claimed, `has` saying what a sink has, and looks again at what was left to others and is still so. Gives what it has to tell,
    /// or to take over, of that.
    pub async fn again(
        &mut self,
        sinks: &str,
        found: &[Finding],
        now: Duration,
        has: impl Fn(&Matter) -> bool,
    ) -> Vec<(Verdict, H)> {
        let Some(claims) = self
            .claims
            .as_ref()
            .filter(|_| now.saturating_sub(self.looked) >= AGAIN)
        else {
            return Vec::new();
        };
        self.looked = now;
        // One of a provider that went is let lapse.
        let known = |matter: &Matter| found.iter().find(|one| one.cause == matter.cause);
        let stands = |matter: &Matter| match known(matter) {
            Some(one) => one.level >= matter.level,
            // A provider that is being tried is neither down nor back: of its budget there is something to be found all the same.
            None => matter
                .cause
                .provider()
                .is_some_and(|name| found.iter().any(|one| one.cause.provider() == Some(name))),
        };
        self.mine
            .retain(|matter, _| known(matter).is_some() || stands(matter));
        self.mine
            .iter_mut()
            .for_each(|(matter, told)| *told |= has(matter));
        if !self.mine.is_empty() {
            claims.renew(sinks, &self.mine).await;
        }
        let mut due = Vec::new();
        let mut left = Vec::new();
        for Left {
            matter,
            held,
            unheard,
        } in std::mem::take(&mut self.left)
        {
            if !stands(&matter) {
                continue;
            }
            match claims.alert(sinks, &matter).await {
                Some(Verdict::Leave) => left.push(Left {
                    matter,
                    held,
                    unheard: 0,
                }),
                None if unheard + 1 < UNHEARD => left.push(Left {
                    matter,
                    held,
                    unheard: unheard + 1,
                }),
                verdict => due.push((matter, verdict.unwrap_or(Verdict::Tell), held)),
            }
        }
        self.left = left;
        due.into_iter()
            .map(|(matter, verdict, held)| {
                self.holds(matter, verdict);
                (verdict, held)
            })
            .collect()
    }
}

/// What is told of, at this level of it.
fn matter(told: &Told, level: Level) -> Matter {
    Matter {
        cause: told.found.cause.clone(),
        level,
        staged: told.staged,
    }
}
