//! A map from a name, of a member or a service, to a shared value that is created on first use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Above this number of names, unused values are removed. A cluster has a few members and services, but
/// some orchestrators give each new member a new name.
const NAMES_MAX: usize = 256;

/// One shared `T` for each name.
#[derive(Debug)]
pub struct ByName<N, T>(Mutex<BTreeMap<N, Arc<T>>>);

impl<N, T> Default for ByName<N, T> {
    fn default() -> ByName<N, T> {
        ByName(Mutex::default())
    }
}

impl<N: Ord + Clone, T: Default> ByName<N, T> {
    /// All values.
    pub fn all(&self) -> Vec<Arc<T>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().map(Arc::clone).collect()
    }

    /// The value of `name`.
    pub fn of(&self, name: &N) -> Arc<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = all.get(name) {
            return Arc::clone(value);
        }
        if all.len() >= NAMES_MAX {
            all.retain(|_, value| Arc::strong_count(value) > 1);
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
    fn a_name_has_one_value_and_unused_values_are_removed_above_the_limit() {
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
