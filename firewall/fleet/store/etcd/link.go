// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/stats"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

const (
	dialTime = 5 * time.Second
	// tlsTime is for the handshake, which takes a member its time that has a thousand others to greet.
	tlsTime = 15 * time.Second
	// spread is the time over which hosts that have lost their member come back, so that not all do at the same moment.
	spread = 5 * time.Second
	// keepAlive and keepAliveTimeout are how long it takes to notice that nothing comes through any more. A member refuses
	// to be asked more often than every five seconds.
	keepAlive        = 20 * time.Second
	keepAliveTimeout = 10 * time.Second
	maxBackoff       = 30 * time.Second
)

// link is the connection to a member, and knows when it has ended.
type link struct {
	endpoints []string // in an order of this process's own, so that hosts are spread over the members
	options   store.Options
	client    *clientv3.Client
	moving    sync.Mutex // held while it goes over to another member; taken before mu

	mu    sync.Mutex
	at    int // of endpoints
	turn  int // how often it has gone over to another member
	ended *ending
	been  bool  // a member has answered
	why   error // the last connection did not come to be
	fails int   // nor did so many
}

// ending is done once what was known before is to be read anew.
type ending struct {
	done chan struct{}
	id   uint64 // of this one alone
}

func newEnding() *ending { return &ending{done: make(chan struct{}), id: rand.Uint64()} }

// moment is a revision, and the connection over which it was read: another one may be to a cluster that was restored
// from a snapshot, and counts from there.
type moment struct {
	ended    *ending
	revision int64
}

// String returns the text that asks for what has happened since.
func (m moment) String() string { return fmt.Sprintf("%x.%d", m.ended.id, m.revision) }

// since returns the moment of a text, if this connection is still that one.
func (e *ending) since(text string) (m moment, known bool) {
	id, number, _ := strings.Cut(text, ".")
	revision, err := strconv.ParseInt(number, 10, 64)
	return moment{e, revision}, err == nil && id == strconv.FormatUint(e.id, 16)
}

func newLink(endpoints []string, o store.Options) *link {
	l := &link{ended: newEnding(), options: o}
	for _, i := range rand.Perm(len(endpoints)) {
		l.endpoints = append(l.endpoints, endpoints[i])
	}
	return l
}

// connect returns a client that asks one member. The connection comes to be with the first request.
func (l *link) connect() (*clientv3.Client, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            l.endpoints[:1],
		Logger:               zap.NewNop(),
		DialKeepAliveTime:    keepAlive,
		DialKeepAliveTimeout: keepAliveTimeout,
		MaxUnaryRetries:      1, // the store asks again, and another member
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(l.dial),
			grpc.WithStatsHandler(l),
			grpc.WithChainUnaryInterceptor(failFast),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.8, MaxDelay: maxBackoff},
				MinConnectTimeout: spread + maxBackoff + dialTime + tlsTime,
			}),
		},
	})
	l.client = client
	return client, err
}

// failFast has a request fail where there is no connection. The client would let it wait for one, and the other members not
// be asked.
func failFast(ctx context.Context, method string, request, reply any, c *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
	return invoke(ctx, method, request, reply, c, append(o, grpc.WaitForReady(false))...)
}

// answered notes that a member has answered.
func (l *link) answered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.been = true
}

// dial connects to a member, and not at once where one has answered before: all others have lost theirs, too.
func (l *link) dial(ctx context.Context, address string) (net.Conn, error) {
	if err := sleep(ctx, l.pause()); err != nil {
		return nil, err
	}
	connection, err := l.reach(ctx, address)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.why = err
	if l.fails++; err == nil {
		l.fails = 0
	}
	return connection, err
}

// pause returns how long to wait before the next connection: the longer, the more rounds of members have had none.
func (l *link) pause() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var most time.Duration
	if l.been {
		most = spread
	}
	if rounds := l.fails / len(l.endpoints); rounds > 0 {
		most += min(time.Second<<min(rounds-1, 10), maxBackoff)
	}
	if most == 0 {
		return 0
	}
	return rand.N(most)
}

// failure returns why there is no connection.
func (l *link) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}

func (l *link) reach(ctx context.Context, address string) (net.Conn, error) {
	plain, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "tcp", address)
	if err != nil || !secure(l.options) {
		return plain, err
	}
	connection, err := encrypt(ctx, plain, address, l.options)
	if err != nil {
		return nil, errors.Join(err, plain.Close())
	}
	return connection, nil
}

// encrypt begins TLS with a member. The files are read for each connection: certificates that live for a day are replaced
// under an agent that runs for a year.
func encrypt(ctx context.Context, plain net.Conn, address string, o store.Options) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	config, err := store.ClientTLS(o, host)
	if err != nil {
		return nil, err
	}
	config.NextProtos = []string{"h2"}
	ctx, cancel := context.WithTimeout(ctx, tlsTime)
	defer cancel()
	connection := tls.Client(plain, config)
	if err := connection.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS with etcd at %s: %w", address, err)
	}
	return connection, nil
}

// current returns what ends when the connection that is now in use does.
func (l *link) current() *ending {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// next goes over to another member, unless that has been done since.
func (l *link) next(since *ending) {
	l.moving.Lock()
	defer l.moving.Unlock()
	// Not under mu: the connection that ends thereby is told of before this returns.
	if endpoint := l.turnTo(since); endpoint != "" {
		l.client.SetEndpoints(endpoint)
	}
}

// turnTo returns the member to go over to, if that has not been done since and there is another one.
func (l *link) turnTo(since *ending) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended != since || len(l.endpoints) == 1 {
		return ""
	}
	l.turn++
	l.end()
	l.at = (l.at + 1) % len(l.endpoints)
	return l.endpoints[l.at]
}

// end says that what is known is to be read anew. The caller holds mu.
func (l *link) end() {
	close(l.ended.done)
	l.ended = newEnding()
}

type turnKey struct{}

// TagConn implements [stats.Handler].
func (l *link) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	return context.WithValue(ctx, turnKey{}, l.turn)
}

// HandleConn implements [stats.Handler].
func (l *link) HandleConn(ctx context.Context, event stats.ConnStats) {
	if _, ended := event.(*stats.ConnEnd); !ended {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// The connection to a member that is no longer asked may end when it likes.
	if ctx.Value(turnKey{}) == l.turn {
		l.end()
	}
}

// TagRPC implements [stats.Handler].
func (*link) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements [stats.Handler].
func (*link) HandleRPC(context.Context, stats.RPCStats) {}

// sleep returns after a time, or why it did not last so long.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
