//! Outputs of psql compared: the same but for our tag, and for the padding of columns where a tag widened them.
//!
//! Where no tag stands, everything counts, spaces too.

/// The first differences between what psql printed directly and through a proxy that tags, as readable lines.
pub fn differences(direct: &[u8], tagged: &[u8], tag: &str) -> Vec<String> {
    // A byte a character: outputs are in many encodings.
    let text = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
    let (direct, tagged) = (text(direct), text(tagged));
    let (direct, tagged): (Vec<&str>, Vec<&str>) = (direct.split('\n').collect(), tagged.split('\n').collect());
    let padded = widened(&tagged, tag);
    let mut found = Vec::new();
    for (number, (left, right)) in direct.iter().zip(&tagged).enumerate() {
        let without = right.replace(tag, "");
        let same = *left == without || (padded.contains(&number) && squeezed(left) == squeezed(&without));
        if !same {
            found.push(format!("line {}:\n  direct:  {left}\n  through: {right}", number + 1));
        }
    }
    if direct.len() != tagged.len() {
        found.push(format!("{} lines directly, {} through", direct.len(), tagged.len()));
    }
    found
}

/// Lines of each table in which a tag stands: from its head to its `(N rows)`.
fn widened(lines: &[&str], tag: &str) -> Vec<usize> {
    let mut padded = Vec::new();
    for (number, _) in lines.iter().enumerate().filter(|(_, line)| line.contains(tag)) {
        let Some(rule) = (0..number).rev().take_while(|at| !is_footer(lines[*at])).find(|at| is_rule(lines[*at]))
        else {
            continue;
        };
        let Some(footer) = (number..lines.len()).find(|at| is_footer(lines[*at])) else { continue };
        padded.extend(rule.saturating_sub(1)..=footer);
    }
    padded
}

/// `-----+----`
fn is_rule(line: &str) -> bool {
    line.contains("--") && line.bytes().all(|byte| matches!(byte, b'-' | b'+'))
}

/// `(3 rows)`
fn is_footer(line: &str) -> bool {
    line.starts_with('(') && (line.ends_with(" rows)") || line == "(1 row)")
}

/// The line with each run of spaces, and each run of dashes, as one, and no space before the `+` that continues a cell.
fn squeezed(line: &str) -> String {
    let mut squeezed = String::with_capacity(line.len());
    let mut characters = line.trim().chars().peekable();
    while let Some(character) = characters.next() {
        let continues = character == '+' && matches!(characters.peek(), None | Some('|'));
        if continues && squeezed.ends_with(' ') {
            squeezed.pop();
        }
        if !(matches!(character, ' ' | '-') && squeezed.ends_with(character)) {
            squeezed.push(character);
        }
    }
    squeezed
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "/*caller='a'*/ ";

    fn found(direct: &str, tagged: &str) -> usize {
        differences(direct.as_bytes(), tagged.as_bytes(), TAG).len()
    }

    #[test]
    fn a_tag_and_the_width_that_it_gives_a_column_are_no_difference() {
        let direct = "before\n  query   | n \n----------+---\n select 1 | 1\n x        | 2\n(2 rows)\n";
        let tagged = format!(
            "before\n          query          | n \n-------------------------+---\n {TAG}select 1 | 1\n \
             x                       | 2\n(2 rows)\n"
        );
        assert_eq!(found(direct, &tagged), 0);
        let direct = " q  | n \n----+---\n b +| 1\n aa+| \n c  | \n(1 row)\n";
        let tagged = format!(
            "         q         | n \n-------------------+---\n {TAG}b +| 1\n aa               +| \n \
             c                 | \n(1 row)\n"
        );
        assert_eq!(found(direct, &tagged), 0, "a cell of several lines");
        assert_eq!(found("NOTICE:  select 1\n", &format!("NOTICE:  {TAG}select 1\n")), 0);
        assert_eq!(found(direct, &tagged.replace("| 1", "| 3")), 1, "a value in that table");
    }

    #[test]
    fn everything_else_is() {
        assert_eq!(found("LINE 1: selec\n        ^\n", "LINE 1: selec\n       ^\n"), 1, "a caret");
        assert_eq!(found(" a | b\n", " a  | b\n"), 1, "padding where no tag is");
        assert_eq!(found("a\nb\n", "a\n"), 2, "a line");
        assert_eq!(found("a\n", "/*caller='b'*/ a\n"), 1, "another tag");
        let table = |cell: &str| format!(" q \n---\n {cell}\n(1 row)\n a\n");
        assert_eq!(found(&table("1"), &table("1").replace(" a", "  a")), 1);
        let after = table(&format!("{TAG}1")).replace("\n a", "\n  a");
        assert_eq!(found(&table("1"), &after), 1, "padding after that table");
    }
}
