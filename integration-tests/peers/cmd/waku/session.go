package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/ethereum/go-ethereum/p2p"
	"github.com/ethereum/go-ethereum/rlp"
	whisper "github.com/ethereum/go-ethereum/whisper/whisperv6"

	"poste/peers/internal/node"
)

// Packets of waku/1.
const (
	statusCode          = 0
	messagesCode        = 1
	batchAckCode        = 11
	messageResponseCode = 12
	statusUpdateCode    = 22
	completeCode        = 125
	mailRequestCode     = 126
	mailCode            = 127
)

// maxPacket is the size above which deployed nodes drop the connection, after decompression.
const maxPacket = 1024 * 1024

// session is one connection. Packets come out of the packets channel; it is closed when the connection ends.
type session struct {
	node    *node.Node
	packets chan packet
	up      chan struct{}

	mu sync.Mutex
	rw p2p.MsgReadWriter
}

type packet struct {
	code    uint64
	payload []byte
}

// status says what we want relayed to us, in the options of Status.
type status struct {
	bloom    []byte
	interest []whisper.TopicType // replaces bloom if not nil
}

// open connects to url and exchanges Status.
func open(url string, keyText string, ours status) (*session, error) {
	key, err := node.Key(keyText)
	if err != nil {
		return nil, err
	}
	s := &session{packets: make(chan packet, 256), up: make(chan struct{})}
	s.node, err = node.Start(key, "", p2p.Protocol{
		Name: "waku", Version: 1, Length: 128,
		Run: func(peer *p2p.Peer, rw p2p.MsgReadWriter) error { return s.run(rw, ours) },
	})
	if err != nil {
		return nil, err
	}
	if _, err := s.node.Connect(url, s.up); err != nil {
		s.node.Server.Stop()
		return nil, err
	}
	return s, nil
}

func (s *session) close() { s.node.Server.Stop() }

// why names the reason of the end; call it once the packets channel is closed.
func (s *session) why() string { return <-s.node.Ended() }

func (s *session) send(code uint64, payload []byte) error {
	if len(payload) > maxPacket {
		return fmt.Errorf("a packet of %d bytes would be above the limit", len(payload))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rw.WriteMsg(p2p.Msg{Code: code, Size: uint32(len(payload)), Payload: bytes.NewReader(payload)})
}

// run is the sub-protocol: Status both ways at once, then packets until the end.
func (s *session) run(rw p2p.MsgReadWriter, ours status) error {
	s.rw = rw
	defer close(s.packets)
	options, err := ours.encode()
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() { sent <- s.send(statusCode, options) }()
	first, err := read(rw)
	if err != nil {
		return err
	}
	if first.code != statusCode {
		return fmt.Errorf("packet %d came before Status", first.code)
	}
	if err := checkStatus(first.payload); err != nil {
		return err
	}
	if err := <-sent; err != nil {
		return err
	}
	close(s.up)
	for {
		packet, err := read(rw)
		if err != nil {
			return err
		}
		if len(packet.payload) > maxPacket {
			return fmt.Errorf("packet %d has %d bytes, above the limit", packet.code, len(packet.payload))
		}
		s.packets <- packet
	}
}

func read(rw p2p.MsgReadWriter) (packet, error) {
	msg, err := rw.ReadMsg()
	if err != nil {
		return packet{}, err
	}
	payload, err := io.ReadAll(msg.Payload)
	return packet{msg.Code, payload}, err
}

// option is one [key, value] pair of Status; key 0 is encoded as 0x80.
type option struct {
	Key   uint64
	Value interface{}
}

// encode gives the options in ascending order of keys, as status-go sends them.
func (s status) encode() ([]byte, error) {
	options := []option{{0, math.Float64bits(0)}, {1, s.bloom}, {2, false}, {3, false}, {4, [3]uint64{}}}
	if s.interest != nil {
		options = []option{{0, math.Float64bits(0)}, {2, false}, {3, false}, {4, [3]uint64{}}, {5, s.interest}}
	}
	return rlp.EncodeToBytes(options)
}

// checkStatus reads the peer's options strictly: pairs with a known key once each, and a sane value for each.
func checkStatus(payload []byte) error {
	var pairs []struct {
		Key   uint64
		Value rlp.RawValue
	}
	if err := rlp.DecodeBytes(payload, &pairs); err != nil {
		return fmt.Errorf("Status is not a list of pairs: %w", err)
	}
	seen := make(map[uint64]bool)
	for _, pair := range pairs {
		if seen[pair.Key] {
			return fmt.Errorf("Status has the key %d twice", pair.Key)
		}
		seen[pair.Key] = true
		var err error
		switch pair.Key {
		case 0:
			var bits uint64
			err = rlp.DecodeBytes(pair.Value, &bits)
			if pow := math.Float64frombits(bits); pow < 0 || math.IsNaN(pow) || math.IsInf(pow, 0) {
				err = fmt.Errorf("%v", pow)
			}
		case 1:
			var bloom []byte
			err = rlp.DecodeBytes(pair.Value, &bloom)
			if err == nil && len(bloom) != whisper.BloomFilterSize {
				err = fmt.Errorf("%d bytes", len(bloom))
			}
		case 2, 3:
			var flag bool
			err = rlp.DecodeBytes(pair.Value, &flag)
		case 4, 6:
			var limits [3]uint64
			err = rlp.DecodeBytes(pair.Value, &limits)
		case 5:
			var topics []whisper.TopicType
			err = rlp.DecodeBytes(pair.Value, &topics)
		default:
			err = errors.New("unknown: status-go would stop reading here")
		}
		if err != nil {
			return fmt.Errorf("Status, key %d: %w", pair.Key, err)
		}
	}
	return nil
}

// readEnvelopes reads a list of envelopes and keeps the bytes of each.
func readEnvelopes(payload []byte) ([]*whisper.Envelope, []rlp.RawValue, error) {
	var raw []rlp.RawValue
	if err := rlp.DecodeBytes(payload, &raw); err != nil {
		return nil, nil, err
	}
	envelopes := make([]*whisper.Envelope, len(raw))
	for i := range raw {
		envelopes[i] = new(whisper.Envelope)
		if err := rlp.DecodeBytes(raw[i], envelopes[i]); err != nil {
			return nil, nil, err
		}
	}
	return envelopes, raw, nil
}
