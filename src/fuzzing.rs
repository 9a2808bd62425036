//! What the fuzz targets share. A target is a function over bytes that stands beside the parser it tries
//! (`wire::fuzzing`, `frontend::fuzzing`, `relay::fuzzing`…), asserts a property and panics where it does not hold.
//!
//! libFuzzer runs the targets (`make fuzz`); every `make test` replays the corpus in `proto-tests/fuzz/corpus`, each
//! input as it is and changed in [`MUTANTS`] ways that are the same in every run. Only built with `--cfg fuzzing`
//! or for tests: no ordinary build has it.

/// The front of an input decides how the rest of it is used.
#[derive(Debug, Clone, Copy)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Choices from the start of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// The next byte; 0 past the end.
    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().map_or((0, self.0), |(first, rest)| (*first, rest));
        self.0 = rest;
        first
    }

    /// The next `count` bytes, or what is left of them.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at_checked(count).unwrap_or((self.0, &[]));
        self.0 = rest;
        head
    }

    /// Bytes behind a length byte.
    pub fn short(&mut self) -> &'a [u8] {
        let count = self.byte().into();
        self.bytes(count)
    }

    /// Everything that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Whether nothing is left.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

/// `stream` cut into pieces whose sizes come from `pattern`, again and again: byte 0 is one byte, 255 is 64 KiB.
pub fn pieces<'a>(stream: &'a [u8], pattern: &[u8]) -> Vec<&'a [u8]> {
    let mut sizes = pattern.iter().map(|size| if *size == u8::MAX { 65_536 } else { usize::from(*size) + 1 }).cycle();
    let (mut pieces, mut rest) = (Vec::new(), stream);
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(1);
        let (piece, after) = rest.split_at_checked(size).unwrap_or((rest, &[]));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

#[cfg(test)]
pub mod corpus {
    //! Replays a target's corpus.

    #![allow(clippy::missing_panics_doc, reason = "a panic is a failed test")]

    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    /// Changed copies of each input that are tried.
    pub const MUTANTS: usize = 48;
    /// The fewest inputs a corpus has: fewer would be one that went missing.
    const LEAST_INPUTS: usize = 5;
    /// The largest input, in bytes, and the largest corpus of all targets.
    const MAX_INPUT_BYTES: u64 = 80_000;
    const MAX_CORPUS_BYTES: u64 = 1_000_000;

    /// Runs `target` over every input of its corpus and over mutants of each.
    pub fn replay(name: &str, target: fn(&[u8])) {
        let inputs = inputs(name);
        assert!(inputs.len() >= LEAST_INPUTS, "the corpus of {name} has {} inputs", inputs.len());
        for (path, bytes) in &inputs {
            run(target, path, bytes);
        }
        for (at, (path, bytes)) in inputs.iter().enumerate() {
            let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (at as u64 + 1));
            for _ in 0..MUTANTS {
                let (_, other) = &inputs[random.below(inputs.len())];
                run(target, path, &mutant(bytes, other, &mut random));
            }
        }
    }

    /// A panic shows the input that caused it.
    fn run(target: fn(&[u8]), path: &Path, bytes: &[u8]) {
        struct Shown<'a>(&'a Path, &'a [u8]);
        impl Drop for Shown<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    eprintln!("input {}, perhaps changed: {}", self.0.display(), self.1.escape_ascii());
                }
            }
        }
        let _shown = Shown(path, bytes);
        target(bytes);
    }

    fn mutant(bytes: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(out.len() + 1);
            let to = (at + 1 + random.below(8)).min(out.len());
            match random.below(7) {
                0 if at < out.len() => out[at] ^= 1 << random.below(8),
                1 if at < out.len() => out[at] = random.byte(),
                2 => out.insert(at, random.byte()),
                3 => drop(out.drain(at..to)),
                4 => drop(out.splice(to..to, out[at..to].to_vec())),
                5 => {
                    // Lengths around the limits of the protocol, where four bytes may be one.
                    let lengths = [0_u32, 3, 4, 5, 8, 10_000, 10_001, 65_540, 0x3fff_ffff, 0x7fff_ffff, u32::MAX];
                    let length = lengths[random.below(lengths.len())].to_be_bytes();
                    drop(out.splice(at..(at + 4).min(out.len()), length));
                }
                _ => {
                    let from = random.below(other.len() + 1);
                    out.truncate(at);
                    out.extend_from_slice(&other[from..]);
                }
            }
        }
        out
    }

    /// xorshift64 (Marsaglia 2003).
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, limit: usize) -> usize {
            usize::try_from(self.next() % limit.max(1) as u64).unwrap()
        }

        fn byte(&mut self) -> u8 {
            self.next().to_be_bytes()[0]
        }
    }

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("proto-tests/fuzz")
    }

    fn inputs(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(root().join("corpus").join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    }

    fn names(folder: &str, extension: &str) -> BTreeSet<String> {
        let entries = std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
        entries.map(|name| name.into_string().unwrap().trim_end_matches(extension).to_owned()).collect()
    }

    #[test]
    fn every_target_has_a_program_a_corpus_and_a_replay() {
        let (programs, corpora) = (names("fuzz_targets", ".rs"), names("corpus", "/"));
        assert_eq!(programs, corpora);
        assert_eq!(programs.len(), 11, "{programs:?}");
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        let mut sources = String::new();
        for module in ["wire", "frontend", "backend", "relay", "identity", "config"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/{module}/fuzzing.rs"));
            sources.push_str(&std::fs::read_to_string(path).unwrap());
        }
        for name in &programs {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not built");
            assert!(sources.contains(&format!("replay(\"{name}\"")), "{name} is not replayed");
        }
    }

    #[test]
    fn corpora_are_small() {
        let mut all = 0;
        for name in names("corpus", "/") {
            for (path, bytes) in inputs(&name) {
                let size = bytes.len() as u64;
                assert!(size <= MAX_INPUT_BYTES, "{} has {size} bytes", path.display());
                all += size;
            }
        }
        assert!(all <= MAX_CORPUS_BYTES, "{all} bytes");
    }

    #[test]
    fn pieces_are_the_stream() {
        let stream: Vec<u8> = (0..200).collect();
        for pattern in [[].as_slice(), &[0], &[3, 250], &[255]] {
            let pieces = super::pieces(&stream, pattern);
            assert_eq!(pieces.concat(), stream);
            assert!(pieces.iter().all(|piece| !piece.is_empty()));
        }
    }
}
