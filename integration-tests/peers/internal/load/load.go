// Package load makes the envelopes that a peer posts. Encryption, encoding and proof of work are go-ethereum's.
package load

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"
	whisper "github.com/ethereum/go-ethereum/whisper/whisperv6"
	"golang.org/x/crypto/pbkdf2"
)

// miningSeconds bounds the search for one nonce.
const miningSeconds = 10

// Load says what to post.
type Load struct {
	Count  int           // how many; 0 with For means: until the time is over
	For    time.Duration // keep posting, envelopes made at the moment they are sent
	Rate   float64       // envelopes a second; 0 = as fast as the connection takes them
	Burst  int           // so many of Count are created in one and the same second, and sent first, without a pause
	Spread int           // the others are created evenly over so many seconds before that one
	TTL    uint
	PoW    float64

	topics    Topics
	derived   int
	prefix    string
	sizeTexts string
	password  string

	sizes []int
	key   []byte
}

// Sealed is an envelope ready to go, with its bytes.
type Sealed struct {
	*whisper.Envelope
	Raw []byte
}

// Flags registers the flags of every poster.
func (l *Load) Flags(flags *flag.FlagSet) {
	flags.IntVar(&l.Count, "count", 0, "how many envelopes to post (without --for: 100)")
	flags.DurationVar(&l.For, "for", 0, "keep posting for this long, each envelope made when it is sent")
	flags.Float64Var(&l.Rate, "rate", 0, "envelopes a second, 0 = as fast as possible")
	flags.IntVar(&l.Burst, "burst", 0, "so many of them created in one second and sent without a pause")
	flags.IntVar(&l.Spread, "spread", 20, "the others are created over so many seconds before (not with --for)")
	flags.UintVar(&l.TTL, "ttl", 120, "time to live in seconds")
	flags.Float64Var(&l.PoW, "pow", 0.0001, "proof of work to mine (the deployed minimum is 0.000002)")
	flags.Var(&l.topics, "topic", "a topic in hex (may be repeated)")
	flags.IntVar(&l.derived, "topics", 0, "so many topics more, derived from --prefix (1 if there is no --topic)")
	flags.StringVar(&l.prefix, "prefix", "poste", "the text that --topics are derived from")
	flags.StringVar(&l.sizeTexts, "sizes", "100", "payload sizes in bytes, taken in turn, separated by commas")
	flags.StringVar(&l.password, "password", "foreign", "the password that payloads are encrypted with")
}

// Prepare checks the flags; call it once after parsing.
func (l *Load) Prepare() error {
	if l.Count == 0 && l.For == 0 {
		l.Count = 100
	}
	if l.Burst > l.Count {
		return fmt.Errorf("--burst %d is more than --count %d", l.Burst, l.Count)
	}
	if l.TTL == 0 || (l.For == 0 && l.TTL <= uint(l.Spread)+10) {
		return fmt.Errorf("--ttl must be more than --spread and ten seconds")
	}
	if l.derived == 0 && len(l.topics) == 0 {
		l.derived = 1
	}
	for i := 0; i < l.derived; i++ {
		hash := crypto.Keccak256([]byte(l.prefix + strconv.Itoa(i)))
		l.topics = append(l.topics, whisper.BytesToTopic(hash[:4]))
	}
	for _, text := range strings.Split(l.sizeTexts, ",") {
		size, err := strconv.Atoi(text)
		if err != nil || size < 0 {
			return fmt.Errorf("--sizes: %q is not a size", text)
		}
		l.sizes = append(l.sizes, size)
	}
	l.key = PasswordKey(l.password)
	return nil
}

// All makes the whole load of Count envelopes, the burst first.
func (l *Load) All() ([]Sealed, error) {
	all := make([]Sealed, 0, l.Count)
	second := uint32(time.Now().Unix())
	for i := 0; i < l.Count; i++ {
		created := second
		if i >= l.Burst && l.Spread > 0 {
			created = second - 1 - uint32(i%l.Spread)
		}
		sealed, err := l.Make(i, created)
		if err != nil {
			return nil, err
		}
		all = append(all, sealed)
	}
	return all, nil
}

// Make encrypts and mines the i-th envelope with created as its creation time in unix seconds.
func (l *Load) Make(i int, created uint32) (Sealed, error) {
	payload := make([]byte, l.sizes[i%len(l.sizes)])
	copy(payload, fmt.Sprintf("%d/%d", created, i))
	params := whisper.MessageParams{
		TTL: uint32(l.TTL), KeySym: l.key, Topic: l.topics[(i/len(l.sizes))%len(l.topics)],
		Payload: payload, WorkTime: miningSeconds,
	}
	message, err := whisper.NewSentMessage(&params)
	if err != nil {
		return Sealed{}, err
	}
	envelope, err := message.Wrap(&params) // PoW is 0 here: the time is set first, then mined for
	if err != nil {
		return Sealed{}, err
	}
	envelope.Expiry = created + envelope.TTL
	params.PoW = l.PoW
	if err := envelope.Seal(&params); err != nil {
		return Sealed{}, err
	}
	raw, err := rlp.EncodeToBytes(envelope)
	return Sealed{envelope, raw}, err
}

// PasswordKey is what Whisper derives from a password: PBKDF2 with SHA-256, no salt, 65,356 rounds.
func PasswordKey(password string) []byte {
	return pbkdf2.Key([]byte(password), nil, 65356, 32, sha256.New)
}

// Topics is a flag that may be repeated.
type Topics []whisper.TopicType

func (t *Topics) String() string { return fmt.Sprint(len(*t)) }

// Set reads one topic.
func (t *Topics) Set(text string) error {
	topic, err := hex.DecodeString(strings.TrimPrefix(text, "0x"))
	if err != nil || len(topic) != whisper.TopicLength {
		return fmt.Errorf("%q is not a topic: 8 hex digits are", text)
	}
	*t = append(*t, whisper.BytesToTopic(topic))
	return nil
}

// Bloom is the filter that lets the topics in, every bit set (not go-ethereum's assigned form); none = everything.
func (t Topics) Bloom() []byte {
	if len(t) == 0 {
		return whisper.MakeFullNodeBloom()
	}
	bloom := make([]byte, whisper.BloomFilterSize)
	for _, topic := range t {
		for j := 0; j < 3; j++ {
			bit := int(topic[j])
			if topic[3]&(1<<uint(j)) != 0 {
				bit += 256
			}
			bloom[bit/8] |= 1 << uint(bit%8)
		}
	}
	return bloom
}
