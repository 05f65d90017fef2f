package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	whisper "github.com/ethereum/go-ethereum/whisper/whisperv6"

	"poste/peers/internal/load"
	"poste/peers/internal/node"
	"poste/peers/internal/out"
)

// listen prints what the peer relays, until the count, the time or SIGTERM.
func listen(arguments []string) error {
	var topics load.Topics
	flags := newFlags("listen")
	from := flags.String("from", "", "enode of the peer")
	keyText := flags.String("key", "", "node key in hex (default: a fresh one)")
	duration := flags.Duration("for", time.Hour, "how long")
	count := flags.Int("count", 0, "leave after so many envelopes, 0 = any number")
	interest := flags.Bool("interest", false, "announce topic interest instead of a bloom filter")
	verbose := flags.Bool("verbose", false, "go-ethereum's log on stderr")
	flags.Var(&topics, "topic", "only this topic, in hex (may be repeated; default: everything)")
	flags.Parse(arguments)
	if *verbose {
		node.Verbose()
	}
	ours := status{bloom: topics.Bloom()}
	if *interest {
		ours.interest = append([]whisper.TopicType{}, topics...)
	}
	session, err := open(*from, *keyText, ours)
	if err != nil {
		return err
	}
	defer session.close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	out.Line("connected", nil)

	deadline := time.After(*duration)
	seen := 0
	for *count == 0 || seen < *count {
		select {
		case packet, open := <-session.packets:
			if !open {
				return fmt.Errorf("the peer ended the connection: %s", session.why())
			}
			if packet.code != messagesCode {
				continue
			}
			envelopes, raw, err := readEnvelopes(packet.payload)
			if err != nil {
				return fmt.Errorf("packet 1 is not a list of envelopes: %w", err)
			}
			for i, envelope := range envelopes {
				seen++
				out.Line("envelope", out.Envelope(envelope, raw[i]))
			}
		case <-deadline:
			out.Line("summary", out.Fields{"count": seen})
			return nil
		case <-stop:
			out.Line("summary", out.Fields{"count": seen})
			return nil
		}
	}
	out.Line("summary", out.Fields{"count": seen})
	return nil
}
