// A witness of transparency logs (C2SP tlog-witness, add-checkpoint) on Go's own transparency log: it checks a log's
// signature with golang.org/x/mod/sumdb/note and consistency with golang.org/x/mod/sumdb/tlog, cosigns (C2SP
// tlog-cosignature, Ed25519), and refuses what is rolled back or forked. It shares nothing with ours.
//
//	tlog_witness KEY
//
// KEY is the log's public key. Says on standard output, as its first line, its address and its own public key, then a
// line for each request: its status and the sizes. GET /checkpoint gives what it has cosigned last.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const name = "witness.example/w1"

type witness struct {
	lock     sync.Mutex
	verifier note.Verifier
	key      ed25519.PrivateKey
	id       [4]byte
	latest   tlog.Tree
	cosigned []byte
}

func main() {
	verifier, err := note.NewVerifier(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	data := append([]byte{4}, public...)
	w := &witness{verifier: verifier, key: key}
	sum := sha256.Sum256(append([]byte(name+"\n"), data...))
	copy(w.id[:], sum[:4])
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s %s+%x+%s\n", listener.Addr(), name, w.id, base64.StdEncoding.EncodeToString(data))
	http.HandleFunc("/add-checkpoint", w.addCheckpoint)
	http.HandleFunc("/checkpoint", func(answer http.ResponseWriter, _ *http.Request) {
		w.lock.Lock()
		defer w.lock.Unlock()
		answer.Write(w.cosigned)
	})
	log.Fatal(http.Serve(listener, nil))
}

func (w *witness) addCheckpoint(answer http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(io.LimitReader(request.Body, 1<<20))
	if err != nil || request.Method != http.MethodPost {
		http.Error(answer, "a POST", http.StatusBadRequest)
		return
	}
	w.lock.Lock()
	defer w.lock.Unlock()
	status, kind, said := w.judge(body)
	fmt.Printf("%d %s\n", status, bytes.SplitN(body, []byte("\n"), 2)[0])
	answer.Header().Set("Content-Type", kind)
	answer.WriteHeader(status)
	io.WriteString(answer, said)
}

func (w *witness) judge(body []byte) (int, string, string) {
	const plain = "text/plain; charset=utf-8"
	head, signed, found := bytes.Cut(body, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	old, err := strconv.ParseInt(strings.TrimPrefix(lines[0], "old "), 10, 64)
	if !found || err != nil || !strings.HasPrefix(lines[0], "old ") || len(lines) > 64 {
		return http.StatusBadRequest, plain, "not an add-checkpoint\n"
	}
	if origin, _, _ := strings.Cut(string(signed), "\n"); origin != w.verifier.Name() {
		return http.StatusNotFound, plain, "unknown log\n"
	}
	opened, err := note.Open(signed, note.VerifierList(w.verifier))
	if err != nil {
		return http.StatusForbidden, plain, err.Error() + "\n"
	}
	_, rest, _ := strings.Cut(opened.Text, "\n")
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + rest))
	if err != nil || old > tree.N {
		return http.StatusBadRequest, plain, "no checkpoint, or older than what it is said to follow\n"
	}
	if old != w.latest.N {
		return http.StatusConflict, "text/x.tlog.size", fmt.Sprintf("%d\n", w.latest.N)
	}
	if old == tree.N && old > 0 && tree.Hash != w.latest.Hash {
		return http.StatusConflict, "text/x.tlog.size", fmt.Sprintf("%d\n", w.latest.N)
	}
	var proof tlog.TreeProof
	for _, line := range lines[1:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return http.StatusBadRequest, plain, "no hash\n"
		}
		proof = append(proof, hash)
	}
	if old == 0 && len(proof) > 0 {
		return http.StatusUnprocessableEntity, plain, "a proof from nothing\n"
	}
	if old > 0 {
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, old, w.latest.Hash); err != nil {
			return http.StatusUnprocessableEntity, plain, err.Error() + "\n"
		}
	}
	now := uint64(time.Now().Unix())
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", now, opened.Text)
	signature := append([]byte{}, w.id[:]...)
	signature = binary.BigEndian.AppendUint64(signature, now)
	signature = append(signature, ed25519.Sign(w.key, []byte(message))...)
	line := fmt.Sprintf("\u2014 %s %s\n", name, base64.StdEncoding.EncodeToString(signature))
	w.latest = tree
	w.cosigned = append(append([]byte{}, signed...), line...)
	return http.StatusOK, plain, line
}
