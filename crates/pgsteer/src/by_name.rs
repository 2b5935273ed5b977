//! Things that there are one of for each name, of a member or a service, made when first asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Beyond so many, those go that nobody holds. A cluster has a few members and services; in a long
/// life under an operator that gives each new member a new name there are many that were.
const NAMES_MAX: usize = 256;

/// One `T` for each name.
#[derive(Debug)]
pub struct ByName<N, T>(Mutex<BTreeMap<N, Arc<T>>>);

impl<N, T> Default for ByName<N, T> {
    fn default() -> ByName<N, T> {
        ByName(Mutex::default())
    }
}

impl<N: Ord + Clone, T: Default> ByName<N, T> {
    /// That of one name.
    pub fn of(&self, name: &N) -> Arc<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(its) = all.get(name) {
            return Arc::clone(its);
        }
        if all.len() >= NAMES_MAX {
            all.retain(|_, its| Arc::strong_count(its) > 1);
        }
        Arc::clone(all.entry(name.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use pgsteer_core::names::MemberName;

    use super::*;

    fn member(number: usize) -> MemberName {
        MemberName::new(&format!("n{number}")).unwrap()
    }

    #[test]
    fn everybody_gets_the_same_and_whom_nobody_holds_is_forgotten_in_the_end() {
        let all = ByName::<_, Mutex<u32>>::default();
        let held = all.of(&member(0));
        *held.lock().unwrap() = 7;
        *all.of(&member(1)).lock().unwrap() = 8;
        assert_eq!(*all.of(&member(1)).lock().unwrap(), 8);
        for number in 2..=2 * NAMES_MAX {
            all.of(&member(number));
        }
        assert!(all.0.lock().unwrap().len() <= NAMES_MAX);
        assert_eq!(*all.of(&member(0)).lock().unwrap(), 7);
        assert_eq!(*all.of(&member(1)).lock().unwrap(), 0);
    }
}
