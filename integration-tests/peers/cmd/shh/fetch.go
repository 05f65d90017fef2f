package main

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/rlp"
	whisper "github.com/ethereum/go-ethereum/whisper/whisperv6"

	"poste/peers/internal/load"
	"poste/peers/internal/node"
	"poste/peers/internal/out"
)

// mailCode is shh/6's packet with one historic envelope.
const mailCode = 127

// fetch asks as go-ethereum's own wmailclient does: fixed binary, signed with the node key, encrypted with the mail
// password's key, topic zero. Nothing marks the end of an answer: silence does.
func fetch(arguments []string) error {
	var topics load.Topics
	now := time.Now().Unix()
	flags := newFlags("fetch")
	from := flags.String("from", "", "enode of the mailserver")
	keyText := flags.String("key", "", "node key in hex (default: a fresh one)")
	since := flags.Int64("since", now-24*3600+120, "start of the range, unix seconds, inclusive")
	until := flags.Int64("until", now+60, "end of the range, unix seconds, inclusive")
	password := flags.String("mail-password", "status-offline-inbox", "the mailserver's password")
	pow := flags.Float64("pow", 0.002, "proof of work of the request")
	silence := flags.Duration("silence", 3*time.Second, "so long without an envelope ends the answer")
	verbose := flags.Bool("verbose", false, "go-ethereum's log on stderr")
	flags.Var(&topics, "topic", "only this topic, in hex (may be repeated; default: everything)")
	flags.Parse(arguments)
	if *verbose {
		node.Verbose()
	}
	key, err := node.Key(*keyText)
	if err != nil {
		return err
	}

	shh := newWhisper(0, whisper.MaxMessageSize)
	if err := shh.Start(); err != nil {
		return err
	}
	defer shh.Stop()
	mail := make(chan []byte, 1024)
	completions := 0
	tap := &node.Tap{Read: func(code uint64, payload []byte) {
		switch code {
		case mailCode:
			mail <- payload
		case 125: // unknown to go-ethereum, which must bear it
			completions++
		}
	}}
	peer, err := node.Start(key, "", tap.Wrap(shh.Protocols()[0]))
	if err != nil {
		return err
	}
	defer peer.Server.Stop()
	server, err := peer.Connect(*from, tap.Up())
	if err != nil {
		return err
	}

	payload := make([]byte, 8, 8+whisper.BloomFilterSize)
	binary.BigEndian.PutUint32(payload, uint32(*since))
	binary.BigEndian.PutUint32(payload[4:], uint32(*until))
	params := whisper.MessageParams{
		Src: key, KeySym: load.PasswordKey(*password), PoW: *pow, WorkTime: 5,
		Payload: append(payload, topics.Bloom()...),
	}
	message, err := whisper.NewSentMessage(&params)
	if err != nil {
		return err
	}
	request, err := message.Wrap(&params)
	if err != nil {
		return err
	}
	id := server.ID()
	if err := shh.RequestHistoricMessages(id[:], request); err != nil {
		return err
	}

	started, last, count := time.Now(), time.Now(), 0
	for {
		select {
		case raw := <-mail:
			var envelope whisper.Envelope
			if err := rlp.DecodeBytes(raw, &envelope); err != nil {
				return fmt.Errorf("packet 127 is not a bare envelope: %w", err)
			}
			count++
			last = time.Now()
			out.Line("envelope", out.Envelope(&envelope, raw))
		case reason := <-peer.Ended():
			return fmt.Errorf("the mailserver ended the connection after %d envelopes: %s", count, reason)
		case <-time.After(*silence):
			out.Line("complete", out.Fields{
				"count": count, "seconds": last.Sub(started).Seconds(), "completions": completions,
			})
			return nil
		}
	}
}
