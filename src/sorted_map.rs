//! A map in one piece of memory: a service's real servers.
//!
//! A large table has ten thousand services with a handful of real servers each, which come in ascending order, are
//! read in order and stay as many: a tree for each costs a takeover more allocations than all the rest. A key in
//! the middle is put in or taken out at the price of moving those behind it, which only `import` does.
//! Knows nothing of what it holds. Made by `desired` and `kernel`, read by everybody after them.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Keys in ascending order, each once, with their values. A clone shares the memory until one of the two is changed:
/// what is declared, wanted and planned are most often the same servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortedMap<K, V>(Arc<Vec<(K, V)>>);

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self(Arc::new(Vec::new()))
    }
}

impl<K: Ord, V> From<Vec<(K, V)>> for SortedMap<K, V> {
    /// Of equal keys the last one stays.
    fn from(mut list: Vec<(K, V)>) -> Self {
        if !list.is_sorted_by(|one, next| one.0 < next.0) {
            list.sort_by(|one, other| one.0.cmp(&other.0));
            list.dedup_by(|later, earlier| {
                let same = later.0 == earlier.0;
                if same {
                    std::mem::swap(later, earlier);
                }
                same
            });
        }
        Self(Arc::new(list))
    }
}

impl<'a, K, V> IntoIterator for &'a SortedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = std::iter::Map<std::slice::Iter<'a, (K, V)>, fn(&'a (K, V)) -> (&'a K, &'a V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for SortedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Vec::from_iter(entries).into()
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for SortedMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        Vec::from(entries).into()
    }
}

impl<K: Ord + Clone, V: Clone> SortedMap<K, V> {
    /// Number of entries
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// No entry at all
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a key
    pub fn get(&self, key: &K) -> Option<&V> {
        self.place(key).ok().and_then(|place| self.0.get(place)).map(|(_, value)| value)
    }

    /// The value of a key, to be changed
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let place = self.place(key).ok()?;
        Arc::make_mut(&mut self.0).get_mut(place).map(|(_, value)| value)
    }

    /// Puts in a value; gives the key's old one
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.place(&key) {
            Ok(place) => {
                Arc::make_mut(&mut self.0).get_mut(place).map(|(_, old)| std::mem::replace(old, value))
            }
            Err(place) => {
                Arc::make_mut(&mut self.0).insert(place, (key, value));
                None
            }
        }
    }

    /// Takes out a key with its value
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.place(key).ok().map(|place| Arc::make_mut(&mut self.0).remove(place).1)
    }

    /// Whether the key is there
    pub fn contains_key(&self, key: &K) -> bool {
        self.place(key).is_ok()
    }

    /// Entries, ascending by key
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + ExactSizeIterator {
        self.into_iter()
    }

    /// Entries, ascending by key, with values that can be changed
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        Arc::make_mut(&mut self.0).iter_mut().map(|(key, value)| (&*key, value))
    }

    /// Keys, ascending
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + ExactSizeIterator {
        self.0.iter().map(|(key, _)| key)
    }

    /// Values, ascending by key
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + ExactSizeIterator {
        self.0.iter().map(|(_, value)| value)
    }

    fn place(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(key))
    }
}

// JSON cannot have such keys as names: a list of pairs.
impl<K: Serialize, V: Serialize> Serialize for SortedMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Deserialize<'de> for SortedMap<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_standard_map(entries in proptest::collection::vec((0u8..20, any::<u8>()), 0..30), key in 0u8..20) {
            let mut expected: BTreeMap<u8, u8> = entries.iter().copied().collect();
            let mut map: SortedMap<u8, u8> = entries.into_iter().collect();
            prop_assert!(map.iter().eq(&expected));
            prop_assert_eq!(map.get_mut(&key), expected.get_mut(&key));
            prop_assert_eq!(map.remove(&key), expected.remove(&key));
            for key in [key, key, key / 2] {
                prop_assert_eq!(map.insert(key, 100), expected.insert(key, 100));
            }
            prop_assert!(map.iter().eq(&expected));
            prop_assert!(map.keys().eq(expected.keys()) && map.values().eq(expected.values()));
            prop_assert_eq!(map.get(&key), expected.get(&key));
            prop_assert_eq!(map.contains_key(&key), expected.contains_key(&key));
            prop_assert_eq!((map.len(), map.is_empty()), (expected.len(), expected.is_empty()));
        }
    }
}
