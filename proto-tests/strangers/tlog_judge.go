// Judges a log of ours with Go's own transparency log (golang.org/x/mod/sumdb: note, tlog). The reading of segments
// here is from their description, and shares nothing with ours.
//
//	tlog_judge log FOLDER KEY          every checkpoint: signature, root over the records, consistency with the next
//	tlog_judge proof KEY PROOF RECORD  a proof that `audit prove` has written, and its record
//
// One line on standard output, exit code 0; or why not on standard error, exit code 1.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const headerBytes = 64

type stored []tlog.Hash

func (s stored) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= int64(len(s)) {
			return nil, errors.New("no such hash")
		}
		hashes[i] = s[index]
	}
	return hashes, nil
}

func main() {
	said, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(said)
}

func run(arguments []string) (string, error) {
	switch {
	case len(arguments) == 3 && arguments[0] == "log":
		return judgeLog(arguments[1], arguments[2])
	case len(arguments) == 4 && arguments[0] == "proof":
		return judgeProof(arguments[1], arguments[2], arguments[3])
	}
	return "", errors.New("log FOLDER KEY, or proof KEY PROOF RECORD")
}

func judgeLog(folder, key string) (string, error) {
	var hashes stored
	records, err := eachRecord(folder, func(index int64, record []byte) error {
		more, err := tlog.StoredHashes(index, record, hashes)
		hashes = append(hashes, more...)
		return err
	})
	if err != nil {
		return "", err
	}
	file, err := os.ReadFile(filepath.Join(folder, "checkpoints"))
	if err != nil {
		return "", err
	}
	var heads []tlog.Tree
	for _, signed := range notes(file) {
		head, err := open(signed, key)
		if err != nil {
			return "", fmt.Errorf("checkpoint %d: %w", len(heads)+1, err)
		}
		if head.N > records {
			return "", fmt.Errorf("a checkpoint of %d records, and %d are there", head.N, records)
		}
		root, err := tlog.TreeHash(head.N, hashes)
		if err != nil {
			return "", err
		}
		if root != head.Hash {
			return "", fmt.Errorf("the root over %d records is another", head.N)
		}
		heads = append(heads, head)
	}
	for i := 1; i < len(heads); i++ {
		proof, err := tlog.ProveTree(heads[i].N, heads[i-1].N, hashes)
		if err != nil {
			return "", err
		}
		if err := tlog.CheckTree(proof, heads[i].N, heads[i].Hash, heads[i-1].N, heads[i-1].Hash); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%s: %d records, %d checkpoints", runtime.Version(), records, len(heads)), nil
}

func judgeProof(key, proofFile, recordFile string) (string, error) {
	text, err := os.ReadFile(proofFile)
	if err != nil {
		return "", err
	}
	record, err := os.ReadFile(recordFile)
	if err != nil {
		return "", err
	}
	own, signed, found := bytes.Cut(text, []byte("\n\n"))
	lines := strings.Split(string(own), "\n")
	if !found || len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" || !strings.HasPrefix(lines[1], "index ") {
		return "", errors.New("not a tlog-proof")
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64)
	if err != nil {
		return "", err
	}
	var proof tlog.RecordProof
	for _, line := range lines[2:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return "", err
		}
		proof = append(proof, hash)
	}
	head, err := open(signed, key)
	if err != nil {
		return "", err
	}
	if err := tlog.CheckRecord(proof, head.N, head.Hash, index, tlog.RecordHash(record)); err != nil {
		return "", err
	}
	return fmt.Sprintf("record %d of %d", index, head.N), nil
}

// A checkpoint's text is the log's name, its size, its root. tlog.ParseTree takes Go's own first line only; what
// follows it is the same.
func open(signed []byte, key string) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	name, rest, _ := strings.Cut(opened.Text, "\n")
	if name != verifier.Name() {
		return tlog.Tree{}, errors.New("another log's checkpoint")
	}
	return tlog.ParseTree([]byte("go.sum database tree\n" + rest))
}

// A note is two blocks, its text and its signatures; each ends with an empty line.
func notes(file []byte) [][]byte {
	blocks := bytes.SplitAfter(file, []byte("\n\n"))
	var notes [][]byte
	for i := 0; i+1 < len(blocks); i += 2 {
		notes = append(notes, []byte(string(blocks[i])+strings.TrimSuffix(string(blocks[i+1]), "\n")))
	}
	return notes
}

func eachRecord(folder string, take func(int64, []byte) error) (int64, error) {
	segments, err := filepath.Glob(filepath.Join(folder, "*.segment"))
	if err != nil {
		return 0, err
	}
	sort.Strings(segments)
	var index int64
	for _, segment := range segments {
		rest, err := os.ReadFile(segment)
		if err != nil {
			return 0, err
		}
		if len(rest) < headerBytes || binary.LittleEndian.Uint64(rest[32:]) != uint64(index) {
			return 0, fmt.Errorf("%s does not start with record %d", segment, index)
		}
		rest = rest[headerBytes:]
		for len(rest) >= 8 && binary.LittleEndian.Uint32(rest) != 0 {
			length := uint64(binary.LittleEndian.Uint32(rest))
			if uint64(len(rest)) < 8+length {
				return 0, fmt.Errorf("record %d is cut off", index)
			}
			record := rest[8 : 8+length]
			table := crc32.MakeTable(crc32.Castagnoli)
			sum := crc32.Update(crc32.Update(0, table, rest[:4]), table, record)
			if sum != binary.LittleEndian.Uint32(rest[4:]) {
				return 0, fmt.Errorf("record %d does not fit its checksum", index)
			}
			if err := take(index, record); err != nil {
				return 0, err
			}
			rest = rest[8+length:]
			index++
		}
	}
	return index, nil
}
