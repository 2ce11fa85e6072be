//! In which order providers are asked. Pure.

use std::sync::Arc;

use crate::chat::Load;

/// What the order depends on, one a provider, in order of preference.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name.
    pub name: Arc<str>,
    /// The room of its context in tokens; 0 where that is not known.
    pub context_tokens: u32,
}

/// What a turn asks of the order.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Ask this one first.
    pub first: Option<Arc<str>>,
    /// And nobody else.
    pub only_first: bool,
    /// Only who has more room than each of these, as far as theirs is known, or unknown room.
    pub more_room_than: Vec<Arc<str>>,
    /// Only who has room for this, or unknown room.
    pub load: Load,
}

/// The places, in `candidates`, of those to ask, best first: by priority, without those in `tried`.
pub fn order(candidates: &[Candidate], wish: &Wish, tried: &[Arc<str>]) -> Vec<usize> {
    let outgrown = candidates.iter().filter(|one| wish.more_room_than.contains(&one.name));
    let room = outgrown.map(|one| one.context_tokens).max().unwrap_or_default();
    let roomier = |one: &Candidate| one.context_tokens == 0 || one.context_tokens > room;
    let fits = |one: &Candidate| roomier(one) && wish.load.fits(one.context_tokens);
    let is_first = |one: &Candidate| wish.first.as_ref() == Some(&one.name);
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.retain(|place| {
        candidates
            .get(*place)
            .is_some_and(|one| fits(one) && !tried.contains(&one.name) && (!wish.only_first || is_first(one)))
    });
    order.sort_by_key(|place| !candidates.get(*place).is_some_and(is_first));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(wish: &Wish, tried: &[&str]) -> String {
        let sizes = [("a", 100), ("b", 0), ("c", 50), ("d", 200)];
        let candidates = sizes.map(|(name, context_tokens)| Candidate { name: name.into(), context_tokens });
        let tried: Vec<Arc<str>> = tried.iter().map(|name| (*name).into()).collect();
        order(&candidates, wish, &tried).iter().map(|place| &*candidates[*place].name).collect()
    }

    #[test]
    fn follows_preference_without_the_tried() {
        assert_eq!(ordered(&Wish::default(), &[]), "abcd");
        assert_eq!(ordered(&Wish::default(), &["a", "c"]), "bd");
    }

    #[test]
    fn a_wish_comes_first_or_alone() {
        let mut wish = Wish { first: Some("c".into()), ..Wish::default() };
        assert_eq!(ordered(&wish, &[]), "cabd");
        assert_eq!(ordered(&wish, &["c"]), "abd");
        wish.only_first = true;
        assert_eq!(ordered(&wish, &[]), "c");
        assert_eq!(ordered(&wish, &["c"]), "");
        wish.first = Some("unknown".into());
        assert_eq!(ordered(&wish, &[]), "");
    }

    #[test]
    fn who_has_too_little_room_is_passed_over() {
        let loaded = |prompt| Wish { load: Load { prompt, answer: 20 }, ..Wish::default() };
        for (prompt, order) in [(30, "abcd"), (31, "abd"), (80, "abd"), (81, "bd"), (180, "bd"), (181, "b")] {
            assert_eq!(ordered(&loaded(prompt), &[]), order, "{prompt}");
        }
        let wish = Wish { first: Some("c".into()), only_first: true, ..loaded(31) };
        assert_eq!(ordered(&wish, &[]), "");
    }

    #[test]
    fn who_needs_more_room_gets_more_or_unknown_room() {
        let outgrown = |names: &[&str]| Wish {
            more_room_than: names.iter().map(|name| (*name).into()).collect(),
            ..Wish::default()
        };
        assert_eq!(ordered(&outgrown(&["a"]), &["a"]), "bd");
        assert_eq!(ordered(&outgrown(&["b"]), &["b"]), "acd");
        assert_eq!(ordered(&outgrown(&["a", "b"]), &["a", "b"]), "d");
        assert_eq!(ordered(&outgrown(&["d", "c"]), &["d", "c"]), "b");
    }
}
