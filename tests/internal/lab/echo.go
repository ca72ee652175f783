// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// Echo sends back what it gets on a TCP port of the host until the test ends, and its connections with it: some never
// hear that their peer is gone.
func (h *Host) Echo(t testing.TB, port int) {
	t.Helper()
	h.Do(t, func() error {
		ln, err := net.Listen("tcp", fmt.Sprintf("[::]:%d", port))
		if err != nil {
			return err
		}
		e := &echo{open: make(map[net.Conn]bool)}
		t.Cleanup(func() {
			ln.Close()
			e.end()
		})
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go e.serve(c)
			}
		}()
		return nil
	})
}

// echo is the connections of a port.
type echo struct {
	mu    sync.Mutex
	open  map[net.Conn]bool
	ended bool
}

func (e *echo) serve(c net.Conn) {
	defer c.Close()
	e.mu.Lock()
	ended := e.ended
	e.open[c] = true
	e.mu.Unlock()
	if ended {
		return
	}
	io.Copy(c, c)
	e.mu.Lock()
	delete(e.open, c)
	e.mu.Unlock()
}

func (e *echo) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	for c := range e.open {
		c.Close()
	}
}
