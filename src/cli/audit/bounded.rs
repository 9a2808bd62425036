//! A table that never grows past its bounds: the oldest entry gives way.

use std::collections::BTreeMap;

/// Entries by name, in a number and a size that are bounded.
#[derive(Debug)]
pub(super) struct Bounded<V> {
    entries: BTreeMap<String, Entry<V>>,
    /// Names by age.
    order: BTreeMap<u64, String>,
    /// How many entries were ever put in.
    count: u64,
    bytes: usize,
    max: Bounds,
}

/// What a table may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Entries.
    pub entries: usize,
    /// Bytes, as they are told with each entry.
    pub bytes: usize,
}

#[derive(Debug)]
struct Entry<V> {
    age: u64,
    bytes: usize,
    value: V,
}

impl<V> Bounded<V> {
    pub(super) fn new(max: Bounds) -> Self {
        Self { entries: BTreeMap::new(), order: BTreeMap::new(), count: 0, bytes: 0, max }
    }

    pub(super) fn get(&self, name: &str) -> Option<&V> {
        self.entries.get(name).map(|entry| &entry.value)
    }

    /// An entry that is there already, to be changed.
    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut V> {
        self.entries.get_mut(name).map(|entry| &mut entry.value)
    }

    /// An entry takes so many bytes more: gives those that had to leave for it, the oldest first.
    pub(super) fn grow(&mut self, name: &str, bytes: usize) -> Vec<V> {
        let Some(entry) = self.entries.get_mut(name) else { return Vec::new() };
        entry.bytes = entry.bytes.saturating_add(bytes);
        self.bytes = self.bytes.saturating_add(bytes);
        self.make_room()
    }

    /// Puts in an entry, as the newest, and gives those that had to leave for it, the oldest first.
    pub(super) fn insert(&mut self, name: String, bytes: usize, value: V) -> Vec<V> {
        self.remove(&name);
        let age = self.count;
        self.count = self.count.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        self.order.insert(age, name.clone());
        self.entries.insert(name, Entry { age, bytes, value });
        self.make_room()
    }

    fn make_room(&mut self) -> Vec<V> {
        let mut left = Vec::new();
        while self.entries.len() > self.max.entries || self.bytes > self.max.bytes {
            let Some(oldest) = self.order.values().next().cloned() else { break };
            left.extend(self.remove(&oldest));
        }
        left
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<V> {
        let Entry { age, bytes, value } = self.entries.remove(name)?;
        self.order.remove(&age);
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(value)
    }

    /// Forgets every entry whose name starts so.
    pub(super) fn remove_all(&mut self, start: &str) {
        let own = self.entries.range(start.to_owned()..).take_while(|(name, _)| name.starts_with(start));
        let names: Vec<String> = own.map(|(name, _)| name.clone()).collect();
        for name in names {
            self.remove(&name);
        }
    }

    /// Takes everything out, the oldest first.
    pub(super) fn drain(&mut self) -> Vec<V> {
        let names = std::mem::take(&mut self.order);
        names.into_values().filter_map(|name| self.remove(&name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_way_by_number_and_by_size() {
        let mut table = Bounded::new(Bounds { entries: 2, bytes: 100 });
        assert!(table.insert("a.1".to_owned(), 10, 1).is_empty());
        assert!(table.insert("a.2".to_owned(), 10, 2).is_empty());
        assert_eq!(table.insert("b.1".to_owned(), 10, 3), [1]);
        assert_eq!(table.insert("b.2".to_owned(), 95, 4), [2, 3]);
        assert!(table.insert("b.2".to_owned(), 1, 5).is_empty(), "replaced, not added");
        assert_eq!((table.get("b.2"), table.get("a.1")), (Some(&5), None));
        table.insert("c.1".to_owned(), 1, 6);
        assert!(table.grow("c.1", 10).is_empty() && table.grow("gone", 1000).is_empty());
        table.insert("c.2".to_owned(), 1, 7);
        assert_eq!(table.grow("c.2", 90), [6], "the oldest leaves for what grows");
        table.remove("c.2");
        table.insert("c.1".to_owned(), 1, 6);
        table.remove_all("b.");
        assert_eq!((table.drain(), table.bytes), (vec![6], 0));
    }
}
