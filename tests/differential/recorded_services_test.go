// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// page is what the HTTP servers serve, and what is sent to them and through SSH.
var page = strings.Repeat("portcullis\n", 4000)

// serve runs in a host what the programs talk to: HTTP on 80, SSH on 22 for whoever has the key, DNS on 53.
func serve(t testing.TB, h *lab.Host, key ssh.Signer) {
	t.Helper()
	var web, shell, names net.Listener
	var queries net.PacketConn
	h.Do(t, func() (err error) {
		for port, l := range map[string]*net.Listener{":80": &web, ":22": &shell, ":53": &names} {
			if *l, err = net.Listen("tcp", port); err != nil {
				return err
			}
		}
		queries, err = net.ListenPacket("udp", ":53")
		return err
	})
	pages := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, page)
	})}
	go pages.Serve(web)
	go accept(shell, func(c net.Conn) { serveSSH(c, key) })
	go accept(names, serveDNS)
	go func() {
		query := make([]byte, 1500)
		for {
			n, from, err := queries.ReadFrom(query)
			if err != nil {
				return
			}
			if b, err := resolve(query[:n]); err == nil {
				queries.WriteTo(b, from)
			}
		}
	}()
	t.Cleanup(func() {
		pages.Close()
		shell.Close()
		names.Close()
		queries.Close()
	})
}

// accept serves each connection until the listener is closed.
func accept(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			serve(c)
		}()
	}
}

// newKey makes a key that both hosts of a recording and the ssh client use, and the file for ssh.
func newKey(t testing.TB) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return signer, file
}

// serveSSH says back what it is told, whatever command is asked for.
func serveSSH(c net.Conn, key ssh.Signer) {
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, given ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(given.Marshal(), key.PublicKey().Marshal()) {
			return nil, errors.New("another key")
		}
		return nil, nil
	}}
	config.AddHostKey(key)
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	defer conn.Close()
	go ssh.DiscardRequests(requests)
	for offered := range channels {
		session, requests, err := offered.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range requests {
				r.Reply(r.Type == "exec", nil)
				if r.Type != "exec" {
					continue
				}
				go func() {
					io.Copy(session, session)
					session.SendRequest("exit-status", false, make([]byte, 4))
					session.Close()
				}()
			}
		}()
	}
}

// serveDNS answers over TCP, where each message has its length before it.
func serveDNS(c net.Conn) {
	for {
		query := make([]byte, 2)
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		query = make([]byte, binary.BigEndian.Uint16(query))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		b, err := resolve(query)
		if err != nil {
			return
		}
		c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	}
}

// resolve answers a query for TXT with more than fits into a packet, and any other with an address.
func resolve(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	m.Response, m.Additionals = true, nil
	for _, q := range m.Questions {
		header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}
		if q.Type == dnsmessage.TypeTXT {
			long := &dnsmessage.TXTResource{TXT: []string{page[:250], page[:250], page[:250], page[:250]}}
			for range 3 {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: long})
			}
			continue
		}
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: otherV4.As4()}})
	}
	return m.Pack()
}
