package main

import (
	"encoding/hex"
	"os"
	"os/signal"
	"syscall"

	"github.com/ethereum/go-ethereum/whisper/mailserver"
	whisper "github.com/ethereum/go-ethereum/whisper/whisperv6"

	"poste/peers/internal/node"
	"poste/peers/internal/out"
)

// runMailserver archives what arrives and answers requests, all with go-ethereum's own code.
func runMailserver(arguments []string) error {
	flags := newFlags("mailserver")
	listen := flags.String("listen", "127.0.0.1:0", "RLPx address")
	keyText := flags.String("key", "", "node key in hex (default: a fresh one)")
	password := flags.String("password", "status-offline-inbox", "the password of mail requests")
	data := flags.String("data", "", "directory of its database (must be given)")
	pow := flags.Float64("pow", 0.000002, "minimum proof of work of envelopes and requests")
	verbose := flags.Bool("verbose", false, "go-ethereum's log on stderr")
	flags.Parse(arguments)
	if *verbose {
		node.Verbose()
	}
	key, err := node.Key(*keyText)
	if err != nil {
		return err
	}

	shh := newWhisper(*pow, whisper.DefaultMaxMessageSize)
	var server mailserver.WMailServer
	if err := server.Init(shh, *data, *password, *pow); err != nil {
		return err
	}
	defer server.Close()
	shh.RegisterServer(announced{&server})
	if err := shh.Start(); err != nil {
		return err
	}
	defer shh.Stop()
	peer, err := node.Start(key, *listen, shh.Protocols()[0])
	if err != nil {
		return err
	}
	defer peer.Server.Stop()
	url, err := peer.Enode()
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	out.Line("ready", out.Fields{"enode": url})
	<-stop
	return nil
}

// announced says when something has been archived, so that a test can wait for it.
type announced struct{ server *mailserver.WMailServer }

func (a announced) Archive(envelope *whisper.Envelope) {
	a.server.Archive(envelope)
	hash := envelope.Hash()
	out.Line("archived", out.Fields{"hash": hex.EncodeToString(hash[:])})
}

func (a announced) DeliverMail(peer *whisper.Peer, request *whisper.Envelope) {
	a.server.DeliverMail(peer, request)
}
