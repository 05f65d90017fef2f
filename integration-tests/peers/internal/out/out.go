// Package out prints what a peer sees and does: one JSON object a line on stdout, flushed at once, so that a test can
// wait for a line instead of sleeping.
package out

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"sync"

	"github.com/ethereum/go-ethereum/crypto"
	whisper "github.com/ethereum/go-ethereum/whisper/whisperv6"
)

// Fields are the members of one line besides "event".
type Fields map[string]interface{}

var stdout sync.Mutex

// Line prints one event.
func Line(event string, fields Fields) {
	line := Fields{"event": event}
	for name, value := range fields {
		line[name] = value
	}
	encoded, err := json.Marshal(line)
	if err != nil {
		panic(err) // only values that JSON can hold are printed
	}
	stdout.Lock()
	defer stdout.Unlock()
	os.Stdout.Write(append(encoded, '\n'))
}

// Envelope gives the members that describe an envelope: hash and bytes are those of the wire, not of a re-encoding.
func Envelope(envelope *whisper.Envelope, raw []byte) Fields {
	return Fields{
		"hash":  hex.EncodeToString(crypto.Keccak256(raw)),
		"topic": hex.EncodeToString(envelope.Topic[:]),
		"time":  envelope.Expiry - envelope.TTL,
		"size":  whisper.EnvelopeHeaderLength + len(envelope.Data),
		"data":  hex.EncodeToString(raw),
	}
}
