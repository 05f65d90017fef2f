package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"

	"poste/peers/internal/load"
	"poste/peers/internal/out"
)

// books knows which packets wait for their confirmation. An envelope is confirmed when 11 came for its packet and 12
// listed no error for it; packets are known by the Keccak-256 of their payload.
type books struct {
	window int

	mu        sync.Mutex
	changed   chan struct{} // closed and replaced at every change
	pending   map[common.Hash]*batch
	waiting   int // envelopes in pending
	confirmed int
	ended     bool
}

type batch struct {
	envelopes []load.Sealed
	sent      time.Time
	errors    map[common.Hash]string // nil until 12 came
	acked     bool
}

var errEnded = errors.New("the connection ended")

func newBooks(window int) *books {
	return &books{window: window, changed: make(chan struct{}), pending: make(map[common.Hash]*batch)}
}

// open enters a packet that is about to be sent, once the window has room.
func (b *books) open(payload []byte, envelopes []load.Sealed) error {
	return b.when(nil, func() bool {
		if b.window > 0 && b.waiting+len(envelopes) > b.window {
			return false
		}
		b.pending[crypto.Keccak256Hash(payload)] = &batch{envelopes: envelopes, sent: time.Now()}
		b.waiting += len(envelopes)
		return true
	})
}

// settle waits until nothing is pending, and prints what stays unconfirmed.
func (b *books) settle(timeout time.Duration) error {
	err := b.when(time.After(timeout), func() bool { return b.waiting == 0 })
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, batch := range b.pending {
		for _, sealed := range batch.envelopes {
			b.print(batch, sealed, false, "no confirmation")
		}
	}
	return err
}

func (b *books) confirmedCount() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.confirmed
}

// when waits until ready, asked under the lock, says true.
func (b *books) when(timeout <-chan time.Time, ready func() bool) error {
	for {
		b.mu.Lock()
		if ready() {
			b.mu.Unlock()
			return nil
		}
		changed, ended := b.changed, b.ended
		b.mu.Unlock()
		if ended {
			return errEnded
		}
		select {
		case <-changed:
		case <-timeout:
			return errors.New("no confirmation in time")
		}
	}
}

// keep reads 12 and 11 until the connection ends.
func (b *books) keep(s *session) {
	for packet := range s.packets {
		var err error
		switch packet.code {
		case messageResponseCode:
			err = b.response(packet.payload)
		case batchAckCode:
			err = b.ack(packet.payload)
		}
		if err != nil {
			out.Line("protocol_error", out.Fields{"error": err.Error()})
		}
	}
	b.mu.Lock()
	b.ended = true
	b.announce()
	b.mu.Unlock()
}

func (b *books) response(payload []byte) error {
	var response struct {
		Version uint64
		Batch   struct {
			Hash   common.Hash
			Errors []struct {
				Hash        common.Hash
				Code        uint64
				Description string
			}
		}
	}
	if err := rlp.DecodeBytes(payload, &response); err != nil {
		return fmt.Errorf("packet 12: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	batch := b.pending[response.Batch.Hash]
	if response.Version != 1 || batch == nil || batch.errors != nil {
		return fmt.Errorf("packet 12 of version %d is for no packet that waits for it", response.Version)
	}
	batch.errors = make(map[common.Hash]string)
	for _, entry := range response.Batch.Errors {
		batch.errors[entry.Hash] = fmt.Sprintf("%d %s", entry.Code, entry.Description)
	}
	b.close(response.Batch.Hash, batch)
	return nil
}

func (b *books) ack(payload []byte) error {
	var hash common.Hash
	if err := rlp.DecodeBytes(payload, &hash); err != nil {
		return fmt.Errorf("packet 11: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	batch := b.pending[hash]
	if batch == nil || batch.acked {
		return errors.New("packet 11 is for no packet that waits for it")
	}
	batch.acked = true
	b.close(hash, batch)
	return nil
}

// close books a packet for which both 12 and 11 have come. Called under the lock.
func (b *books) close(hash common.Hash, batch *batch) {
	if !batch.acked || batch.errors == nil {
		return
	}
	delete(b.pending, hash)
	b.waiting -= len(batch.envelopes)
	for _, sealed := range batch.envelopes {
		refusal, refused := batch.errors[sealed.Hash()]
		if !refused {
			b.confirmed++
		}
		b.print(batch, sealed, !refused, refusal)
	}
	b.announce()
}

func (b *books) announce() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *books) print(batch *batch, sealed load.Sealed, confirmed bool, refusal string) {
	fields := out.Envelope(sealed.Envelope, sealed.Raw)
	fields["confirmed"] = confirmed
	fields["sent_ms"] = batch.sent.UnixNano() / 1e6
	if confirmed {
		fields["confirmed_ms"] = time.Now().UnixNano() / 1e6
	} else {
		fields["error"] = refusal
	}
	out.Line("posted", fields)
}
