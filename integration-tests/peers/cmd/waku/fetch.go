package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/rlp"
	whisper "github.com/ethereum/go-ethereum/whisper/whisperv6"

	"poste/peers/internal/load"
	"poste/peers/internal/node"
	"poste/peers/internal/out"
)

// mailRequest is the payload of a request envelope as deployed servers read it: seven items.
type mailRequest struct {
	Lower  uint32
	Upper  uint32
	Bloom  []byte
	Topics []whisper.TopicType
	Limit  uint32
	Cursor []byte
	Batch  bool
}

// fetcher asks for one page after the other and checks what a client of the deployed network may rely on.
type fetcher struct {
	session *session
	request mailRequest
	key     []byte
	pow     float64
	timeout time.Duration
	count   int
}

func fetch(arguments []string) error {
	var topics load.Topics
	f := fetcher{}
	now := time.Now().Unix()
	flags := newFlags("fetch")
	from := flags.String("from", "", "enode of the mailserver")
	keyText := flags.String("key", "", "node key in hex (default: a fresh one)")
	since := flags.Int64("since", now-24*3600, "start of the range, unix seconds, inclusive")
	until := flags.Int64("until", now+60, "end of the range, unix seconds, inclusive")
	limit := flags.Uint("limit", 300, "envelopes in a page")
	password := flags.String("mail-password", "status-offline-inbox", "the mailserver's password")
	flags.Float64Var(&f.pow, "pow", 0.002, "proof of work of the request")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long one page may take")
	verbose := flags.Bool("verbose", false, "go-ethereum's log on stderr")
	flags.Var(&topics, "topic", "only this topic, in hex (may be repeated; default: everything)")
	flags.Parse(arguments)
	if *verbose {
		node.Verbose()
	}
	f.key = load.PasswordKey(*password)
	f.request = mailRequest{
		Lower: uint32(*since), Upper: uint32(*until), Bloom: topics.Bloom(), Topics: topics,
		Limit: uint32(*limit), Batch: true,
	}
	var err error
	f.session, err = open(*from, *keyText, status{bloom: make([]byte, whisper.BloomFilterSize)})
	if err != nil {
		return err
	}
	defer f.session.close()

	started, pages := time.Now(), 0
	for more := true; more && err == nil; {
		pages++
		more, err = f.page(pages)
	}
	fields := out.Fields{"count": f.count, "pages": pages, "seconds": time.Since(started).Seconds(), "error": ""}
	if err != nil {
		fields["error"] = err.Error()
	}
	out.Line("complete", fields)
	return err
}

// page asks for the next page and takes it to its completion. It says whether there may be another.
func (f *fetcher) page(number int) (bool, error) {
	id, err := f.ask()
	if err != nil {
		return false, err
	}
	var last common.Hash
	var lastTime uint32
	inPage := uint32(0)
	deadline := time.After(f.timeout)
	for {
		select {
		case packet, open := <-f.session.packets:
			if !open {
				return false, fmt.Errorf("the mailserver ended the connection: %s", f.session.why())
			}
			switch packet.code {
			case mailCode:
				envelopes, raw, err := readEnvelopes(packet.payload)
				if err != nil {
					return false, fmt.Errorf("packet 127 is not a list of envelopes: %w", err)
				}
				for i, envelope := range envelopes {
					sent := envelope.Expiry - envelope.TTL
					if sent < lastTime {
						return false, errors.New("mail is not in order, oldest first")
					}
					last, lastTime = envelope.Hash(), sent
					inPage++
					fields := out.Envelope(envelope, raw[i])
					fields["page"] = number
					out.Line("envelope", fields)
				}
			case completeCode:
				return f.complete(packet.payload, id, inPage, last, lastTime)
			}
		case <-deadline:
			return false, fmt.Errorf("page %d was not completed within %s", number, f.timeout)
		}
	}
}

// ask sends a request envelope: signed with the node key, encrypted with the mail password's key, topic zero. Its hash
// is the id of the request.
func (f *fetcher) ask() (common.Hash, error) {
	payload, err := rlp.EncodeToBytes(f.request)
	if err != nil {
		return common.Hash{}, err
	}
	params := whisper.MessageParams{
		TTL: 50, Src: f.session.node.Key, KeySym: f.key, PoW: f.pow, WorkTime: 5, Payload: payload,
	}
	message, err := whisper.NewSentMessage(&params)
	if err != nil {
		return common.Hash{}, err
	}
	envelope, err := message.Wrap(&params)
	if err != nil {
		return common.Hash{}, err
	}
	raw, err := rlp.EncodeToBytes(envelope)
	if err != nil {
		return common.Hash{}, err
	}
	return envelope.Hash(), f.session.send(mailRequestCode, raw)
}

// complete reads 125, one string: request id, hash of the last envelope, and a cursor when the page was full.
func (f *fetcher) complete(payload []byte, id common.Hash, inPage uint32, last common.Hash, lastTime uint32) (bool, error) {
	var answer []byte
	if err := rlp.DecodeBytes(payload, &answer); err != nil {
		return false, fmt.Errorf("packet 125 is not one string: %w", err)
	}
	if marker := []byte("ERROR="); bytes.HasPrefix(answer, marker) && len(answer) >= len(marker)+len(id) {
		answer = answer[len(marker):]
		if !bytes.Equal(answer[:len(id)], id[:]) {
			return false, errors.New("packet 125 refuses another request")
		}
		return false, fmt.Errorf("refused: %s", answer[len(id):])
	}
	if len(answer) != 64 && len(answer) != 100 {
		return false, fmt.Errorf("packet 125 has %d bytes", len(answer))
	}
	if !bytes.Equal(answer[:32], id[:]) {
		return false, errors.New("packet 125 completes another request")
	}
	if inPage > f.request.Limit {
		return false, fmt.Errorf("a page of %d envelopes, above the limit", inPage)
	}
	if !bytes.Equal(answer[32:64], last[:]) {
		return false, errors.New("packet 125 does not name the last envelope of the page")
	}
	f.count += int(inPage)
	cursor := answer[64:]
	if len(cursor) == 0 {
		return false, nil
	}
	if binary.BigEndian.Uint32(cursor) != lastTime || !bytes.Equal(cursor[4:], last[:]) {
		return false, fmt.Errorf("the cursor %s is not the position of the last envelope", hex.EncodeToString(cursor))
	}
	f.request.Cursor = cursor
	return true, nil
}
