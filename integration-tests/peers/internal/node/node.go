// Package node runs go-ethereum's p2p server (RLPx is foreign code here) with one sub-protocol, and connects it to one peer.
package node

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/p2p"
	"github.com/ethereum/go-ethereum/p2p/enode"
)

// connectTimeout covers dialing, both handshakes and the exchange of Status.
const connectTimeout = 20 * time.Second

// Node is a running p2p server.
type Node struct {
	Server *p2p.Server
	Key    *ecdsa.PrivateKey
	ended  chan string
}

// Key reads a node key in hex; an empty text makes a fresh one.
func Key(text string) (*ecdsa.PrivateKey, error) {
	if text == "" {
		return crypto.GenerateKey()
	}
	return crypto.HexToECDSA(text)
}

// Verbose sends go-ethereum's log to stderr.
func Verbose() {
	log.Root().SetHandler(log.LvlFilterHandler(log.LvlTrace, log.StreamHandler(os.Stderr, log.TerminalFormat(false))))
}

// Start runs a server with protocol. An empty listen address means that it only dials.
func Start(key *ecdsa.PrivateKey, listen string, protocol p2p.Protocol) (*Node, error) {
	node := &Node{Key: key, ended: make(chan string, 1)}
	server := &p2p.Server{Config: p2p.Config{
		Dialer:      dialer{node},
		Name:        "poste-foreign-peer",
		PrivateKey:  key,
		MaxPeers:    100,
		NoDiscovery: true,
		ListenAddr:  listen,
		Protocols:   []p2p.Protocol{protocol},
	}}
	if err := server.Start(); err != nil {
		return nil, fmt.Errorf("start the p2p server: %w", err)
	}
	node.Server = server
	events := make(chan *p2p.PeerEvent, 64)
	subscription := server.SubscribeEvents(events)
	go node.watch(events, subscription.Err())
	return node, nil
}

// Enode is the address under which others reach a listening node.
func (n *Node) Enode() (string, error) {
	host, port, err := net.SplitHostPort(n.Server.ListenAddr)
	if err != nil {
		return "", err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return "", err
	}
	return enode.NewV4(&n.Key.PublicKey, net.ParseIP(host), number, number).URLv4(), nil
}

// Connect dials url and waits until up is closed, which the protocol does once both Status packets have passed.
func (n *Node) Connect(url string, up <-chan struct{}) (*enode.Node, error) {
	peer, err := enode.Parse(enode.ValidSchemes, url)
	if err != nil {
		return nil, fmt.Errorf("enode %q: %w", url, err)
	}
	n.Server.AddPeer(peer)
	select {
	case <-up:
		return peer, nil
	case reason := <-n.ended:
		return nil, fmt.Errorf("the peer ended the connection before it was up: %s", reason)
	case <-time.After(connectTimeout):
		return nil, fmt.Errorf("no connection within %s", connectTimeout)
	}
}

// Ended yields the reason when a connection has ended.
func (n *Node) Ended() <-chan string { return n.ended }

func (n *Node) watch(events <-chan *p2p.PeerEvent, stopped <-chan error) {
	for {
		select {
		case event := <-events:
			if event.Type == p2p.PeerEventTypeDrop {
				n.end(event.Error)
			}
		case <-stopped:
			return
		}
	}
}

func (n *Node) end(reason string) {
	select {
	case n.ended <- reason:
	default: // the first reason is the one that counts
	}
}

// dialer reports a failed dial at once; the server itself would silently try again after 35 seconds.
type dialer struct{ node *Node }

func (d dialer) Dial(ctx context.Context, to *enode.Node) (net.Conn, error) {
	address := net.JoinHostPort(to.IP().String(), strconv.Itoa(to.TCP()))
	conn, err := (&net.Dialer{Timeout: connectTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		d.node.end(err.Error())
	}
	return conn, err
}
