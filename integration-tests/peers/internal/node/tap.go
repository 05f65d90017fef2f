package node

import (
	"bytes"
	"io"
	"sync"

	"github.com/ethereum/go-ethereum/p2p"
)

// Tap shows every packet of a sub-protocol that go-ethereum runs, and changes none.
type Tap struct {
	// Read and Written are called with the code and the decompressed payload, Written after the packet is in the
	// socket. Either may be nil.
	Read, Written func(code uint64, payload []byte)

	up                        chan struct{}
	once                      sync.Once
	mu                        sync.Mutex
	statusRead, statusWritten bool
}

// Wrap puts the tap around the protocol. Up is closed when both Status packets have passed.
func (t *Tap) Wrap(protocol p2p.Protocol) p2p.Protocol {
	t.up = make(chan struct{})
	run := protocol.Run
	protocol.Run = func(peer *p2p.Peer, rw p2p.MsgReadWriter) error {
		return run(peer, &tapped{tap: t, inner: rw})
	}
	return protocol
}

// Up is closed when both Status packets have passed.
func (t *Tap) Up() <-chan struct{} { return t.up }

func (t *Tap) status(flag *bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	*flag = true
	if t.statusRead && t.statusWritten {
		t.once.Do(func() { close(t.up) })
	}
}

type tapped struct {
	tap   *Tap
	inner p2p.MsgReadWriter
}

func (t *tapped) ReadMsg() (p2p.Msg, error) {
	msg, err := t.inner.ReadMsg()
	if err != nil {
		return msg, err
	}
	payload, err := io.ReadAll(msg.Payload)
	if err != nil {
		return msg, err
	}
	msg.Payload = bytes.NewReader(payload)
	if msg.Code == 0 {
		t.tap.status(&t.tap.statusRead)
	}
	if t.tap.Read != nil {
		t.tap.Read(msg.Code, payload)
	}
	return msg, nil
}

func (t *tapped) WriteMsg(msg p2p.Msg) error {
	payload, err := io.ReadAll(msg.Payload)
	if err != nil {
		return err
	}
	msg.Payload = bytes.NewReader(payload)
	if err := t.inner.WriteMsg(msg); err != nil {
		return err
	}
	if msg.Code == 0 {
		t.tap.status(&t.tap.statusWritten)
	}
	if t.tap.Written != nil {
		t.tap.Written(msg.Code, payload)
	}
	return nil
}
