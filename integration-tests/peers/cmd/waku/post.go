package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ethereum/go-ethereum/rlp"
	whisper "github.com/ethereum/go-ethereum/whisper/whisperv6"

	"poste/peers/internal/load"
	"poste/peers/internal/node"
	"poste/peers/internal/out"
)

// poster sends envelopes in batches, a Messages packet each.
type poster struct {
	session   *session
	load      load.Load
	perPacket int
	books     *books // nil without --confirm
	stop      <-chan os.Signal
	first     time.Time // when the first packet went out

	sent         int
	burstSeconds float64
}

func post(arguments []string) error {
	p := poster{}
	flags := newFlags("post")
	to := flags.String("to", "", "enode of the peer")
	keyText := flags.String("key", "", "node key in hex (default: a fresh one)")
	flags.IntVar(&p.perPacket, "per-packet", 10, "envelopes in one Messages packet (fewer where the packet would be above 1 MiB)")
	confirm := flags.Bool("confirm", false, "wait for 12 and 11 for each packet")
	window := flags.Int("window", 0, "with --confirm: at most so many envelopes unconfirmed at a time, 0 = any number")
	timeout := flags.Duration("timeout", 30*time.Second, "with --confirm: how long to wait for the last confirmations")
	linger := flags.Duration("linger", time.Second, "without --confirm: stay connected after the last packet")
	verbose := flags.Bool("verbose", false, "go-ethereum's log on stderr")
	p.load.Flags(flags)
	flags.Parse(arguments)
	if *verbose {
		node.Verbose()
	}
	if err := p.load.Prepare(); err != nil {
		return err
	}
	if p.perPacket < 1 || (*window > 0 && *window < p.perPacket) {
		return fmt.Errorf("--per-packet must be at least 1 and at most --window")
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	p.stop = stop
	batches := p.live
	if p.load.For == 0 {
		all, err := p.load.All()
		if err != nil {
			return err
		}
		batches = func(send func([]load.Sealed) error) error { return p.prepared(all, send) }
	}

	var err error
	p.session, err = open(*to, *keyText, status{bloom: make([]byte, whisper.BloomFilterSize)})
	if err != nil {
		return err
	}
	defer p.session.close()
	if *confirm {
		p.books = newBooks(*window)
		go p.books.keep(p.session)
	} else {
		go func() {
			for range p.session.packets {
			}
		}()
	}
	out.Line("connected", nil)

	p.first = time.Now()
	failed := batches(p.send)
	seconds := time.Since(p.first).Seconds()
	fields := out.Fields{"posted": p.sent, "burst_seconds": p.burstSeconds}
	if p.books != nil {
		if err := p.books.settle(*timeout); failed == nil {
			failed = err
		}
		seconds = time.Since(p.first).Seconds()
		fields["confirmed"] = p.books.confirmedCount()
		if failed == nil && p.books.confirmedCount() < p.sent {
			failed = fmt.Errorf("%d of %d envelopes confirmed", p.books.confirmedCount(), p.sent)
		}
	} else if failed == nil {
		select {
		case reason := <-p.session.node.Ended():
			failed = fmt.Errorf("the peer ended the connection: %s", reason)
		case <-time.After(*linger):
		}
	}
	fields["seconds"] = seconds
	out.Line("summary", fields)
	return failed
}

// prepared sends envelopes made beforehand: the burst without a pause, the others at the rate.
func (p *poster) prepared(all []load.Sealed, send func([]load.Sealed) error) error {
	for first := 0; first < len(all) && !p.stopped(); {
		next, size := first, 0
		for next < len(all) && next-first < p.perPacket && (next == first || size+len(all[next].Raw) < maxPacket-8) {
			size += len(all[next].Raw)
			next++
		}
		if first >= p.load.Burst && !p.pace(first-p.load.Burst) {
			return nil
		}
		if err := send(all[first:next]); err != nil {
			return err
		}
		if first < p.load.Burst {
			p.burstSeconds = time.Since(p.first).Seconds()
		}
		first = next
	}
	return nil
}

// live makes each envelope when it is sent, until the time or the count is over.
func (p *poster) live(send func([]load.Sealed) error) error {
	deadline := time.Now().Add(p.load.For)
	for i := 0; time.Now().Before(deadline) && (p.load.Count == 0 || i < p.load.Count) && !p.stopped(); {
		batch, size := []load.Sealed{}, 0
		for len(batch) < p.perPacket && (p.load.Count == 0 || i < p.load.Count) {
			sealed, err := p.load.Make(i, uint32(time.Now().Unix()))
			if err != nil {
				return err
			}
			i++
			size += len(sealed.Raw)
			batch = append(batch, sealed)
			if size > maxPacket/2 {
				break
			}
		}
		if !p.pace(p.sent) {
			return nil
		}
		if err := send(batch); err != nil {
			return err
		}
	}
	return nil
}

// pace waits until it is time for the envelope after sent others; false when asked to stop meanwhile.
func (p *poster) pace(sent int) bool {
	if p.load.Rate <= 0 {
		return true
	}
	due := p.first.Add(time.Duration(float64(sent) / p.load.Rate * float64(time.Second)))
	select {
	case <-time.After(time.Until(due)):
		return true
	case <-p.stop:
		return false
	}
}

func (p *poster) stopped() bool {
	select {
	case <-p.stop:
		return true
	default:
		return false
	}
}

// send writes one Messages packet. With --confirm the lines are printed when the outcome is known.
func (p *poster) send(batch []load.Sealed) error {
	raw := make([]rlp.RawValue, len(batch))
	for i := range batch {
		raw[i] = batch[i].Raw
	}
	payload, err := rlp.EncodeToBytes(raw)
	if err != nil {
		return err
	}
	if p.books != nil {
		if err := p.books.open(payload, batch); err != nil {
			return err
		}
	}
	if err := p.session.send(messagesCode, payload); err != nil {
		return fmt.Errorf("after %d envelopes: %w", p.sent, err)
	}
	p.sent += len(batch)
	if p.books == nil {
		for _, sealed := range batch {
			out.Line("posted", out.Envelope(sealed.Envelope, sealed.Raw))
		}
	}
	return nil
}
