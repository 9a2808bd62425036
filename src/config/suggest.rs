//! "Did you mean": the nearest of the names that would have been right.

/// Names longer than this are not compared, in characters: the comparison takes their product in time.
const MAX_COMPARED: usize = 64;

/// The nearest candidate, when it is near enough to be a slip of the fingers: a third of its characters at most.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .filter_map(|candidate| Some((distance(name, candidate)?, candidate)))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

/// `; did you mean "…"?`, or nothing.
pub(super) fn hint<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates).map(|near| format!("; did you mean {near:?}?")).unwrap_or_default()
}

/// Levenshtein's distance: insertions, deletions and replacements; `None` for what is too long to be a slip.
fn distance(left: &str, right: &str) -> Option<usize> {
    if left.chars().count() > MAX_COMPARED || right.chars().count() > MAX_COMPARED {
        return None;
    }
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (line, l) in left.chars().enumerate() {
        let mut diagonal = line;
        let mut before = line + 1;
        for (above, r) in row.iter_mut().skip(1).zip(right.chars()) {
            let replaced = diagonal + usize::from(l != r);
            diagonal = *above;
            before = replaced.min(*above + 1).min(before + 1);
            *above = before;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshteins() {
        for (left, right, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("audit", "audit", 0),
            ("ab", "ba", 2),
        ] {
            assert_eq!(distance(left, right), Some(expected), "{left} {right}");
        }
        assert_eq!(distance(&"a".repeat(65), "a"), None);
    }

    #[test]
    fn slips_are_mended_and_strangers_left_alone() {
        let keys = ["certificate", "address", "key"];
        assert_eq!(nearest("certifcate", keys), Some("certificate"));
        assert_eq!(nearest("adress", keys), Some("address"));
        assert_eq!(nearest("kez", keys), Some("key"));
        assert_eq!(nearest("password", keys), None);
        assert_eq!(hint("adress", keys), "; did you mean \"address\"?");
        assert_eq!(hint("password", keys), "");
    }
}
