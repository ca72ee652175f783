// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// connections are those to the server: never more than most. Where one more comes, the oldest that is not being answered
// gives way. Any user of this host may open connections and say nothing, and would keep scrapes out otherwise.
type connections struct {
	net.Listener
	most    int
	evicted func(number int) // told now and then, of those since the last time

	mu     sync.Mutex
	open   *list.List // of *connection, the oldest first
	number int        // evicted and not told of
	told   time.Time
}

const evictedPeriod = time.Minute // at least between two times that evicted is called

func limit(l net.Listener, most int, evicted func(int)) *connections {
	return &connections{Listener: l, most: most, evicted: evicted, open: list.New()}
}

// connection is one of them.
type connection struct {
	net.Conn
	all      *connections
	place    *list.Element // nil once it is closed
	answered int           // requests that are being answered
}

// Accept implements [net.Listener]. It does not wait for a place.
func (c *connections) Accept() (net.Conn, error) {
	accepted, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	conn := &connection{Conn: accepted, all: c}
	c.mu.Lock()
	victim, number := c.makeRoom()
	conn.place = c.open.PushBack(conn)
	c.mu.Unlock()
	if victim != nil {
		victim.Conn.Close()
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
	victim = c.open.Front().Value.(*connection) // or it is one that takes long to read its answer
	for e := c.open.Front(); e != nil; e = e.Next() {
		if conn := e.Value.(*connection); conn.answered == 0 {
			victim = conn
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

// leave takes a connection off the list. The lock is held.
func (c *connection) leave() {
	if c.place != nil {
		c.all.open.Remove(c.place)
		c.place = nil
	}
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
