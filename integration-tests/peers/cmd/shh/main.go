// Program shh is a foreign peer for tests: go-ethereum's own Whisper node (shh/6) and its own mailserver, untouched.
// Only the flags, the watching of packets and the printing are ours.
package main

import (
	"flag"
	"fmt"
	"os"

	whisper "github.com/ethereum/go-ethereum/whisper/whisperv6"

	"poste/peers/internal/out"
)

const usage = `usage: shh COMMAND [flags]   (shh COMMAND -h lists them)
  post        post envelopes and leave
  fetch       ask a mailserver for history in Whisper's binary form
  mailserver  run go-ethereum's mailserver until SIGTERM`

func main() {
	commands := map[string]func([]string) error{"post": post, "fetch": fetch, "mailserver": runMailserver}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		out.Line("error", out.Fields{"error": err.Error()})
		fmt.Fprintln(os.Stderr, "shh:", err)
		os.Exit(1)
	}
}

func newFlags(name string) *flag.FlagSet { return flag.NewFlagSet("shh "+name, flag.ExitOnError) }

// newWhisper makes the node. A go-ethereum node sends its whole pool in one packet, above the usual limit of 1 MiB when
// the pool is full, so a client that shall survive that takes a larger maxMessageSize.
func newWhisper(minPow float64, maxMessageSize uint32) *whisper.Whisper {
	return whisper.StandaloneWhisperService(&whisper.Config{
		MaxMessageSize:     maxMessageSize,
		MinimumAcceptedPOW: minPow,
	})
}
