// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// connections are those to the server: never more than most. Where one more comes, one of whoever has the most gives way: his
// oldest that is not being answered, or else his oldest. Any user of this host may open connections and say nothing, and would
// keep scrapes out otherwise.
type connections struct {
	net.Listener
	most    int
	evicted func(number int) // told now and then, of those since the last time

	mu     sync.Mutex
	open   *list.List     // of *connection, the oldest first
	of     map[string]int // how many of them a peer has
	number int            // evicted and not told of
	told   time.Time
}

const evictedPeriod = time.Minute // at least between two times that evicted is called

func limit(l net.Listener, most int, evicted func(int)) *connections {
	return &connections{Listener: l, most: most, evicted: evicted, open: list.New(), of: make(map[string]int)}
}

// connection is one of them.
type connection struct {
	net.Conn
	all      *connections
	peer     string
	place    *list.Element // nil once it is closed
	answered int           // requests that are being answered
}

// Accept implements [net.Listener]. It does not wait for a place.
func (c *connections) Accept() (net.Conn, error) {
	accepted, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	conn := &connection{Conn: accepted, all: c, peer: peerOf(accepted)}
	if b, ok := accepted.(interface{ SetWriteBuffer(int) error }); ok {
		_ = b.SetWriteBuffer(bufferSize) // it is no more than the kernel's default otherwise
	}
	c.mu.Lock()
	victim, number := c.makeRoom()
	conn.place = c.open.PushBack(conn)
	c.of[conn.peer]++
	c.mu.Unlock()
	if victim != nil {
		victim.drop()
	}
	if number > 0 {
		c.evicted(number)
	}
	return conn, nil
}

// makeRoom takes the connection off the list that has to be closed, if any, and returns how many to tell of.
func (c *connections) makeRoom() (victim *connection, number int) {
	if c.open.Len() < c.most {
		return nil, 0
	}
	peer := c.greediest()
	for e := c.open.Front(); e != nil; e = e.Next() {
		conn := e.Value.(*connection)
		if conn.peer != peer {
			continue
		}
		if victim == nil || conn.answered == 0 { // or it is one that takes long to read its answer
			victim = conn
		}
		if conn.answered == 0 {
			break
		}
	}
	victim.leave()
	c.number++
	if time.Since(c.told) < evictedPeriod {
		return victim, 0
	}
	number, c.number, c.told = c.number, 0, time.Now()
	return victim, number
}

// greediest returns the peer with the most connections. The lock is held.
func (c *connections) greediest() (peer string) {
	for name, n := range c.of {
		if n > c.of[peer] {
			peer = name
		}
	}
	return peer
}

// peerOf returns who is at the other end: a user, an address, or of IPv6 a network, of which one has as many as he likes.
func peerOf(c net.Conn) string {
	if local, ok := c.(*net.UnixConn); ok {
		return userOf(local)
	}
	at, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return ""
	}
	const network6 = 64
	if addr := at.Addr().Unmap().WithZone(""); addr.Is6() && !addr.IsLoopback() {
		network, _ := addr.Prefix(network6)
		return network.String()
	}
	return at.Addr().Unmap().String()
}

func userOf(c *net.UnixConn) string {
	raw, err := c.SyscallConn()
	if err != nil {
		return ""
	}
	user := ""
	_ = raw.Control(func(fd uintptr) {
		if peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			user = strconv.Itoa(int(peer.Uid))
		}
	})
	return user
}

// leave takes a connection off the list. The lock is held.
func (c *connection) leave() {
	if c.place == nil {
		return
	}
	c.all.open.Remove(c.place)
	c.place = nil
	if c.all.of[c.peer]--; c.all.of[c.peer] == 0 {
		delete(c.all.of, c.peer)
	}
}

// drop closes a connection at once. The kernel keeps nothing of what was not read.
func (c *connection) drop() {
	if l, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0) // else it waits for its peer as an orphan
	}
	c.Conn.Close()
}

// Write implements [net.Conn]. What is not read in time is not kept for later either.
func (c *connection) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil {
		c.all.mu.Lock()
		c.leave()
		c.all.mu.Unlock()
		c.drop()
	}
	return n, err
}

// Close implements [net.Conn].
func (c *connection) Close() error {
	c.all.mu.Lock()
	c.leave()
	c.all.mu.Unlock()
	return c.Conn.Close()
}

type connectionKey struct{}

// withConnection lets answering find the connection of a request.
func withConnection(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, c)
}

// answering marks the connection of a request while a handler answers it.
func answering(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connectionKey{}).(*connection); ok {
			c.answer(1)
			defer c.answer(-1)
		}
		handler.ServeHTTP(w, r)
	})
}

func (c *connection) answer(n int) {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	c.answered += n
}
