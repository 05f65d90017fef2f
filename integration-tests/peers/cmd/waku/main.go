// Program waku is a foreign peer for tests that speaks waku/1. RLPx, envelopes, proof of work and payload encryption are
// go-ethereum's; only the packets of 6/WAKU1 and 8/WAKU-MAIL on top are written here.
package main

import (
	"flag"
	"fmt"
	"os"

	"poste/peers/internal/out"
)

const usage = `usage: waku COMMAND [flags]   (waku COMMAND -h lists them)
  post    post envelopes, with --confirm wait until a mailserver has confirmed each
  fetch   ask a mailserver for history and follow its cursors
  listen  print the envelopes that the peer relays`

func main() {
	commands := map[string]func([]string) error{"post": post, "fetch": fetch, "listen": listen}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		out.Line("error", out.Fields{"error": err.Error()})
		fmt.Fprintln(os.Stderr, "waku:", err)
		os.Exit(1)
	}
}

func newFlags(name string) *flag.FlagSet { return flag.NewFlagSet("waku "+name, flag.ExitOnError) }
