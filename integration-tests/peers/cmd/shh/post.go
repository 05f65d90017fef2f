package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/rlp"
	whisper "github.com/ethereum/go-ethereum/whisper/whisperv6"

	"poste/peers/internal/load"
	"poste/peers/internal/node"
	"poste/peers/internal/out"
)

// messagesCode is shh/6's packet with envelopes.
const messagesCode = 1

// bytesPerTick keeps what the node sends in one packet (everything that is new in its pool) below the limit of 1 MiB.
const bytesPerTick = 512 * 1024

// post gives envelopes to the Whisper node and waits until it has written each of them to the peer.
func post(arguments []string) error {
	var wanted load.Load
	flags := newFlags("post")
	to := flags.String("to", "", "enode of the peer")
	keyText := flags.String("key", "", "node key in hex (default: a fresh one)")
	timeout := flags.Duration("timeout", 60*time.Second, "how long the node may take to write a packet")
	linger := flags.Duration("linger", time.Second, "stay connected after the last packet (Whisper confirms nothing)")
	verbose := flags.Bool("verbose", false, "go-ethereum's log on stderr")
	wanted.Flags(flags)
	flags.Parse(arguments)
	if *verbose {
		node.Verbose()
	}
	if err := wanted.Prepare(); err != nil {
		return err
	}
	if wanted.For != 0 {
		return errors.New("--for is for waku only: a Whisper node sends by its own clock")
	}
	key, err := node.Key(*keyText)
	if err != nil {
		return err
	}
	envelopes, err := wanted.All()
	if err != nil {
		return err
	}

	shh := newWhisper(wanted.PoW, whisper.DefaultMaxMessageSize)
	if err := shh.Start(); err != nil {
		return err
	}
	defer shh.Stop()
	written := newWritten()
	tap := &node.Tap{Written: written.packet}
	peer, err := node.Start(key, "", tap.Wrap(shh.Protocols()[0]))
	if err != nil {
		return err
	}
	defer peer.Server.Stop()
	if _, err := peer.Connect(*to, tap.Up()); err != nil {
		return err
	}

	started := time.Now()
	for first := 0; first < len(envelopes); {
		next, size := first, 0
		for next < len(envelopes) && (next == first || size+len(envelopes[next].Raw) <= bytesPerTick) {
			size += len(envelopes[next].Raw)
			if err := shh.Send(envelopes[next].Envelope); err != nil {
				return fmt.Errorf("the Whisper node refused an envelope: %w", err)
			}
			next++
		}
		if err := written.wait(next, *timeout, peer.Ended()); err != nil {
			return err
		}
		first = next
	}
	for _, sealed := range envelopes {
		out.Line("posted", out.Envelope(sealed.Envelope, sealed.Raw))
	}
	seconds := time.Since(started).Seconds()
	select {
	case reason := <-peer.Ended():
		return fmt.Errorf("the peer ended the connection: %s", reason)
	case <-time.After(*linger):
	}
	out.Line("summary", out.Fields{"posted": len(envelopes), "seconds": seconds})
	return nil
}

// written counts the different envelopes that have been written to the peer.
type written struct {
	mu     sync.Mutex
	hashes map[common.Hash]bool
	grown  chan struct{}
}

func newWritten() *written {
	return &written{hashes: make(map[common.Hash]bool), grown: make(chan struct{}, 1)}
}

func (w *written) packet(code uint64, payload []byte) {
	var envelopes []*whisper.Envelope
	if code != messagesCode || rlp.DecodeBytes(payload, &envelopes) != nil {
		return
	}
	w.mu.Lock()
	for _, envelope := range envelopes {
		w.hashes[envelope.Hash()] = true
	}
	w.mu.Unlock()
	select {
	case w.grown <- struct{}{}:
	default:
	}
}

func (w *written) wait(count int, timeout time.Duration, ended <-chan string) error {
	deadline := time.After(timeout)
	for {
		w.mu.Lock()
		have := len(w.hashes)
		w.mu.Unlock()
		if have >= count {
			return nil
		}
		select {
		case <-w.grown:
		case reason := <-ended:
			return fmt.Errorf("the peer ended the connection after %d envelopes: %s", have, reason)
		case <-deadline:
			return fmt.Errorf("%d of %d envelopes written after %s", have, count, timeout)
		}
	}
}
