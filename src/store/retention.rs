//! What goes, and why: pure, from what is known of all entries.
//!
//! - What nobody names any longer goes at once, whatever the limits.
//! - What is pinned, or named by a client, never goes.
//! - What only has a name that a user of `cryo` gave it goes by the limits, and only if the
//!   node's owner asks for that (`expire-named`): the oldest first.
//!
//! `max-age`, `max-per-container` and `max-count` are about entries of that last kind alone:
//! those that never go can't push them out. `max-bytes` is about the whole store, since a disk
//! doesn't ask who needs what: entries go until it is kept. It is a quota as well: if that isn't
//! enough, no new checkpoint begins (see `draft`).

use std::collections::BTreeMap;
use std::time::Duration;

use super::Id;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of the whole store.
    pub max_bytes: Option<u64>,
    pub max_count: Option<usize>,
    pub max_per_container: Option<usize>,
    pub max_age: Option<Duration>,
    /// Whether entries go by these limits that have a name of their own.
    pub expire_named: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Pinned, named by a client, or nobody can tell.
    Kept,
    /// By a user of `cryo`, and by nobody else.
    Named,
    Unnamed,
}

#[derive(Clone, Debug)]
pub struct Summary {
    pub id: Id,
    /// Namespace and id.
    pub container: (String, String),
    /// Milliseconds since 1970.
    pub taken_at: u64,
    pub bytes: u64,
    pub standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    NobodyNamesIt,
    TooOld,
    TooManyOfItsContainer,
    TooMany,
    TooMuchData,
}

impl Why {
    pub fn words(self) -> &'static str {
        match self {
            Why::NobodyNamesIt => "nobody names it any longer",
            Why::TooOld => "older than max-age",
            Why::TooManyOfItsContainer => "more than max-per-container",
            Why::TooMany => "more than max-count",
            Why::TooMuchData => "more than max-bytes in the store",
        }
    }
}

/// Entries that go, those first that nobody names. `now` is in milliseconds since 1970, and
/// `shared` what the store holds beside its entries, in bytes.
pub fn decide(entries: &[Summary], shared: u64, limits: &Limits, now: u64) -> Vec<(Id, Why)> {
    let of = |standing| entries.iter().filter(move |entry| entry.standing == standing);
    let mut gone: Vec<_> =
        of(Standing::Unnamed).map(|entry| (entry.id.clone(), Why::NobodyNamesIt)).collect();
    if !limits.expire_named {
        return gone;
    }
    let mut named: Vec<_> = of(Standing::Named).collect();
    named.sort_by_key(|entry| std::cmp::Reverse((entry.taken_at, entry.id.clone())));
    let mut used = of(Standing::Kept)
        .chain(of(Standing::Named))
        .fold(shared, |sum, entry| sum.saturating_add(entry.bytes));
    let mut stay = Vec::new();
    let mut of_container: BTreeMap<_, usize> = BTreeMap::new();
    // From the newest to the oldest: one that goes makes room for none that is older.
    for entry in named {
        let siblings = of_container.entry(&entry.container).or_default();
        match excess(entry, *siblings, stay.len(), limits, now) {
            None => {
                *siblings += 1;
                stay.push(entry);
            }
            Some(why) => {
                used -= entry.bytes.min(used);
                gone.push((entry.id.clone(), why));
            }
        }
    }
    while limits.max_bytes.is_some_and(|most| used > most) {
        let Some(oldest) = stay.pop() else { break };
        used -= oldest.bytes.min(used);
        gone.push((oldest.id.clone(), Why::TooMuchData));
    }
    gone
}

fn excess(entry: &Summary, siblings: usize, all: usize, limits: &Limits, now: u64) -> Option<Why> {
    let age = Duration::from_millis(now.saturating_sub(entry.taken_at));
    if limits.max_age.is_some_and(|most| age > most) {
        Some(Why::TooOld)
    } else if limits.max_per_container.is_some_and(|most| siblings >= most) {
        Some(Why::TooManyOfItsContainer)
    } else if limits.max_count.is_some_and(|most| all >= most) {
        Some(Why::TooMany)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    /// Number `n` was taken `n` seconds ago and takes 100 bytes.
    fn entry(n: u64, container: &str, standing: Standing) -> Summary {
        Summary {
            id: Id::parse(&format!("{n:016}")).unwrap(),
            container: ("moby".into(), container.into()),
            taken_at: NOW - n * 1000,
            bytes: 100,
            standing,
        }
    }

    fn decided(entries: &[Summary], limits: Limits) -> Vec<(u64, Why)> {
        let gone = decide(entries, 0, &limits, NOW);
        gone.into_iter().map(|(id, why)| (id.as_str().parse().unwrap(), why)).collect()
    }

    fn named(limits: Limits) -> Limits {
        Limits { expire_named: true, ..limits }
    }

    fn all_zero() -> Limits {
        let zero = Some(0);
        Limits {
            max_bytes: zero.map(|n| n as u64),
            max_count: zero,
            max_per_container: zero,
            max_age: Some(Duration::ZERO),
            expire_named: false,
        }
    }

    #[test]
    fn what_nobody_names_goes_without_any_limit() {
        let entries =
            [entry(1, "a", Standing::Unnamed), entry(2, "a", Standing::Named), entry(3, "a", Standing::Kept)];
        assert_eq!(decided(&entries, Limits::default()), [(1, Why::NobodyNamesIt)]);
    }

    #[test]
    fn names_protect_unless_the_owner_says_otherwise() {
        let entries = [entry(1, "a", Standing::Named), entry(2, "a", Standing::Kept)];
        assert_eq!(decided(&entries, all_zero()), []);
        assert_eq!(decided(&entries, named(all_zero())), [(1, Why::TooOld)]);
    }

    #[test]
    fn what_clients_name_or_is_pinned_never_goes() {
        let entries: Vec<_> = (1..50).map(|n| entry(n, "a", Standing::Kept)).collect();
        assert_eq!(decided(&entries, named(all_zero())), []);
    }

    #[test]
    fn the_oldest_go_until_there_are_few_enough() {
        let entries = [4, 2, 3, 1].map(|n| entry(n, "a", Standing::Named));
        let limits = named(Limits { max_count: Some(2), ..Limits::default() });
        assert_eq!(decided(&entries, limits), [(3, Why::TooMany), (4, Why::TooMany)]);
    }

    #[test]
    fn each_container_keeps_its_own_newest() {
        let entries =
            [entry(1, "a", Standing::Named), entry(2, "a", Standing::Named), entry(9, "b", Standing::Named)];
        let limits = named(Limits { max_per_container: Some(1), ..Limits::default() });
        assert_eq!(decided(&entries, limits), [(2, Why::TooManyOfItsContainer)]);
    }

    #[test]
    fn what_never_goes_counts_for_bytes_and_not_for_numbers() {
        let entries =
            [entry(1, "a", Standing::Named), entry(2, "a", Standing::Named), entry(3, "a", Standing::Kept)];
        let limits = named(Limits { max_count: Some(2), ..Limits::default() });
        assert_eq!(decided(&entries, limits), []);
        let limits = named(Limits { max_bytes: Some(200), ..Limits::default() });
        assert_eq!(decided(&entries, limits), [(2, Why::TooMuchData)]);
    }

    #[test]
    fn a_clock_that_went_back_makes_nothing_old() {
        let mut future = entry(1, "a", Standing::Named);
        future.taken_at = NOW + 1_000_000;
        assert_eq!(
            decided(&[future], named(Limits { max_age: Some(Duration::from_secs(5)), ..Limits::default() })),
            []
        );
    }

    #[test]
    fn age_is_measured_to_the_limit() {
        let entries = [entry(5, "a", Standing::Named), entry(6, "a", Standing::Named)];
        let limits = named(Limits { max_age: Some(Duration::from_secs(5)), ..Limits::default() });
        assert_eq!(decided(&entries, limits), [(6, Why::TooOld)]);
    }

    /// Whatever the limits: nothing goes twice, nothing kept goes, and what stays keeps them.
    #[test]
    fn any_decision_keeps_the_rules() {
        let mut seed = 7_u64;
        let mut next = |most: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % most
        };
        for _ in 0..2000 {
            let standings = [Standing::Kept, Standing::Named, Standing::Unnamed];
            let entries: Vec<_> = (0..next(20))
                .map(|n| entry(n, ["a", "b"][next(2) as usize], standings[next(3) as usize]))
                .collect();
            let limits = Limits {
                max_bytes: Some(next(2000)),
                max_count: Some(next(8) as usize),
                max_per_container: Some(next(5) as usize),
                max_age: Some(Duration::from_secs(next(25))),
                expire_named: next(2) == 0,
            };
            let gone = decided(&entries, limits);
            let went = |n: u64| gone.iter().filter(|(id, _)| *id == n).count();
            let number = |entry: &Summary| entry.id.as_str().parse::<u64>().unwrap();
            for entry in &entries {
                let times = went(number(entry));
                match entry.standing {
                    Standing::Kept => assert_eq!(times, 0),
                    Standing::Named => assert!(times <= usize::from(limits.expire_named)),
                    Standing::Unnamed => assert_eq!(times, 1),
                }
            }
            let stay: Vec<_> = entries.iter().filter(|entry| went(number(entry)) == 0).collect();
            let named: Vec<_> = stay.iter().filter(|entry| entry.standing == Standing::Named).collect();
            if limits.expire_named {
                assert!(named.len() <= limits.max_count.unwrap());
                let used: u64 = stay.iter().map(|entry| entry.bytes).sum();
                assert!(named.is_empty() || used <= limits.max_bytes.unwrap());
            }
        }
    }
}
